"""The sources of the project as values, for the house tests. Never imports them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("runtime", "criu_images", "migrate")


@dataclass(frozen=True, slots=True)
class Source:
    """One module: where it is, what it is called, whose room it is."""

    path: Path
    module: str
    room: str

    @property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return _parse(self.path)

    @property
    def shown(self) -> str:
        """Its path from the top of the project."""
        return str(self.path.relative_to(ROOT))

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and full name of everything it imports at run time, inside functions too."""
        package = self.module if self.path.name == "__init__.py" else self.module.rpartition(".")[0]
        for node in _walk_without_type_checking(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = package.split(".")
                    base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
                for alias in node.names:
                    yield node.lineno, f"{base}.{alias.name}"


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _walk_without_type_checking(tree: ast.Module) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


@cache
def sources() -> tuple[Source, ...]:
    """Every module of the program."""
    found = []
    for room in ROOMS:
        found += [_source(path, ROOT, room) for path in sorted((ROOT / room).rglob("*.py"))]
    hall = ROOT / "src/ocimig"
    for path in sorted([*hall.glob("*.py"), *(hall / "cli").rglob("*.py")]):
        door = path.is_relative_to(hall / "cli") or path.name == "__main__.py"
        room = "cli" if door else "floor"
        found.append(_source(path, hall, room))
    return tuple(found)


def _source(path: Path, base: Path, room: str) -> Source:
    parts = list(path.relative_to(base).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return Source(path, ".".join(["ocimig", *parts]), room)


def room_of(name: str) -> str | None:
    """The room that an imported name belongs to; None for what is not ours."""
    parts = name.split(".")
    if parts[0] != "ocimig":
        return None
    if len(parts) > 1 and parts[1] in (*ROOMS, "cli"):
        return parts[1]
    return "floor"
