"""Processes marked for KSM."""

import os
import subprocess
from pathlib import Path

import pytest

from ocimig.migrate.clone import merge
from ocimig.migrate.clone.errors import NotMergeable


@pytest.mark.parametrize(
    ("wanted", "reason", "run", "marked", "said"),
    [
        ("auto", "", "1", True, ""), ("auto", "", "0", False, ""), ("auto", "no", "1", False, ""),
        ("on", "", "1", True, ""), ("on", "", "2", True, "KSM is off"), ("off", "", "1", False, ""),
    ],
)  # fmt: skip
def test_copies_are_marked_where_the_host_merges(
    wanted: str, reason: str, run: str, marked: bool, said: str,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """A mark that nothing uses only ties a later checkpoint of the copy to kernels with KSM."""
    (tmp_path / "run").write_text(f"{run}\n")
    monkeypatch.setattr(merge, "RUN", str(tmp_path / "run"))
    monkeypatch.setattr(merge, "impossible", lambda: reason)
    found, words = merge.decide(wanted)
    assert found is marked
    assert said in words
    assert bool(said) == bool(words)


def test_a_mark_that_must_be_and_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """--merge on is a promise."""
    monkeypatch.setattr(merge, "impossible", lambda: "this kernel cannot")
    with pytest.raises(NotMergeable, match="this kernel cannot"):
        merge.decide("on")


@pytest.mark.skipif(bool(merge.impossible()), reason="this kernel marks no process for KSM")
def test_a_mark_is_inherited_by_what_is_started() -> None:
    """So whoever starts CRIU marks what CRIU restores, and is the only one that is marked besides."""
    command = ["sh", "-c", "echo; read word"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=merge.mark
    ) as child:
        assert child.stdout is not None
        assert child.stdout.read(1) == b"\n"  # it has been executed
        assert merge.marked(child.pid)
        child.communicate()
    assert not merge.marked(os.getpid())
