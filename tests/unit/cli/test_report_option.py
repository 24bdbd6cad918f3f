"""migrate --report: drawn where it was asked for, or refused while nothing has moved."""

from pathlib import Path
from typing import Any

import pytest

from ocimig.cli import main
from ocimig.migrate import engine
from ocimig.migrate.report import Report


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was asked to move; nothing does."""
    asked: list[Any] = []

    def migrate(*arguments: Any) -> Report:
        asked.append(arguments)
        return Report("c1", "m", "host2", "moved")

    monkeypatch.setattr(engine, "migrate", migrate)
    return asked


def test_a_report_is_one_page(moves: list[Any], tmp_path: Path) -> None:
    """The file is there when the command has ended."""
    page = tmp_path / "report.html"
    argv = ["--root", str(tmp_path), "migrate", "c1", "host2", "--report", str(page)]
    assert main.run(argv) == 0
    assert page.read_text().startswith("<!doctype html>")
    assert len(moves) == 1


@pytest.mark.parametrize("place", ["nowhere/report.html", "."])
def test_a_report_that_cannot_be_drawn_is_refused_first(
    moves: list[Any], tmp_path: Path, place: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """No such directory, or a directory itself: code 2, and nothing has moved."""
    argv = ["--root", str(tmp_path), "migrate", "c1", "host2", "--report", str(tmp_path / place)]
    assert main.run(argv) == 2
    assert "cannot be written" in capfd.readouterr().err
    assert moves == []
