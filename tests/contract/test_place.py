"""One suite over every place that a store may lie in: what place.Place promises, each promise once."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ocimig.errors import NoSpace, OcimigError
from ocimig.migrate.store import far, local, serve
from ocimig.migrate.store.errors import (
    FileMissing,
    FileShort,
    NameTaken,
    PlaceFailed,
    StoreExists,
    StoreLocked,
)
from ocimig.migrate.store.place import KEYS, PACKS, QUARANTINE, SNAPSHOTS, TOP, Place
from ocimig.migrate.transport import Connection, Target, connect
from ocimig.migrate.transport.local import LocalConnection
from ocimig.migrate.transport.memory import MemoryChannel, MemoryConnection
from ocimig.migrate.wire import Wire
from ocimig_testkit.places import Disk, MemoryPlace
from ocimig_testkit.runner import program
from ocimig_testkit.sshd import Sshd

NAME = "0123456789abcdef-00112233445566778899aabbccddeeff"
PACK, SNAPSHOT = f"{NAME}.pack", f"{NAME}.snapshot"
Open = Callable[[], Place]
ARGV = (*program(), "serve-store")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One sshd for everything that does not change it."""
    with Sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


def far_in_memory() -> MemoryConnection:
    """The serving side in a thread, for tests that look at both."""

    def program(argv: object, channel: MemoryChannel, complain: Callable[[bytes], None]) -> int:
        serve.Server(Wire(channel), serve.Confined()).run()
        return 0

    return MemoryConnection(program)


