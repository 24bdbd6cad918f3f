"""Reading the memory of others leaves it as it is."""

import mmap
import os

import pytest

from ocimig.files import Fd
from ocimig.migrate.memory.reader import Reader
from ocimig.migrate.memory.runs import PAGE, Run
from ocimig.runtime.linux import pagemap
from ocimig.runtime.linux.memory import address
from ocimig_testkit.areas import Area, noise

pytestmark = pytest.mark.root

_FRAME = (1 << 55) - 1  # the number of the page frame


def frames_of(pid: int | str, run: Run) -> list[int]:
    """Which memory the pages are in."""
    with Fd(os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)) as fd:
        return [word & _FRAME for word in pagemap.entries(fd, *run)]


def test_a_first_reading_leaves_shared_pages_shared() -> None:
    """Pinning, as later readings do, takes them apart: that is why it is for pages written lately."""
    ours = Area(60)
    ours.map.madvise(mmap.MADV_NOHUGEPAGE)  # a huge page would be split at the first write
    ours.fill(noise)
    ending, end = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(end)
        os.read(ending, 1)
        os._exit(0)
    try:
        buffer = bytearray(60 * PAGE)
        reader = Reader(pid)
        assert reader.read([ours.run], memoryview(buffer), address(buffer)) == [ours.run]
        assert buffer == ours.map[:]
        assert frames_of(pid, ours.run) == frames_of("self", ours.run)
        assert all(frames_of(pid, ours.run))
        reader.close()
    finally:
        os.close(ending)
        os.close(end)
        os.waitpid(pid, 0)
