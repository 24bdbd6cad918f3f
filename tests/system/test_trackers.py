"""What a running process writes is found: nothing is missed, and not much else is reported."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.migrate import trackers
from ocimig.migrate.memory.errors import NoTracker
from ocimig.migrate.memory.runs import PAGE, intersect, total
from ocimig.migrate.trackers import direct
from ocimig_testkit import until
from ocimig_testkit.follower import Follower, choose, of
from ocimig_testkit.tracked import Tracked, compile_tracked

pytestmark = [pytest.mark.root, pytest.mark.init]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tracked.c, compiled."""
    return compile_tracked(tmp_path_factory.mktemp("tracked") / "tracked")


@pytest.fixture
def target(program: Path) -> Iterator[Tracked]:
    """A process that waits for orders."""
    with Tracked(program) as made:
        yield made


@pytest.fixture(params=["userfault", "softdirty", "content"])
def follower(request: pytest.FixtureRequest, target: Tracked) -> Iterator[Follower]:
    """Each tracker that works here."""
    made = Follower(request.param, target)
    yield made
    made.tracker.close()


@pytest.fixture
def exact(target: Tracked) -> Iterator[Follower]:
    """The tracker that uses userfaultfd."""
    made = Follower("userfault", target)
    yield made
    made.tracker.close()


def test_what_is_written_is_reported_once(follower: Follower) -> None:
    """Everything first, then what was written; a final look takes nothing away from the next."""
    address = follower.target.map(16)
    first = follower.look()
    assert first.fresh
    assert of(first, address) == list(range(16))
    assert of(follower.look(), address) == []
    follower.target.do("write", address + 3 * PAGE, 2)
    for final in (True, True, False):
        dirty = follower.look(final=final, fetch=not final)
        assert not dirty.fresh
        assert of(dirty, address) == [3, 4]
    assert of(follower.look(final=True), address) == []
    follower.check()


def test_a_page_that_is_as_it_was_may_have_been_sent_otherwise(follower: Follower) -> None:
    """Written after the look, sent, and written back: the other side has what it was in between."""
    address = follower.target.map(16)
    dirty = follower.look(fetch=False)
    follower.target.do("write", address, 1)
    follower.fetch(dirty)
    for _ in range(255):  # of a byte
        follower.target.do("write", address, 1)
    follower.check()


def test_holes_are_not_reported(follower: Follower) -> None:
    """512 pages of which two were written."""
    address = follower.target.map(512, written=False)
    follower.target.do("write", address, 2)
    assert of(follower.look(), address, 512) == [0, 1]
    follower.target.do("write", address + 100 * PAGE, 1)
    assert of(follower.look(), address, 512) == [100]
    follower.check()


def test_writes_of_the_kernel_count(follower: Follower) -> None:
    """read(2) into the memory, by the page cache and past it."""
    address = follower.target.map(16)
    follower.look()
    assert follower.target.do("into", address + PAGE) == PAGE
    assert of(follower.look(), address) == [1]
    follower.target.do("into", address + 2 * PAGE, 1)
    follower.look()
    follower.check()


def test_memory_that_comes_and_goes_is_followed(follower: Follower) -> None:
    """Dropped, unmapped, mapped anew at the same place, grown, moved."""
    do = follower.target.do
    address = follower.target.map(16)
    follower.look()
    do("drop", address, 4)
    assert of(follower.look(), address) == []
    for _ in range(2):
        do("write", address, 2)
    assert of(follower.look(), address) == [0, 1]
    do("unmap", address, 8)
    assert do("map", address, 8) == address
    for _ in range(2):
        do("write", address + 5 * PAGE, 1)
    follower.check()
    assert 5 in of(follower.look(), address)
    moved = do("move", address + 8 * PAGE, 8)
    dirty = follower.look()
    assert of(dirty, moved, 8) == list(range(8))
    assert not intersect(dirty.mappings, [(address + 8 * PAGE, address + 16 * PAGE)])
    do("write", moved + 3 * PAGE, 1)
    assert of(follower.look(), moved, 8) == [3]
    grown = do("grow", 0, 40)
    assert len(of(follower.look(), grown, 40)) == 40
    assert of(follower.look(), grown, 40) == []
    follower.check()


