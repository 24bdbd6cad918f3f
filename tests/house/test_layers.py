"""Who may import whom, and what may be used where."""

import ast
from collections.abc import Callable

import pytest

from ocimig_testkit.source import Source, room_of, sources

MAY: dict[str, set[str]] = {
    "floor": set(),
    "runtime": set(),
    "criu_images": set(),
    "migrate": {"runtime", "criu_images"},
    "cli": {"runtime", "migrate", "criu_images"},
}


def test_upper_rooms_know_lower_rooms_and_neighbours_do_not_know_each_other() -> None:
    """An import goes down, to the floor, or stays in its room."""
    wrong = [
        f"{source.shown}:{line}: {source.room} imports {name}"
        for source in sources()
        for line, name in source.imports()
        if (room := room_of(name)) is not None
        and room not in {source.room, "floor"} | MAY[source.room]
    ]
    assert not wrong, "\n".join(wrong)


def _in(*prefixes: str) -> Callable[[Source], bool]:
    return lambda source: source.shown.startswith(prefixes)


PLACES = {
    "ctypes": _in("runtime/linux/"),
    "pyroute2": _in("migrate/network"),
    "paramiko": _in("migrate/transport/ssh.py", "migrate/transport/ssh_channel.py"),
    "cryptography": _in("migrate/store/seal.py", "migrate/store/keys.py", "migrate/transport/ssh"),
    "google": _in("criu_images/", "migrate/wire"),
    "pycriu": _in("criu_images/"),
    "click": _in("src/ocimig/cli/"),
    "rich": _in("src/ocimig/cli/"),
    "runtime": _in(),
    "migrate": _in(),
    "criu_images": _in(),
}


@pytest.mark.parametrize("package", PLACES)
def test_a_heavy_or_dangerous_package_is_used_only_in_its_place(package: str) -> None:
    """ctypes in the cellar, paramiko in two files, protobuf with CRIU's images, and so on."""
    wrong = [
        f"{source.shown}:{line}: imports {name}"
        for source in sources()
        for line, name in source.imports()
        if name.partition(".")[0] == package and not PLACES[package](source)
    ]
    assert not wrong, "\n".join(wrong)


def _calls(source: Source) -> list[tuple[int, str]]:
    return [
        (node.lineno, ast.unparse(node.func))
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
    ]


def test_only_the_doorman_prints_and_leaves() -> None:
    """print, input, sys.exit and exit belong to cli; every other room returns or raises."""
    banned = {"print", "input", "exit", "quit", "sys.exit"}
    wrong = [
        f"{source.shown}:{line}: {name}()"
        for source in sources()
        if source.room != "cli"
        for line, name in _calls(source)
        if name in banned
    ]
    assert not wrong, "\n".join(wrong)


def test_no_shell_and_no_code_from_text() -> None:
    """No os.system, no shell=True, no eval, no exec of text, anywhere."""
    banned = {"os.system", "os.popen", "eval", "exec", "compile", "tempfile.mktemp"}
    wrong = []
    for source in sources():
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call):
                continue
            shell = [word for word in node.keywords if word.arg == "shell"]
            if ast.unparse(node.func) in banned or shell:
                wrong.append(f"{source.shown}:{node.lineno}: {ast.unparse(node.func)}")
    assert not wrong, "\n".join(wrong)


def test_every_module_says_what_it_owns() -> None:
    """The first line of a module is a docstring."""
    wrong = [source.shown for source in sources() if not ast.get_docstring(source.tree)]
    assert not wrong, "\n".join(wrong)


def test_every_public_function_and_class_says_what_it_is() -> None:
    """One line is enough; private names and overrides of the language need none."""
    wrong = []
    for source in sources():
        for node in [*source.tree.body, *_methods(source.tree)]:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                continue
            if not node.name.startswith("_") and not ast.get_docstring(node):
                wrong.append(f"{source.shown}:{node.lineno}: {node.name}")
    assert not wrong, "\n".join(wrong)


def _methods(tree: ast.Module) -> list[ast.stmt]:
    return [
        inner
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        for inner in node.body
    ]
