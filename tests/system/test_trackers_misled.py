"""Marks of writes that were taken away where nobody was told of them: what was written counts all the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.migrate.memory.runs import PAGE
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
