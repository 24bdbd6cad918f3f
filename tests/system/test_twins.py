"""Pages that a child shares with its parent since fork, found while both live."""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ocimig.migrate.memory.reader import Reader
from ocimig.migrate.memory.runs import PAGE, Run
from ocimig.migrate.memory.twins import shared
from ocimig.runtime.linux.memory import address
from ocimig_testkit.areas import Area, noise

pytestmark = pytest.mark.root


@contextmanager
def child(work: Callable[[], None]) -> Iterator[int]:
    """A child of ours that does something first and then waits."""
    ready, told = os.pipe()
    ending, end = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(end)
        work()
        os.write(told, b"x")
        os.read(ending, 1)
        os._exit(0)
    os.read(ready, 1)
    try:
        yield pid
    finally:
        for fd in (ready, told, ending, end):
            os.close(fd)
        os.waitpid(pid, 0)


def area() -> Area:
    """Sixty small pages: a huge one would be split at the first write, all of it at once."""
    made = Area(60)
    made.map.madvise(mmap.MADV_NOHUGEPAGE)
    made.fill(noise)
    return made


def span(of: Area, first: int, last: int) -> Run:
    """The run of some of its pages."""
    return (of.page(first)[0], of.page(last)[0])


def test_what_neither_wrote_is_shared() -> None:
    """Before and between what the child wrote, what the parent wrote, and what is not mapped."""
    ours = area()

    def write() -> None:
        ours.map[10 * PAGE] = 1
        ours.map[11 * PAGE] = 1

    with child(write) as pid:
        ours.map[30 * PAGE] = 1
        whole = [(ours.start, ours.run[1])]
        expected = [span(ours, 0, 10), span(ours, 12, 30), span(ours, 31, 60)]
        assert shared(pid, os.getpid(), whole) == expected
        assert shared(pid, os.getpid(), [span(ours, 8, 12)]) == [span(ours, 8, 10)]
        assert shared(pid, os.getpid(), [(PAGE, 9 * PAGE)]) == []


def test_memory_of_their_own_is_not_shared_however_equal() -> None:
    """The same bytes written by both are two pages."""
    ours = area()
    content = ours.map[:PAGE]

    def write() -> None:
        ours.map[:PAGE] = content

    with child(write) as pid:
        assert shared(pid, os.getpid(), [span(ours, 0, 1)]) == []


def test_a_process_that_is_gone_shares_nothing() -> None:
    """It is no error."""
    ours = area()
    with child(lambda: None) as pid:
        pass
    assert shared(pid, os.getpid(), [ours.run]) == []


def test_a_first_reading_leaves_shared_pages_shared() -> None:
    """Pinning, as later readings do, takes them apart: that is why it is for pages written lately."""
    ours = area()
    buffer = bytearray(60 * PAGE)
    with child(lambda: None) as pid:
        reader = Reader(pid)
        assert reader.read([ours.run], memoryview(buffer), address(buffer)) == [ours.run]
        assert buffer == ours.map[:]
        assert shared(pid, os.getpid(), [ours.run]) == [ours.run]
        reader.close()
