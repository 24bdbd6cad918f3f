"""Events of fanotify(7) are read as the kernel lays them out. Needs no privilege: the events are ours."""

import os
import struct
from collections.abc import Iterator

import pytest

from ocimig.runtime.linux import fanotify

DIRECTORY = struct.pack("=Ii", 8, 1) + b"inode+ge"


@pytest.fixture
def group() -> Iterator[tuple[int, int]]:
    """A pipe in place of a group: what is written is what the kernel would say."""
    reading, writing = os.pipe2(os.O_NONBLOCK)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def event(mask: int, info: bytes = b"", version: int = 3) -> bytes:
    """struct fanotify_event_metadata and what follows it."""
    return struct.pack("=IBBHQii", 24 + len(info), version, 0, 24, mask, -1, 0) + info


def named(name: bytes, kind: int = 2) -> bytes:
    """struct fanotify_event_info_fid with a name, filled up to a multiple of four."""
    body = b"FSIDFSID" + DIRECTORY + name + b"\0"
    body += bytes(-len(body) % 4)
    return struct.pack("=BBH", kind, 0, 4 + len(body)) + body


def test_an_event_names_its_directory_and_what_is_in_it(group: tuple[int, int]) -> None:
    """Several in one read, names of any length."""
    reading, writing = group
    os.write(writing, event(2, named(b"a")) + event(0x100, named(b"longer name")))
    assert list(fanotify.events(reading)) == [
        (2, DIRECTORY, b"a", b""),
        (0x100, DIRECTORY, b"longer name", b""),
    ]
    assert list(fanotify.events(reading)) == []


def test_an_overflow_is_told(group: tuple[int, int]) -> None:
    """It has no directory."""
    reading, writing = group
    os.write(writing, event(fanotify.FAN_Q_OVERFLOW))
    assert list(fanotify.events(reading)) == [(fanotify.FAN_Q_OVERFLOW, b"", b"", b"")]


def test_the_file_itself_is_named_too(group: tuple[int, int]) -> None:
    """In a record of its own, after that of the directory or alone; others are passed over."""
    reading, writing = group
    target = struct.pack("=Ii", 8, 1) + b"file+gen"
    alone = struct.pack("=BBH", 1, 0, 12 + len(target)) + b"FSIDFSID" + target
    pidfd = struct.pack("=BBHi", 4, 0, 8, -1)
    os.write(writing, event(2, named(b"a") + alone) + event(4, pidfd + alone) + event(2))
    assert list(fanotify.events(reading)) == [
        (2, DIRECTORY, b"a", target),
        (4, b"", b"", target),
        (2, b"", b"", b""),
    ]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (0x1, struct.pack("=II", 77, 9)),  # ext4
        (0x1, struct.pack("=IQ", 9, 77)),  # tmpfs
        (0x81, struct.pack("=QI", 77, 9)),  # xfs
        (0x4D, struct.pack("=QQI", 77, 5, 9)),  # btrfs
    ],
)
def test_a_handle_says_its_inode(kind: int, data: bytes) -> None:
    """Each file system makes its handles of other parts."""
    assert fanotify.inode_of(struct.pack("=Ii", len(data), kind) + data) == 77


def test_another_layout_is_refused(group: tuple[int, int]) -> None:
    """Better no watch than one that reads nonsense."""
    reading, writing = group
    os.write(writing, event(2, named(b"a"), version=4))
    with pytest.raises(OSError, match="version 4"):
        list(fanotify.events(reading))


def test_a_handle_is_the_same_each_time() -> None:
    """And another for another directory; so events can be told apart."""
    one, other = os.open("/", os.O_PATH), os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    try:
        handle = fanotify.name_to_handle_at(one)
        size = struct.unpack_from("=I", handle)[0]
        assert len(handle) == 8 + size
        assert fanotify.name_to_handle_at(fanotify.AT_FDCWD, "/", 0) == handle
    except OSError as error:
        pytest.skip(f"the root file system has no handles: {error}")
    finally:
        os.close(one)
        os.close(other)