@pytest.fixture(
    params=[
        "memory",
        "directory",
        "far-thread",
        "far-process",
        pytest.param("far-paramiko", marks=pytest.mark.ssh),
        pytest.param("far-openssh", marks=pytest.mark.ssh),
    ]
)
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the same store once more, each time."""
    kind: str = request.param
    disk, directory = Disk(), str(tmp_path / "store")
    if kind != "memory":
        local.create(directory).close()
    opened: list[Place] = []

    def connection() -> Connection:
        if kind == "far-thread":
            return far_in_memory()
        if kind == "far-process":
            return LocalConnection()
        sshd: Sshd = request.getfixturevalue("server")
        return connect(Target(**sshd.way()), transport=kind.removeprefix("far-"))

    def opens() -> Place:
        place: Place
        if kind == "memory":
            place = MemoryPlace(disk)
        elif kind == "directory":
            place = local.LocalPlace(directory)
        else:
            place = far.reach(connection(), ARGV, directory)
        opened.append(place)
        return place

    yield opens
    for place in opened:
        place.close()


@pytest.fixture
def place(opening: Open) -> Place:
    """One of them, open."""
    return opening()


def put(place: Place, room: str, name: str, data: bytes) -> None:
    """A file, in two writes."""
    with place.make(room) as making:
        making.write(data[: len(data) // 2])
        making.write(memoryview(data)[len(data) // 2 :])
        making.commit(name)


def test_what_was_committed_is_there_as_it_was_written(place: Place) -> None:
    """Every byte, in every room, found by its name."""
    data = bytes(range(256)) * 5000
    for room, name in ((TOP, "STORE"), (KEYS, "k.key"), (PACKS, PACK), (SNAPSHOTS, SNAPSHOT)):
        assert place.names(room) == []
        put(place, room, name, data)
        assert place.names(room) == [name]
        assert place.size(room, name) == len(data)
        assert place.read(room, name) == data


def test_a_part_can_be_read(place: Place) -> None:
    """Frames are read one by one out of large packs."""
    data = os.urandom(3 << 20)
    put(place, PACKS, PACK, data)
    assert place.read(PACKS, PACK, 1, 4095) == data[1:4096]
    assert place.read(PACKS, PACK, 1 << 20, (2 << 20) - 3) == data[1 << 20 : -3]
    assert place.read(PACKS, PACK, len(data) - 1) == data[-1:]
    assert place.read(PACKS, PACK, len(data)) == b""
    assert place.read(PACKS, PACK, 7, 0) == b""


def test_a_read_beyond_the_end_says_so(place: Place) -> None:
    """A pack that was cut short must not look like one that holds less."""
    put(place, PACKS, PACK, bytes(100))
    for offset, size in ((0, 101), (100, 1), (101, -1), (1 << 40, 1)):
        with pytest.raises(FileShort, match=PACK):
            place.read(PACKS, PACK, offset, size)


def test_a_file_that_is_not_there_is_named(place: Place) -> None:
    """With its room."""
    asked: tuple[Callable[[str, str], object], ...] = (place.size, place.read, place.quarantine)
    for ask in asked:
        with pytest.raises(FileMissing, match=f"packs/{PACK}"):
            ask(PACKS, PACK)


def test_without_a_commit_nothing_is_left(place: Place) -> None:
    """A writer that fails, or is told to stop, leaves no name behind."""
    with place.make(PACKS) as making:
        making.write(b"x")
    with suppress(ZeroDivisionError), place.make(PACKS) as making:
        making.write(b"x")
        raise ZeroDivisionError
    assert place.names(PACKS) == []


def test_a_name_is_given_once(place: Place) -> None:
    """Nothing that is there is ever written over."""
    put(place, SNAPSHOTS, SNAPSHOT, b"first")
    with pytest.raises(NameTaken, match=SNAPSHOT):
        put(place, SNAPSHOTS, SNAPSHOT, b"second")
    assert place.read(SNAPSHOTS, SNAPSHOT) == b"first"


def test_an_empty_file_is_a_file(place: Place) -> None:
    """Whether that makes sense is not for the place to say."""
    with place.make(KEYS) as making:
        making.commit("empty.key")
    assert place.read(KEYS, "empty.key") == b""


def test_several_files_are_made_at_once(place: Place) -> None:
    """A pack of memory and one of files, by two threads."""
    first, second = os.urandom(2 << 20), os.urandom(1 << 20)
    other = PACK.replace("0", "1", 1)
    writer = threading.Thread(target=put, args=(place, PACKS, PACK, first))
    writer.start()
    put(place, PACKS, other, second)
    writer.join()
    assert (place.read(PACKS, PACK), place.read(PACKS, other)) == (first, second)


def test_what_is_removed_is_gone_and_may_be_removed_again(place: Place) -> None:
    """Pruning that was cut off is begun anew."""
    put(place, PACKS, PACK, b"x")
    place.remove(PACKS, PACK)
    place.remove(PACKS, PACK)
    assert place.names(PACKS) == []


def test_quarantine_keeps_the_bytes_under_their_name(place: Place) -> None:
    """What repair sets aside can be looked at."""
    put(place, PACKS, PACK, b"damaged")
    place.quarantine(PACKS, PACK)
    assert place.names(PACKS) == []
    assert place.names(QUARANTINE) == [PACK]
    assert place.read(QUARANTINE, PACK) == b"damaged"


def test_what_is_no_name_is_refused(place: Place) -> None:
    """Nobody gets out of a room by a name, neither here nor over there."""
    for name in ("", ".", "..", "../x", "a/b", "a\0b", "ü.pack", "-x", "x" * 129):
        for ask in (place.read, place.size, place.remove, place.quarantine):
            with pytest.raises(ValueError, match="no name"):
                ask(KEYS, name)
        with place.make(KEYS) as making, pytest.raises(ValueError, match="no name"):
            making.commit(name)


def test_many_hold_it_together(opening: Open) -> None:
    """Backups of two containers at one time."""
    one, other = opening(), opening()
    with one.lock(exclusive=False, purpose="a"), other.lock(exclusive=False, purpose="b"):
        with pytest.raises(StoreLocked) as caught, one.lock(exclusive=True, purpose="prune"):
            pass
        assert caught.value.code == 11


def test_who_holds_it_alone_keeps_all_others_out(opening: Open) -> None:
    """And is named, with what it does."""
    one, other = opening(), opening()
    with one.lock(exclusive=True, purpose="prune of everything"):
        for exclusive in (True, False):
            with (
                pytest.raises(StoreLocked, match="prune of everything"),
                other.lock(exclusive=exclusive, purpose="backup"),
            ):
                pass
        assert [words for words in other.holders() if "prune of everything" in words]
    with other.lock(exclusive=True, purpose="backup"):
        pass
    assert other.holders() == []


def test_a_lock_ends_with_an_error_inside(place: Place) -> None:
    """However the block is left."""
    with pytest.raises(ZeroDivisionError), place.lock(exclusive=True, purpose="x"):
        raise ZeroDivisionError
    with place.lock(exclusive=True, purpose="y"):
        pass


def test_files_can_be_made_under_the_lock(place: Place) -> None:
    """prune writes what replaces a pack while it is alone."""
    for exclusive in (False, True):
        with place.lock(exclusive=exclusive, purpose="x"):
            put(place, PACKS, PACK, b"data")
            assert place.read(PACKS, PACK) == b"data"
            place.remove(PACKS, PACK)


def test_there_is_a_number_for_what_is_free(place: Place) -> None:
    """A backup that cannot fit is refused before it begins."""
    assert place.free() > 1 << 20


def test_many_names_arrive(place: Place) -> None:
    """Each once."""
    names = {f"{number:0120}.key" for number in range(300)}
    for name in names:
        with place.make(KEYS) as making:
            making.commit(name)
    assert set(place.names(KEYS)) == names


def test_after_close_it_says_so(opening: Open) -> None:
    """And closing twice is closing once."""
    place = opening()
    place.close()
    place.close()
    if not isinstance(place, MemoryPlace):
        with pytest.raises(PlaceFailed):
            place.names(PACKS)


def test_an_unknown_room_is_a_mistake_here(place: Place) -> None:
    """Not something that travels."""
    with pytest.raises((ValueError, OcimigError)):
        place.names("attic")
    with pytest.raises((ValueError, OcimigError)):
        place.make("attic")


@pytest.mark.root
def test_a_disk_that_is_really_full_is_said_and_can_be_emptied(tmp_path: Path) -> None:
    """The kernel's own ENOSPC and EROFS, by a tmpfs of one megabyte: reading, locking, removing go on."""
    home = tmp_path / "small"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(home)], check=True)
    try:
        place = local.create(str(home))
        put(place, PACKS, PACK, bytes(512 << 10))
        with pytest.raises(NoSpace) as caught:
            put(place, PACKS, PACK.replace("0", "1", 1), bytes(1 << 20))
        assert (caught.value.code, str(caught.value)) == (15, f"no space left on {home}")
        assert place.names(PACKS) == [PACK]
        (home / "filler").write_bytes(bytes(place.free()))
        assert place.free() == 0
        with place.lock(exclusive=True, purpose="prune"):
            assert place.read(PACKS, PACK) == bytes(512 << 10)
            place.remove(PACKS, PACK)
            put(place, PACKS, PACK, b"x")
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        with place.lock(exclusive=False, purpose="restore"):
            assert place.read(PACKS, PACK) == b"x"
        with pytest.raises(PlaceFailed, match="read-only"):
            place.remove(PACKS, PACK)
        place.close()
        with pytest.raises(StoreExists, match="'filler' is in it"):
            local.create(str(home))
    finally:
        subprocess.run(["umount", str(home)], check=True)
