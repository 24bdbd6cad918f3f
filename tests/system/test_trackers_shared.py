"""Shared memory of running processes is followed by comparing it with what was sent."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.migrate import trackers
from ocimig.migrate.memory.runs import PAGE, Run
from ocimig.migrate.memory.spaces import is_process
from ocimig.migrate.trackers import Dirty, Tracker
from ocimig_testkit.tracked import Tracked, compile_tracked

pytestmark = [pytest.mark.root]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tracked.c, compiled."""
    return compile_tracked(tmp_path_factory.mktemp("tracked") / "tracked")


@pytest.fixture
def target(program: Path) -> Iterator[Tracked]:
    """A process that waits for orders."""
    with Tracked(program) as made:
        yield made


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    """One that follows shared memory too."""
    made = trackers.choose("content", shared=True)
    yield made
    made.close()


def look(tracker: Tracker, *pids: int, final: bool = False) -> list[Dirty]:
    """What it says of shared memory."""
    tasks = {pid: number + 1 for number, pid in enumerate(pids)}
    found = tracker.look(tasks, final=final)
    return [dirty for dirty in found if not is_process(dirty.space)]


def send(tracker: Tracker, dirty: Dirty) -> None:
    """Read the runs as the sender would."""
    data = b"".join(os.pread(dirty.pid, end - start, start) for start, end in dirty.runs)
    tracker.sent(dirty.space, dirty.runs, memoryview(data))


def pages(*numbers: int) -> list[Run]:
    """One run for each page."""
    return [(number * PAGE, (number + 1) * PAGE) for number in numbers]


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["anonymous", "memfd", "SysV"])
def test_what_is_written_is_reported_until_it_is_sent(
    tracker: Tracker, target: Tracked, kind: int
) -> None:
    """First what has content, then what differs from what was sent."""
    address = target.do("share", kind)
    target.do("write", address, 3)
    (dirty,) = look(tracker, target.pid)
    assert dirty.fresh
    assert dirty.space == f"s{os.fstat(dirty.pid).st_ino}"
    assert dirty.runs == [(0, 3 * PAGE)]
    assert dirty.mappings == [(0, 16 * PAGE)]
    send(tracker, dirty)
    (dirty,) = look(tracker, target.pid)
    assert not dirty.fresh
    assert dirty.runs == []
    target.do("write", address + PAGE, 1)
    target.do("write", address + 9 * PAGE, 1)
    for final in (False, True, False):
        (dirty,) = look(tracker, target.pid, final=final)
        assert dirty.runs == pages(1, 9)


def test_the_writes_of_a_process_that_is_gone_count(tracker: Tracker, target: Tracked) -> None:
    """It lived between two looks; its page tables would tell nothing any more."""
    address = target.do("share", 0)
    target.do("write", address, 1)
    (dirty,) = look(tracker, target.pid)
    send(tracker, dirty)
    target.begin("fork", address + 4 * PAGE)
    child = target.answer()[1]
    while not os.pread(dirty.pid, 1, 4 * PAGE)[0]:
        pass
    os.kill(child, signal.SIGKILL)
    (dirty,) = look(tracker, target.pid)
    assert dirty.runs == pages(4)


def test_an_object_of_two_processes_is_one(tracker: Tracker, target: Tracked) -> None:
    """And is let go when nobody has it any more."""
    address = target.do("share", 0)
    target.begin("fork", address)
    child = target.answer()[1]
    try:
        assert len(look(tracker, target.pid, child)) == 1
        target.do("unmap", address, 16)
        (dirty,) = look(tracker, target.pid, child)
        assert not dirty.fresh
        assert look(tracker, target.pid) == []
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_memfd_may_change_its_size(tracker: Tracker, target: Tracked) -> None:
    """What is beyond its end is no more; what it got is new."""
    target.begin("share", 1)
    address, fd, _ = target.answer()
    target.do("write", address, 16)
    (dirty,) = look(tracker, target.pid)
    send(tracker, dirty)
    target.do("shorten", fd, 4)
    (dirty,) = look(tracker, target.pid)
    assert (dirty.runs, dirty.mappings) == ([], [(0, 4 * PAGE)])
    target.do("shorten", fd, 16)
    target.do("write", address + 6 * PAGE, 1)
    (dirty,) = look(tracker, target.pid)
    assert dirty.runs == pages(6)


def test_a_page_that_was_sent_otherwise_is_dirty(tracker: Tracker, target: Tracked) -> None:
    """It is compared with what was sent, not with what it was."""
    address = target.do("share", 0)
    target.do("write", address, 2)
    (dirty,) = look(tracker, target.pid)
    tracker.sent(dirty.space, dirty.runs, memoryview(b"x" * (2 * PAGE)))
    assert look(tracker, target.pid)[0].runs == [(0, 2 * PAGE)]
