"""Senders that mean harm: nothing is written outside the directory, ever, and the error says why."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocimig.errors import OcimigError
from ocimig.migrate.errors import BrokenFrame, HostileEntry
from ocimig.migrate.rootfs import Receiver, records
from ocimig.migrate.rootfs.records import Record
from ocimig.migrate.wire import Frame
from ocimig_testkit import trees

pytestmark = [pytest.mark.root, pytest.mark.xattr]


class Hostile:
    """Feeds a receiver whatever it likes; beside the directory lies a file that must stay."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.outside = _outside(base)
        self.receiver = Receiver(str(base / "in"), sync=False)
        self.before = trees.facts(base / "outside")

    def send(self, *entries: Record) -> None:
        """All in one frame, then the end."""
        payload = b"".join(entry.pack() for entry in entries)
        self.receiver.handle(Frame(records.RECORDS, {}, payload))
        self.receiver.handle(Frame(records.END))

    def check(self) -> None:
        """Nothing outside was touched, nothing but the two directories is there."""
        assert trees.facts(self.base / "outside") == self.before
        assert sorted(os.listdir(self.base)) in (["in", "outside"], ["outside"])


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Hostile]:
    """Checked again at the end."""
    made = Hostile(tmp_path)
    yield made
    made.check()
    made.receiver.discard()
    made.receiver.close()
    made.check()


def regular(path: bytes, data: bytes = b"evil", flags: int = 0) -> Record:
    """A small file."""
    return Record(records.REGULAR, path, flags, mode=0o644, size=len(data), data=data)


@pytest.mark.parametrize(
    "path",
    [
        b"../outside/file",
        b"/etc/ocimig-evil",
        b"a/../../outside/x",
        b"..",
        b".",
        b"",
        b"a//b",
        b"a/",
        b"./a",
        b"a\0b",
        b"x" * 256,
        b"y/" * 2500 + b"z",
    ],
)
@pytest.mark.parametrize(
    "type_", [records.REGULAR, records.SYMLINK, records.FIFO, records.HARD_LINK, records.REMOVAL]
)
def test_a_path_that_leaves_is_refused(hostile: Hostile, path: bytes, type_: int) -> None:
    """Whatever it is for."""
    entry = Record(type_, path, target=b"a", mode=0o644)
    with pytest.raises(HostileEntry):
        hostile.send(Record(records.DIRECTORY, b"a", mode=0o755), entry)


@pytest.mark.parametrize("target", [b"../outside", b"/", b"../outside/file", b"/proc/self/root"])
@pytest.mark.parametrize("flags", [0, records.UPDATE])
def test_a_link_is_never_walked_through(hostile: Hostile, target: bytes, flags: int) -> None:
    """A symbolic link may point anywhere; nothing is written, made or changed behind it."""
    link = Record(records.SYMLINK, b"l", target=target)
    for entry in (
        regular(b"l/file", flags=flags),
        regular(b"l", flags=flags),
        Record(records.DIRECTORY, b"l/d", flags, mode=0o777),
        Record(records.REMOVAL, b"l/file"),
        Record(records.FIFO, b"l/fifo"),
        Record(records.HARD_LINK, b"stolen", target=b"l/file"),
    ):
        with pytest.raises((HostileEntry, OcimigError)):
            hostile.send(link, entry)
        hostile.send(Record(records.REMOVAL, b"l"))


def test_metadata_of_a_directory_is_not_set_through_a_link(hostile: Hostile) -> None:
    """A directory record marked as known that is a link by then."""
    link = Record(records.SYMLINK, b"l", target=b"../outside")
    with pytest.raises(OcimigError):
        hostile.send(link, Record(records.DIRECTORY, b"l", records.UPDATE, mode=0o777, uid=99))


def test_a_hard_link_to_the_outside_is_refused(hostile: Hostile) -> None:
    """Neither by `..` nor by an absolute path."""
    for target in (b"../outside/file", os.fsencode(hostile.outside), b"", b"no/such"):
        with pytest.raises(HostileEntry):
            hostile.send(Record(records.HARD_LINK, b"stolen", target=target))


def test_a_link_to_a_link_is_a_link(hostile: Hostile) -> None:
    """Linking a symbolic link gives another name for it, not for where it points."""
    hostile.send(
        Record(records.SYMLINK, b"l", target=b"../outside/file"),
        Record(records.HARD_LINK, b"m", target=b"l"),
    )
    assert (hostile.base / "in/m").is_symlink()


@pytest.mark.parametrize("type_", [records.REGULAR, records.DIRECTORY, records.FIFO])
def test_a_name_that_comes_twice_is_refused(hostile: Hostile, type_: int) -> None:
    """The second never replaces the first."""
    with pytest.raises(HostileEntry, match="there already"):
        hostile.send(regular(b"a"), Record(type_, b"a", mode=0o755))


@pytest.mark.parametrize("type_", [records.FIFO, records.CHARACTER, records.SOCKET])
def test_a_device_is_never_opened_for_writing(hostile: Hostile, type_: int) -> None:
    """A file "changed" that is a device, a pipe or a socket by then: refused, and nothing hangs."""
    node = Record(type_, b"n", mode=0o666, major=1, minor=3)
    with pytest.raises(HostileEntry):
        hostile.send(node, regular(b"n", flags=records.UPDATE))


def test_a_file_without_its_directory_is_refused(hostile: Hostile) -> None:
    """Directories are never made on the way."""
    with pytest.raises(HostileEntry, match="was not sent"):
        hostile.send(regular(b"a/b"))


def test_data_beyond_the_end_is_refused(hostile: Hostile) -> None:
    """A file is never longer than it said."""
    big = Record(records.REGULAR, b"big", records.STREAMED, mode=0o644, size=10)
    hostile.receiver.handle(Frame(records.RECORDS, {}, big.pack()))
    with pytest.raises(BrokenFrame, match="beyond"):
        hostile.receiver.handle(Frame(records.DATA, {"offset": 8}, b"abc"))


@pytest.mark.parametrize(
    "frame",
    [
        Frame(records.DATA, {"offset": 0}, b"x"),
        Frame(records.FILE_END, {"size": 0}),
        Frame(records.RECORDS, {}, b"x"),
        Frame(records.RECORDS, {}, regular(b"a").pack()[:-1]),
        Frame(records.RECORDS, {}, b"\xff" + regular(b"a").pack()[1:]),
        Frame(records.RECORDS, {}, b"\x01\xf0" + regular(b"a").pack()[2:]),
        Frame(records.BEGIN, {"version": 2}),
        Frame("hello"),
    ],
)
def test_a_frame_out_of_order_is_refused(hostile: Hostile, frame: Frame) -> None:
    """Neither half records nor unknown ones nor data without a file."""
    with pytest.raises(BrokenFrame):
        hostile.receiver.handle(frame)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=300))
def test_noise_is_refused_in_words(hostile: Hostile, noise: bytes) -> None:
    """Any bytes give one of our errors or nothing."""
    try:
        hostile.receiver.handle(Frame(records.RECORDS, {}, noise))
    except (BrokenFrame, HostileEntry):
        pass


def _outside(base: Path) -> Path:
    path = base / "outside/file"
    path.parent.mkdir()
    path.write_bytes(b"precious")
    return path
