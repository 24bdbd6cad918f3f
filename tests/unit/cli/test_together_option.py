"""migrate --together on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from ocimig.cli import main
from ocimig.migrate import engine, together
from ocimig.migrate.outcomes import Outcome


class Seen:
    """What `together` was called with."""

    def __init__(self, answer: list[Outcome]) -> None:
        self.answer = answer
        self.positional: tuple[Any, ...] = ()

    def __call__(self, *positional: Any) -> list[Outcome]:
        self.positional = positional
        return self.answer


def test_several_move_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """All but the last are containers; the exit code is the worst of theirs."""
    seen = Seen([Outcome("c1", "host2", "moved"), Outcome("c2", "host2", "refused", 14, "no")])
    monkeypatch.setattr(together, "together", seen)
    argv = ["--root", str(tmp_path), "migrate", "--together", "c1", "c2", "me@host2"]
    assert main.run([*argv, "--json"]) == 14
    _, ids, target, options, _ = seen.positional
    assert ids == ["c1", "c2"]
    assert (target.host, target.user) == ("host2", "me")
    assert options == engine.MigrateOptions()
    assert [each["id"] for each in json.loads(capfd.readouterr().out)] == ["c1", "c2"]


@pytest.mark.parametrize(
    "words",
    [
        ["c1", "c2", "host2"],
        ["--together", "c1", "host2"],
        ["--together", "c1", "c1", "host2"],
        ["--together", "--resume", "c1"],
        ["--together", "--progress", "json", "c1", "c2", "host2"],
        ["--together", "--post-copy", "c1", "c2", "host2"],
        ["--together", "--report", "x.html", "c1", "c2", "host2"],
    ],
)
def test_what_several_cannot_be_asked(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code 2, and nothing is begun."""
    seen = Seen([])
    monkeypatch.setattr(together, "together", seen)
    monkeypatch.chdir(tmp_path)
    assert main.run(["--root", str(tmp_path), "migrate", *words]) == 2
    assert seen.positional == ()
