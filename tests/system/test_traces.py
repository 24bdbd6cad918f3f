"""What a migration keeps on a host, and gives back."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ocimig.migrate import journal, network, traces
from ocimig.runtime.store import Store
from ocimig_testkit import until

pytestmark = [pytest.mark.root, pytest.mark.netns]


@pytest.fixture
def entry(tmp_path: Path) -> journal.Journal:
    """A migration to here."""
    return journal.create(Store(str(tmp_path)), journal.new_id(), "destination", id="c1", epoch=1)


def _lives(number: int) -> Callable[[], bool]:
    """Whether the kernel still has that network namespace under some name here."""
    wanted = f"net:[{number}]"

    def look() -> bool:
        return wanted in Path("/proc/self/mountinfo").read_text()

    return look


def test_a_namespace_that_is_kept_outlives_who_made_it(entry: journal.Journal) -> None:
    """As it does when the agent is killed: then it is still there, with its lock, when its port is taken away."""
    fd = network.new_namespace()
    number = os.fstat(fd).st_ino
    traces.pin(entry, fd)
    os.close(fd)
    assert _lives(number)()
    traces.unpin(entry)
    until(lambda: not _lives(number)(), "the namespace to go", 5)
    assert "netns" not in os.listdir(entry.home)


def test_letting_go_of_what_was_not_kept_is_fine(entry: journal.Journal) -> None:
    """Twice, without a network, and after a reboot, which leaves the file and no mount."""
    traces.unpin(entry)
    Path(entry.home, "netns").touch()
    traces.unpin(entry)
    traces.unpin(entry)
    assert "netns" not in os.listdir(entry.home)
