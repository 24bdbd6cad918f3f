"""Manual pages, completions and the page of exit codes are those of the table."""

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from ocimig.cli import manpages
from ocimig.cli.verbs_cold import ALL, FAMILIES

ROOT = Path(__file__).parents[3]
GENERATED: dict[str, str] = runpy.run_path(str(ROOT / "contrib/man.py"))["generated"]()


@pytest.mark.parametrize("path", GENERATED)
def test_a_generated_file_is_current(path: str) -> None:
    """After a change of the table: make man."""
    assert (ROOT / path).read_text() == GENERATED[path], "run: make man"


def test_nothing_is_left_of_a_verb_that_is_gone() -> None:
    """Every page there is one that the table has."""
    assert {f"contrib/man/{path.name}" for path in (ROOT / "contrib/man").iterdir()} <= set(
        GENERATED
    )


def test_every_verb_that_is_shown_has_a_page() -> None:
    """And one for the program, and for each first word of two."""
    shown = {verb.name.replace(" ", "-") for verb in ALL.values() if not verb.hidden}
    pages = {f"ocimig-{name}.8" for name in shown | set(FAMILIES)}
    assert set(manpages.pages()) == pages | {"ocimig.8"}


def _completed(*words: str) -> set[str]:
    script = (
        'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { :; }; _ocimig; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, ROOT / "contrib/completions/ocimig.bash", *words],
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_verbs_options_values_and_ids(tmp_path: Path) -> None:
    """The ids are the directories of the state, wherever --root says they are."""
    (tmp_path / "c1").mkdir()
    (tmp_path / "c2").mkdir()
    (tmp_path / "d1").mkdir()
    assert _completed("ocimig", "st") == {"state", "start"}
    assert _completed("ocimig", "list", "--format", "") == {"table", "json"}
    assert _completed("ocimig", "list", "--format", "=", "j") == {"json"}
    assert _completed("ocimig", "checkpoint", "--tcp-e") == {"--tcp-established"}
    assert _completed("ocimig", "--root", str(tmp_path), "kill", "c") == {"c1", "c2"}
    assert _completed("ocimig", "--root", "=", str(tmp_path), "state", "d") == {"d1"}
    assert _completed("ocimig", "create", "-b", str(tmp_path)[:-1]) >= {str(tmp_path)}
    assert _completed("ocimig", "agent", "") == set()


def test_bash_completes_verbs_of_two_words() -> None:
    """First the family, then the word in it, then its options and their values."""
    assert "backup" in _completed("ocimig", "back")
    assert _completed("ocimig", "backup", "re") == {"restore", "repair"}
    assert _completed("ocimig", "backup", "create", "--tra") == {"--tracker", "--transport"}
    assert "userfault" in _completed("ocimig", "backup", "create", "--tracker", "")
    assert _completed("ocimig", "backup", "list", "--format", "t") == {"table"}


@pytest.mark.parametrize(
    ("shell", "name"), [("bash", "ocimig.bash"), ("zsh", "_ocimig"), ("fish", "ocimig.fish")]
)
def test_a_shell_takes_its_file(shell: str, name: str) -> None:
    """No syntax error, where the shell is there to say so."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    check = [shell, "--no-execute"] if shell == "fish" else [shell, "-n"]
    done = subprocess.run(
        [*check, ROOT / "contrib/completions" / name],
        capture_output=True, text=True, check=False, env={**os.environ, "HOME": "/nonexistent"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
