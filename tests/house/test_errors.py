"""Errors are for people: one class a situation, words that name the thing, a code that means something."""

import importlib.machinery
import importlib.util
import string
import subprocess
import sys
from functools import cache
from types import ModuleType

from ocimig.errors import OcimigError
from ocimig_testkit.source import ROOT

CODES = {1, 2, 3, 10, 11, 12, 13, 14, 15, 20, 21, 22, 130}
PROPER = {"Debian", "Linux", "Python"}


@cache
def _page() -> ModuleType:
    path = str(ROOT / "contrib/errors-page")
    loader = importlib.machinery.SourceFileLoader("errors_page", path)
    spec = importlib.util.spec_from_loader("errors_page", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # no cache beside the script
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = keep
    return module


def _classes() -> list[type[OcimigError]]:
    found: list[type[OcimigError]] = _page().classes()
    return found


def _fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def test_no_two_errors_have_one_name() -> None:
    """The name is what a report or a JSON record says."""
    names = [kind.__name__ for kind in _classes()]
    assert sorted(names) == sorted(set(names))


def test_every_error_says_what_it_is() -> None:
    """A docstring of its own, one sentence first."""
    assert [kind.__name__ for kind in _classes() if not kind.__dict__.get("__doc__")] == []


def test_the_words_are_for_people() -> None:
    """Lower case at the start unless it is a name, no full stop, a hint of one line, fields by name."""
    wrong = []
    for kind in _classes():
        for text in (kind.message, kind.hint):
            if text.endswith(".") or "  " in text or "\n" in kind.hint:
                wrong.append(f"{kind.__name__}: {text!r}")
            wrong += [
                f"{kind.__name__}: {{{name}}}" for name in _fields(text) if not _is_name(name)
            ]
        first = kind.message.split()[0] if kind.message else ""
        if not first or (first.isalpha() and first.istitle() and first not in PROPER):
            wrong.append(f"{kind.__name__}: {kind.message!r}")
    assert not wrong, "\n".join(wrong)


def _is_name(field: str) -> bool:
    return all(part.isidentifier() for part in field.split("."))


def test_every_exit_code_is_one_of_the_documented() -> None:
    """Callers tell situations apart by them."""
    assert [kind.__name__ for kind in _classes() if kind.code not in CODES] == []


def test_the_page_of_errors_is_current() -> None:
    """`make docs` writes it."""
    made = subprocess.run(
        [sys.executable, str(ROOT / "contrib/errors-page")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert (ROOT / "docs/errors.md").read_text() == made, "docs/errors.md is old: make docs"
