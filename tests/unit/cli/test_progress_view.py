"""How a migration looks while it goes on."""

import json
import os
import pty
from collections.abc import Callable

import pytest

from ocimig.cli import progress_view
from ocimig.migrate.progress import Event

EVENTS = (
    Event("phase", "PREFLIGHT", "PREFLIGHT", 0.0),
    Event("finding", "PREFLIGHT", "clocks differ", 0.1, {"severity": "warning", "fix": "run NTP"}),
    Event("finding", "PREFLIGHT", "no room", 0.1, {"severity": "refused", "fix": "free some"}),
    Event("phase", "PRECOPY", "PRECOPY", 0.5),
    Event("step", "PRECOPY", "files while it runs", 0.6),
    Event("phase", "FREEZE", "FREEZE", 2.0),
    Event("bytes", "FREEZE", "images", 2.1, {"done": 1 << 20, "total": 4 << 20}),
    Event("warning", "FREEZE", "the link is slow", 2.2),
    Event("end", "RUNNING", "moved", 2.5),
)


def _shown(how: str, events: tuple[Event, ...] = EVENTS) -> str:
    reader, writer = os.pipe()
    view = progress_view.view(how, writer)
    for event in events:
        view(event)
    view.close()
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as file:
        return file.read()


def test_json_is_one_object_a_line_and_every_event() -> None:
    """For programs: nothing is left out."""
    lines = [json.loads(line) for line in _shown("json").splitlines()]
    assert [line["kind"] for line in lines] == [event.kind for event in EVENTS]
    assert lines[6] == {
        "kind": "bytes", "phase": "FREEZE", "text": "images", "at": 2.1,
        "done": 1 << 20, "total": 4 << 20,
    }  # fmt: skip


def test_plain_has_one_line_a_phase_and_a_step() -> None:
    """For logs: no bytes, no control characters, and not what the error will say anyway."""
    text = _shown("plain")
    assert "\r" not in text
    assert "\x1b" not in text
    assert [line.split(" s ", 1)[1].strip() for line in text.splitlines()] == [
        "PREFLIGHT",
        "warning: clocks differ; run NTP",
        "PRECOPY",
        "files while it runs",
        "FREEZE",
        "warning: the link is slow",
        "moved",
    ]


@pytest.mark.parametrize("how", ["none", "auto"])
def test_without_a_terminal_only_warnings_are_shown(how: str) -> None:
    """A script's stderr stays clean; a warning is for everybody."""
    assert _shown(how) == "warning: clocks differ; run NTP\nwarning: the link is slow\n"


def _on_a_terminal(feed: Callable[[progress_view.View], None]) -> str:
    master, slave = pty.openpty()
    try:
        view = progress_view.view("auto", slave)
        feed(view)
        view.close()
        os.write(slave, b"\x04")
        shown = b""
        while not shown.endswith(b"\x04"):  # the terminal may hand it over in parts
            shown += os.read(master, 1 << 16)
        return shown.decode()
    finally:
        os.close(master)
        os.close(slave)


def test_a_terminal_gets_one_moving_line_a_phase() -> None:
    """Each phase leaves one line with its time; a warning stands above the line that moves."""

    def feed(view: progress_view.View) -> None:
        for event in EVENTS:
            view(event)

    text = _on_a_terminal(feed)
    lines = [line.rpartition("\r")[2].replace("\x1b[K", "") for line in text.split("\r\n")]
    kept = [" ".join(line.split()) for line in lines if line and line != "\x04"]
    assert kept == [
        "warning: clocks differ; run NTP",
        "PREFLIGHT 0.50 s",
        "PRECOPY 1.50 s",
        "warning: the link is slow",
        "FREEZE 0.50 s",
    ]
    assert "FREEZE        0.20 s  the link is slow" not in text  # a warning is no step


def test_an_error_finds_its_own_line() -> None:
    """close() ends the line that stands open, once."""

    def feed(view: progress_view.View) -> None:
        view(EVENTS[0])
        view.close()
        view.close()

    assert _on_a_terminal(feed).count("\n") == 1


def test_a_terminal_that_goes_away_stops_nothing() -> None:
    """The migration goes on when nobody looks any more."""
    reader, writer = os.pipe()
    os.close(reader)
    for how in ("plain", "json", "none"):
        view = progress_view.view(how, writer)
        for event in EVENTS:
            view(event)
        view.close()
    os.close(writer)