def test_another_program_is_another_space(follower: Follower) -> None:
    """execve(2) between two looks, and between the last look and the freeze."""
    follower.target.map(16)
    follower.look()
    follower.target.begin("exec")
    follower.target.answer()
    address = follower.target.map(3)
    follower.check()
    dirty = follower.look()
    assert of(dirty, address, 3) == [0, 1, 2]
    assert of(follower.look(), address, 3) == []
    follower.target.begin("exec")
    follower.target.answer()
    follower.target.map(5)
    follower.check()


def test_a_new_process_is_everything(follower: Follower) -> None:
    """A child comes by fork(2) while its parent is followed; what both write is seen in each."""
    address = follower.target.map(16)
    follower.look()
    follower.target.begin("fork", address + 2 * PAGE)
    child = follower.target.answer()[1]
    tasks = {follower.target.pid: 1, child: 2}
    try:
        first, second = sorted(follower.tracker.look(tasks), key=lambda it: it.space)
        assert second.fresh
        follower.fetch(first)
        follower.fetch(second)
        assert of(second, address) == list(range(16))
        assert not set(of(first, address)) - {2}
        follower.target.do("write", address + 7 * PAGE, 1)
        time.sleep(0.02)
        first, second = sorted(follower.tracker.look(tasks), key=lambda it: it.space)
        assert of(first, address) == [7]
        assert of(second, address) == [2]
    finally:
        os.kill(child, signal.SIGKILL)
    until(lambda: len(follower.tracker.look({child: 2})) == 0, "the child is gone")


def test_threads_write_while_we_look(follower: Follower) -> None:
    """Random orders and four threads that never rest; at the end every page is as it was told."""
    chance = random.Random(7)
    do = follower.target.do
    areas = [follower.target.map(64) for _ in range(6)]
    for area in areas[:4]:
        do("thread", area + 9 * PAGE)
    for _ in range(25):
        follower.look()
        for _ in range(chance.randrange(6)):
            place = chance.randrange(len(areas))
            page = chance.randrange(16, 60)
            order = chance.choice(["write", "write", "drop", "into", "again"])
            if order == "again" and place >= 4:
                areas[place] = follower.target.map(64)
            elif order in {"write", "drop"}:
                do(order, areas[place] + page * PAGE, chance.randrange(1, 5))
            else:
                do("into", areas[place] + page * PAGE, 0)
    follower.check()


@pytest.mark.parametrize("can_pause", [True, False])
def test_reads_past_the_page_cache_are_waited_for(
    exact: Follower, tmp_path: Path, can_pause: bool
) -> None:
    """The page is marked when such a read begins, and the device writes to it later."""
    file = tmp_path / "data"
    file.write_bytes(os.urandom(8 << 20))
    address = exact.target.map(64)
    for _ in range(3):
        exact.target.do("direct", address, 0, file)
    assert until(lambda: direct.used(exact.target.pid), "it reads directly")
    if not can_pause:
        exact.tracker = trackers.choose("userfault")
    for _ in range(50):
        exact.look()
        exact.check()
    assert exact.tracker.notes == []


def test_locked_memory_is_left_to_criu(follower: Follower) -> None:
    """CRIU does not restore it lazily."""
    address = follower.target.map(16)
    assert follower.target.do("lock", address + 4 * PAGE, 4) == 0
    dirty = follower.look()
    here = intersect(dirty.mappings, [(address, address + 16 * PAGE)])
    assert here == [(address, address + 4 * PAGE), (address + 8 * PAGE, address + 16 * PAGE)]


