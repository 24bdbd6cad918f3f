"""Marks of writes that were taken away where nobody was told of them: what was written counts all the same."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.migrate.memory.runs import PAGE
from ocimig.runtime.linux import proc
from ocimig_testkit import until
from ocimig_testkit.follower import Follower, of
from ocimig_testkit.tracked import Tracked, compile_tracked

pytestmark = [pytest.mark.root, pytest.mark.init]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Tracked]:
    """A process that waits for orders."""
    with Tracked(compile_tracked(tmp_path / "tracked")) as made:
        yield made


@pytest.mark.parametrize("tracker", ["userfault", "softdirty", "content"])
def test_memory_that_was_locked_for_one_look_counts_as_written(
    target: Tracked, tracker: str
) -> None:
    """Written while it was CRIU's: the mark went with that look, and the next would call it clean."""
    follower = Follower(tracker, target)
    address = target.map(16)
    follower.look()
    target.do("lock", address + 4 * PAGE, 4)
    target.do("write", address + 5 * PAGE, 1)
    follower.look()
    target.do("unlock", address + 4 * PAGE, 4)
    assert of(follower.look(), address) == [4, 5, 6, 7]
    assert of(follower.look(), address) == []
    follower.check()
    follower.tracker.close()


def test_a_second_tracker_takes_no_marks_away(target: Tracked) -> None:
    """Two who measure and migrate the same: the later one finds the mappings taken, and reads instead."""
    first, second = Follower("userfault", target), Follower("userfault", target)
    address = target.map(16)
    first.look()
    target.do("write", address + 3 * PAGE, 1)
    assert of(second.look(), address) == list(range(16))
    assert "watched by another userfaultfd" in second.tracker.notes[0]
    second.tracker.close()
    assert of(first.look(), address) == [3]
    first.check()
    first.tracker.close()


def test_a_child_that_borrows_memory_is_not_looked_at(target: Tracked) -> None:
    """vfork(2): what it and its parent's threads write is told of the parent, once."""
    follower = Follower("userfault", target)
    address = target.map(16)
    follower.look()
    target.begin("vfork", 0, 60_000)
    target.answer()
    child = until(lambda: proc.descendants(target.pid), "its child")[0]
    tasks = {target.pid: 7, child: 8}
    try:
        looked = [each.pid for each in follower.tracker.look(tasks)]
        finally_looked = {each.pid for each in follower.tracker.look(tasks, final=True)}
    finally:
        os.kill(child, signal.SIGKILL)
    assert looked == [target.pid]
    assert finally_looked == {target.pid, child}
    target.answer()
    target.do("write", address + 3 * PAGE, 1)
    assert of(follower.look(), address) == [3]
    follower.tracker.close()
