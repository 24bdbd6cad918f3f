"""Each side of a far store before a hostile other one: nothing that it says is believed."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ocimig.errors import Interrupted
from ocimig.migrate.errors import FarFailure, LinkLost, NotOurProtocol
from ocimig.migrate.store import far, local
from ocimig.migrate.store.errors import (
    FileMissing,
    PlaceFailed,
)
from ocimig.migrate.store.place import KEYS, PACKS
from ocimig.migrate.transport.local import LocalConnection
from ocimig.migrate.wire import Frame, Wire
from ocimig_testkit.stores import connected, reach
from ocimig_testkit.waiting import until


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty one, in a directory that has others in it."""
    (tmp_path / "backups").mkdir()
    local.create(str(tmp_path / "backups/store")).close()
    return tmp_path / "backups/store"


@pytest.fixture
def place(store: Path) -> Iterator[far.FarPlace]:
    """It, open."""
    opened = reach(store)
    yield opened
    opened.close()


# ---- a hostile client


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("read", {"room": KEYS, "name": "../../etc/passwd", "offset": 0, "size": 1}),
        ("read", {"room": "..", "name": "x", "offset": 0, "size": 1}),
        ("read", {"room": KEYS, "name": "k", "offset": -1, "size": 1}),
        ("read", {"room": KEYS, "name": "k", "offset": 0, "size": 1 << 70}),
        ("read", {"room": KEYS, "name": "k", "offset": 0, "size": True}),
        ("size", {"room": KEYS, "name": 7}),
        ("size", {"room": {}, "name": "k"}),
        ("size", {}),
        ("names", {"room": None}),
        ("write", {"file": 1}),
        ("commit", {"file": 1, "name": "k"}),
        ("remove", {"room": PACKS, "name": "zz.pack"}),
        ("quarantine", {"room": "quarantine/..", "name": "k"}),
        ("begin", {"file": "1", "room": KEYS}),
        ("lock", {"lock": -1}),
        ("open", {"path": "/"}),
        ("shell", {"argv": "id"}),
    ],
)
def test_what_may_not_be_asked_ends_the_conversation(
    place: far.FarPlace, store: Path, kind: str, header: dict[str, Any]
) -> None:
    """Names, numbers, rooms and requests are checked before anything is done."""
    before = sorted(store.rglob("*"))
    place._wire.send(kind, header)
    with pytest.raises((FarFailure, LinkLost)):
        place._wire.receive(10)
    assert sorted(store.rglob("*")) == before


def test_a_name_is_checked_when_it_is_given(place: far.FarPlace, store: Path) -> None:
    """The last word of a file too."""
    place._wire.send("begin", {"file": 1, "room": KEYS})
    place._wire.send("commit", {"file": 1, "name": "../STORE"})
    with pytest.raises((FarFailure, LinkLost)):
        place._wire.receive(10)
    until(lambda: list((store / "tmp").iterdir()) == [], "the far side is done")
    assert not (store / "STORE").exists()


def test_nobody_makes_files_without_end(place: far.FarPlace) -> None:
    """Descriptors of the far host are finite; so are locks."""
    for number in range(100):
        place.tell("begin", {"file": number, "room": KEYS})
    with pytest.raises(PlaceFailed, match="too many files"):
        place.free()


# ---- a hostile server


def answering(*answers: Frame) -> far.FarPlace:
    """A far side that opens anything, and then says what it likes."""

    def serving(wire: Wire) -> None:
        wire.greet()
        wire.receive()
        wire.send("done")
        wire.receive()
        for answer in answers:
            wire.send(answer.kind, answer.header, answer.payload)
        with suppress(LinkLost):
            while wire.receive(30).kind:
                pass

    return far.reach(connected(serving), ["ocimig"], "/store")


@pytest.mark.parametrize(
    "answer",
    [
        Frame("done", {}, b"x" * 5),  # more than asked for
        Frame("done", {}, b"xxx"),  # less
        Frame("piece", {}, b""),  # and so on, for ever
        Frame("alive-and-well", {}),
        Frame("failed", {"name": [1], "reason": {"a": "\x1b[2J"}}),
        Frame("error", {"message": "no", "code": "x"}),
    ],
)
def test_a_server_is_not_believed_about_lengths(answer: Frame) -> None:
    """Four bytes were asked for: nothing but four bytes is an answer."""
    place = answering(answer)
    with pytest.raises(PlaceFailed) as caught:
        place.read(KEYS, "k", 0, 4)
    assert str(caught.value).isprintable()
    place.close()


@pytest.mark.parametrize("names", [b"../x\n", b"a\n\nb\n", b"a\na\n", b"\xff\n", b"a b\n", b"cut"])
def test_a_server_is_not_believed_about_names(names: bytes) -> None:
    """They become paths, and lines on a terminal."""
    place = answering(Frame("done", {}, names))
    with pytest.raises(PlaceFailed):
        place.names(KEYS)
    place.close()


@pytest.mark.parametrize("size", [-1, 1 << 64, True, "5", None])
def test_a_server_is_not_believed_about_sizes(size: object) -> None:
    """A number is a number."""
    place = answering(Frame("done", {"bytes": size}))
    with pytest.raises(PlaceFailed, match="is no number"):
        place.size(KEYS, "k")
    place.close()


def test_what_a_server_fails_with_is_an_error_of_ours(store: Path) -> None:
    """Known names only, with our own words for the file; the rest is text on one line."""
    place = answering(Frame("failed", {"name": "FileMissing", "reason": "\x1b]0;x"}))
    with pytest.raises(FileMissing, match=r"ssh://memory/store: keys/k is missing"):
        place.size(KEYS, "k")
    place.close()


def test_an_interrupted_question_is_the_last(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal between a question and its answer: the answer must not be taken for that of the next."""
    place = reach(store)
    real = place._wire.receive

    def interrupted(timeout: float | None = None) -> Frame:
        raise Interrupted(state="by a test")

    monkeypatch.setattr(place._wire, "receive", interrupted)
    with pytest.raises(Interrupted):
        place.names(KEYS)
    monkeypatch.setattr(place._wire, "receive", real)
    with pytest.raises(PlaceFailed, match="interrupted"):
        place.free()
    place.close()


def test_a_server_that_is_none_is_named() -> None:
    """Code 14, with what it printed."""
    with pytest.raises(NotOurProtocol, match="hello"):
        far.reach(LocalConnection(), ["echo", "hello"], "/store")