def test_the_page_that_criu_writes_code_into_is_left_to_it(follower: Follower) -> None:
    """The first executable page, where that is plain memory: read while CRIU works it would be wrong."""
    address = follower.target.do("code")
    follower.target.do("write", address, 4)
    for final in (False, True):
        dirty = follower.look(final=final, fetch=False)
        here = intersect(dirty.mappings, [(address, address + 4 * PAGE)])
        assert here == [(address + PAGE, address + 4 * PAGE)]
        assert 0 not in of(dirty, address)


def test_equal_pages_that_the_kernel_merged_are_followed(follower: Follower) -> None:
    """KSM shares pages behind the process's back; a write takes them apart again."""
    run = Path("/sys/kernel/mm/ksm/run")
    if not run.exists():
        pytest.skip("the kernel has no KSM")
    before = run.read_text()
    address = follower.target.map(16)
    assert follower.target.do("merge", address, 16) == 0
    follower.look()
    try:
        run.write_text("1")
        time.sleep(0.3)
        follower.look()
        follower.target.do("write", address + 6 * PAGE, 1)
        follower.check()
    finally:
        run.write_text(before)


def test_a_process_that_cannot_be_stopped_is_followed_by_its_content(exact: Follower) -> None:
    """It waits for a vfork(2); when it is past that, it is followed as the others are."""
    address = exact.target.map(16)
    exact.target.begin("vfork", 0, 600)
    exact.target.answer()
    time.sleep(0.05)
    assert of(exact.look(), address) == list(range(16))
    exact.target.answer()
    exact.target.do("write", address, 1)
    assert of(exact.look(), address) in ([0], list(range(16)))
    assert of(exact.look(), address) == []
    assert exact.tracker.notes == []
    exact.check()


def test_a_frozen_stranger_is_all_dirty(exact: Follower) -> None:
    """A process that the tracker meets in the freeze is not touched."""
    address = exact.target.map(16)
    dirty = exact.look(final=True)
    assert of(dirty, address) == list(range(16))
    smaps = Path(f"/proc/{exact.target.pid}/smaps").read_text()
    assert " uw " not in smaps


def test_everything_is_undone(exact: Follower) -> None:
    """No mapping is registered any more, none is split, and writes go on."""
    address = exact.target.map(16)
    lines = len(Path(f"/proc/{exact.target.pid}/maps").read_text().splitlines())
    exact.look()
    smaps = Path(f"/proc/{exact.target.pid}/smaps")
    assert " uw " in smaps.read_text()
    exact.tracker.close()
    assert " uw " not in smaps.read_text()
    assert len(Path(f"/proc/{exact.target.pid}/maps").read_text().splitlines()) == lines
    exact.target.do("write", address, 16)
    assert exact.target.alive()


def test_a_process_that_ended_is_left_out(follower: Follower, program: Path) -> None:
    """Before it was ever looked at, and after."""
    with Tracked(program) as other:
        tasks = {follower.target.pid: 1, other.pid: 2}
        assert len(follower.tracker.look(tasks)) == 2
    assert [dirty.space for dirty in follower.tracker.look(tasks)] == ["p1"]
    assert [dirty.space for dirty in follower.tracker.look(tasks, final=True)] == ["p1"]


def test_a_tracker_of_no_such_name_is_refused() -> None:
    """With words."""
    with pytest.raises(NoTracker, match="no tracker is called that"):
        trackers.choose("guesses")


def test_fifty_processes_cost_little(program: Path) -> None:
    """One look at fifty quiet processes; no promise about time, only that nothing is dirty."""
    targets = [Tracked(program) for _ in range(50)]
    try:
        tracker = choose("userfault", targets[0])
        tasks = {target.pid: n + 1 for n, target in enumerate(targets)}
        assert len(tracker.look(tasks)) == 50
        assert sum(total(dirty.runs) for dirty in tracker.look(tasks)) == 0
        assert len(tracker.look(tasks, final=True)) == 50
        tracker.close()
    finally:
        for target in targets:
            target.__exit__()
