"""A store in a directory when the power, the disk or its process fails: at each step, one after the other."""

import errno
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.errors import NoSpace
from ocimig.migrate.store import local
from ocimig.migrate.store.errors import PlaceFailed
from ocimig.migrate.store.local import LocalPlace
from ocimig.migrate.store.place import KEYS, PACKS, QUARANTINE, SNAPSHOTS
from ocimig_testkit.places import Disk, MemoryPlace, PowerCut
from ocimig_testkit.stores import OTHER, PACK, put, start, tree, work


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty one."""
    local.create(str(tmp_path / "store")).close()
    return tmp_path / "store"


@pytest.fixture
def place(store: Path) -> Iterator[LocalPlace]:
    """It, open."""
    opened = LocalPlace(str(store))
    yield opened
    opened.close()


# ---- the order of writes


def test_its_steps_are_those_of_the_place_in_memory(store: Path) -> None:
    """So that what is proved of the one, power cut by power cut, holds for the other."""
    steps: list[tuple[str, str]] = []
    place = LocalPlace(str(store), step=lambda act, room: steps.append((act, room)))
    work(place)
    place.close()
    disk = Disk()
    work(MemoryPlace(disk))
    made = [at for at, (act, _) in enumerate(steps) if act == local.MAKE_DIRECTORY]
    assert made, "packs are in directories of their own"
    for at in reversed(made):  # a directory is durable before anything is in it
        assert [act for act, _ in steps[at : at + 3]] == [
            "mkdir",
            "sync-directory",
            "sync-directory",
        ]
        del steps[at : at + 3]
    assert sorted(set(steps)) == sorted(set(disk.steps))
    # its directory is made ready between a file's last write and its sync: nothing depends on that
    assert steps == disk.steps


def test_after_a_power_cut_a_name_means_a_whole_file() -> None:
    """At every step, whatever the disk kept of what was not synced; and what was committed is there."""
    whole = Disk()
    work(MemoryPlace(whole))
    for cut in range(1, len(whole.steps) + 2):
        disk, done = Disk(), []
        disk.cut_at = cut
        try:
            for room, name in ((KEYS, "a.key"), (PACKS, PACK), (SNAPSHOTS, "s.snapshot")):
                put(MemoryPlace(disk), room, name, b"data" * 100)
                done.append((room, name))
        except PowerCut:
            pass
        for seed in range(8):
            after = MemoryPlace(disk.survivors(random.Random(seed)))
            there = [
                (room, name) for room in (KEYS, PACKS, SNAPSHOTS) for name in after.names(room)
            ]
            assert set(done) <= set(there)
            assert all(after.read(room, name) == b"data" * 100 for room, name in there)


def _steps(store: Path) -> int:
    count = 0

    def step(act: str, room: str) -> None:
        nonlocal count
        count += 1

    place = LocalPlace(str(store), step=step)
    work(place)
    place.close()
    return count


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_at_any_step_loses_nothing(tmp_path: Path, number: int) -> None:
    """Full, over quota or broken: the words fit, nothing is half there, and the next attempt works."""
    local.create(str(tmp_path / "count")).close()
    for failing in range(1, _steps(tmp_path / "count") + 1):
        home = tmp_path / str(failing)
        local.create(str(home)).close()
        left = failing

        def step(act: str, room: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise OSError(number, os.strerror(number))

        place = LocalPlace(str(home), step=step)
        with pytest.raises(PlaceFailed if number == errno.EIO else NoSpace) as caught:
            work(place)
        assert str(home) in str(caught.value)
        assert caught.value.code == (1 if number == errno.EIO else 15)
        for room in (KEYS, PACKS, SNAPSHOTS, QUARANTINE):
            assert all(place.read(room, name) == b"data" for name in place.names(room))
        assert list((home / "tmp").iterdir()) == []
        for room, name in (
            (KEYS, "a.key"),
            (PACKS, PACK),
            (PACKS, OTHER),
            (SNAPSHOTS, "s.snapshot"),
        ):
            place.remove(room, name)
        work(place)
        place.close()


def test_a_file_of_which_a_write_failed_gets_no_name(store: Path) -> None:
    """Also when its writer did not look at the error."""
    full = True

    def step(act: str, room: str) -> None:
        if act == local.WRITE and full:
            raise OSError(errno.ENOSPC, "full")

    place = LocalPlace(str(store), step=step)
    with place.make(PACKS) as making:
        with pytest.raises(NoSpace):
            making.write(b"a")
        full = False
        making.write(b"b")
        with pytest.raises(PlaceFailed, match="was not written"):
            making.commit(PACK)
    assert place.names(PACKS) == []
    place.close()


# ---- killed


def _points(store: Path) -> list[str]:
    """Every step of making one pack, as failpoints call it."""
    points = local.Failpoints()
    found: list[str] = []
    place = LocalPlace(str(store), step=lambda act, room: found.append(points.point(act, room)))
    with place.lock(exclusive=False, purpose="x"):
        put(place, PACKS, PACK)
    place.close()
    return found


def test_killed_at_any_step_the_store_is_whole(tmp_path: Path) -> None:
    """A real SIGKILL at each, by the environment: the pack is there, whole, or it is not."""
    local.create(str(tmp_path / "count")).close()
    points = _points(tmp_path / "count")
    renamed = points.index("PACKS-RENAME-1:before")
    assert len(points) >= 6
    for number, point in enumerate(points):
        store = tmp_path / str(number)
        local.create(str(store)).close()
        process = start(store, OCIMIG_FAILPOINT=f"store:{point}")
        out, _ = process.communicate(f"packs\ncommit\n{PACK}\n", timeout=60)
        assert (process.returncode, "committed" in out) == (-signal.SIGKILL, False)
        place = LocalPlace(str(store))
        assert place.names(PACKS) == ([PACK] if number > renamed else [])
        with place.lock(exclusive=True, purpose="x"):
            put(place, PACKS, OTHER)
            assert [name for name in tree(store) if name.startswith("tmp/")] == []
        place.close()


def test_a_full_disk_can_be_had_by_the_environment(store: Path, place: LocalPlace) -> None:
    """For tests of whole commands: the process meets ENOSPC there and ends by itself."""
    process = start(store, OCIMIG_FAILPOINT="store:PACKS-SYNC-1:before=errno:28")
    process.communicate(f"packs\ncommit\n{PACK}\n", timeout=60)
    assert process.returncode == 1
    assert tree(store) == []
