"""The linters are tests: what CI refuses, `make test` refuses first."""

import subprocess
import sys
from pathlib import Path

import pytest

from ocimig_testkit.source import ROOT


def _passes(*argv: str) -> None:
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, f"{' '.join(argv)}\n{ended.stdout}{ended.stderr}"


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def test_every_file_has_the_one_format() -> None:
    """`make format` puts it right."""
    _passes(_tool("ruff"), "format", "--check", "--quiet", ".")


def test_the_rules_of_ruff_hold() -> None:
    """Each rule that is off says why in pyproject.toml."""
    _passes(_tool("ruff"), "check", "--output-format", "concise", ".")


def test_the_types_hold() -> None:
    """mypy --strict over the program."""
    _passes(_tool("mypy"))


def test_the_types_of_the_tests_hold() -> None:
    """mypy --strict over the tests."""
    _passes(_tool("mypy"), "tests")


@pytest.mark.parametrize(
    "script",
    [
        "contrib/install-criu",
        "contrib/install-deps",
        "contrib/install-program",
        "contrib/vm-run",
        ".ci/run",
    ],
)
def test_the_scripts_parse_and_are_executable(script: str) -> None:
    """bash reads them to the end without running them."""
    assert (ROOT / script).stat().st_mode & 0o111
    _passes("bash", "-n", script)
