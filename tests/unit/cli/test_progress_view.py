"""How a migration looks while it goes on."""

import json
import os
import pty
import re
import time
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
ROUND = Event(
    "round", "PRECOPY", "predicted blackout 82 ms", 1.0,
    {"number": 3, "dirty": 1024, "dirty_rate": 2 << 20, "bandwidth": 256 << 20, "predicted": 0.082,
     "throttle": 0.2, "eta": 12.0},
)  # fmt: skip


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


def _readable(text: str) -> list[str]:
    """What stands on the terminal, without the colours and movements of the cursor, each line once."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n").replace("\x04", "")
    return [" ".join(line.split()) for line in plain.split("\n") if line.strip()]


def test_a_terminal_keeps_one_line_a_phase() -> None:
    """Each phase leaves one line with its time, and warnings stand between them."""

    def feed(view: progress_view.View) -> None:
        for event in EVENTS:
            view(event)

    assert _readable(_on_a_terminal(feed)) == [
        "warning: clocks differ; run NTP",
        "PREFLIGHT 0.50 s",
        "PRECOPY 1.50 s",
        "warning: the link is slow",
        "FREEZE 0.50 s",
    ]


def test_a_terminal_shows_the_round_while_it_lasts() -> None:
    """Phase, step, round, rates, predicted blackout and when it will be frozen."""

    def feed(view: progress_view.View) -> None:
        view(EVENTS[3])
        view(ROUND)
        time.sleep(0.5)

    shown = "\n".join(_readable(_on_a_terminal(feed)))
    for word in ("PRECOPY", "predicted blackout 82 ms", "3", "4.0 MiB", "2.0 MiB/s", "256.0 MiB/s",
                 "82 ms", "12 s", "20%"):  # fmt: skip
        assert word in shown, word


def test_nothing_is_drawn_while_the_container_stands_still() -> None:
    """The processor belongs to the migration then; the display waits a second."""

    def feed(view: progress_view.View) -> None:
        view(Event("phase", "FREEZE", "FREEZE", 2.0))
        view(Event("step", "FREEZE", "images", 2.0))
        time.sleep(0.5)

    assert "images" not in _on_a_terminal(feed)


def test_a_program_finds_the_round_in_plain_and_json() -> None:
    """Without a terminal it is a line in words, or an object with every figure."""
    assert "predicted blackout 82 ms" in _shown("plain", (ROUND,))
    assert json.loads(_shown("json", (ROUND,)))["eta"] == 12.0


def test_an_error_finds_its_own_line() -> None:
    """close() takes away what moves, once and again."""

    def feed(view: progress_view.View) -> None:
        view(EVENTS[0])
        view.close()
        view.close()

    assert _readable(_on_a_terminal(feed)) == []


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
