"""A file is read in one sitting, a function on one screen."""

import ast
import re

from ocimig_testkit.source import ROOT, sources

FILE_LINES = 400
FUNCTION_LINES = 60
INIT_LINES = (
    1500  # of code (docs/adr/0011, 0014): what runs as root inside a container must be read whole
)
PRELOAD_LINES = 450  # of code (docs/adr/0017): what is loaded into CRIU


def test_no_file_is_longer_than_one_sitting() -> None:
    """At most 400 lines, tests too."""
    files = [source.path for source in sources()]
    files += sorted((ROOT / "tests").rglob("*.py"))
    lengths = {path: len(path.read_text().splitlines()) for path in files}
    wrong = [
        f"{path.relative_to(ROOT)}: {length} lines"
        for path, length in lengths.items()
        if length > FILE_LINES
    ]
    assert not wrong, "\n".join(wrong)


def test_no_function_is_longer_than_a_screen() -> None:
    """At most 60 lines with its docstring."""
    wrong = []
    for source in sources():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    wrong.append(f"{source.shown}:{node.lineno}: {node.name} has {length} lines")
    assert not wrong, "\n".join(wrong)


def test_the_program_inside_the_namespaces_stays_small() -> None:
    """The C sources together: under 1,500 lines of code; elsewhere only what is loaded into CRIU."""
    inside = sorted((ROOT / "runtime/init").glob("*.[ch]"))
    assert inside
    assert sum(_lines_of_code(path.read_text()) for path in inside) < INIT_LINES
    kept = [path for room in ("runtime", "migrate", "criu_images", "src", "contrib")
            for path in (ROOT / room).rglob("*.[ch]")]  # fmt: skip
    kept = [path for path in kept if path.parent != ROOT / "contrib/bench"]  # what is measured
    preload = sorted((ROOT / "criu_images/preload").glob("*.c"))
    assert {path.resolve() for path in kept} == {path.resolve() for path in [*inside, *preload]}
    assert sum(_lines_of_code(path.read_text()) for path in preload) < PRELOAD_LINES


def _lines_of_code(text: str) -> int:
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return sum(
        1 for line in text.splitlines() if line.strip() and not line.strip().startswith("//")
    )
