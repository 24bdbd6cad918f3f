"""userfaultfd(2), PAGEMAP_SCAN and process_vm_readv(2), tried on our own memory."""

import mmap
import os
from collections.abc import Iterator

import pytest

from ocimig.runtime.linux import memory, pagemap, userfaultfd

SIZE = 64 * pagemap.PAGE
WRITTEN = {
    "mask": pagemap.PAGE_IS_WRITTEN,
    "anyof": pagemap.PAGE_IS_PRESENT | pagemap.PAGE_IS_SWAPPED,
    "returned": pagemap.PAGE_IS_WRITTEN,
}


class Ours:
    """A mapping of our own, its address, a descriptor that watches it, and our pagemap."""

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.start = memory.address(self.map)
        self.end = self.start + SIZE
        self.uffd = userfaultfd.userfaultfd()
        self.pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)

    def close(self) -> None:
        """Let go of everything."""
        os.close(self.uffd)
        os.close(self.pagemap)
        self.map.close()

    def written(self) -> list[int]:
        """Numbers of pages written since the last call."""
        flags = pagemap.PM_SCAN_WP_MATCHING | pagemap.PM_SCAN_CHECK_WPASYNC
        runs = pagemap.scan_all(self.pagemap, self.start, self.end, flags=flags, **WRITTEN)
        first = self.start // pagemap.PAGE
        return [
            page - first
            for start, end, _ in runs
            for page in range(start // pagemap.PAGE, end // pagemap.PAGE)
        ]


@pytest.fixture
def ours() -> Iterator[Ours]:
    """A mapping of 64 pages that nobody watches yet; skips where userfaultfd(2) is refused."""
    try:
        made = Ours()
    except OSError as error:
        pytest.skip(f"userfaultfd: {error}")
    yield made
    made.close()


def track(ours: Ours) -> None:
    """Register for asynchronous write protection, or skip on a kernel before 6.7."""
    wanted = userfaultfd.UFFD_FEATURE_WP_ASYNC | userfaultfd.UFFD_FEATURE_WP_UNPOPULATED
    try:
        userfaultfd.api(ours.uffd, wanted)
    except OSError as error:
        pytest.skip(f"no asynchronous write protection: {error}")
    userfaultfd.register(ours.uffd, ours.start, ours.end, userfaultfd.UFFDIO_REGISTER_MODE_WP)


def test_what_is_written_is_seen_once_and_what_is_not_never(ours: Ours) -> None:
    """A look protects what it reports; holes are not reported."""
    track(ours)
    ours.map[0 : 3 * pagemap.PAGE] = b"x" * (3 * pagemap.PAGE)
    assert ours.written() == [0, 1, 2]
    assert ours.written() == []
    ours.map[pagemap.PAGE] = 1
    ours.map[40 * pagemap.PAGE] = 1
    assert ours.written() == [1, 40]


def test_a_mapping_that_is_not_registered_is_an_error(ours: Ours) -> None:
    """EPERM, so that new mappings are noticed."""
    userfaultfd.api(ours.uffd)
    with pytest.raises(PermissionError):
        ours.written()


def test_more_runs_than_room_are_read_in_pieces(ours: Ours) -> None:
    """`scan` says where it ended; `scan_all` goes on from there."""
    track(ours)
    for page in range(0, 64, 2):
        ours.map[page * pagemap.PAGE] = 1
    rows, end = pagemap.scan(ours.pagemap, ours.start, ours.end, regions=3, **WRITTEN)
    assert len(rows) == 3
    assert end < ours.end
    assert ours.written() == list(range(0, 64, 2))


def test_the_entries_of_the_file_say_the_same(ours: Ours) -> None:
    """One word a page, with the bit of presence."""
    ours.map[5 * pagemap.PAGE] = 1
    words = pagemap.entries(ours.pagemap, ours.start, ours.end)
    present = [n for n, word in enumerate(words) if word & pagemap.ENTRY_PRESENT]
    assert present == [5]


def test_missing_pages_are_filled(ours: Ours) -> None:
    """COPY and ZEROPAGE say how much they did; a page that is there is EEXIST."""
    userfaultfd.api(ours.uffd, userfaultfd.UFFD_FEATURE_EVENT_UNMAP)
    userfaultfd.register(ours.uffd, ours.start, ours.end, userfaultfd.UFFDIO_REGISTER_MODE_MISSING)
    source = mmap.mmap(-1, 2 * pagemap.PAGE)
    source[:] = b"s" * len(source)
    place = memory.address(source)
    assert userfaultfd.copy(ours.uffd, ours.start, place, len(source)) == len(source)
    assert userfaultfd.zeropage(ours.uffd, ours.start + len(source), pagemap.PAGE) == pagemap.PAGE
    assert ours.map[: len(source)] == b"s" * len(source)
    assert ours.map[len(source)] == 0
    with pytest.raises(FileExistsError):
        userfaultfd.copy(ours.uffd, ours.start, place, pagemap.PAGE)
    userfaultfd.unregister(ours.uffd, ours.start, ours.end)
    assert ours.map[20 * pagemap.PAGE] == 0


def test_memory_is_read_by_runs(ours: Ours) -> None:
    """Scattered pages come one behind the other; the count ends at what is not mapped."""
    ours.map[0] = 7
    ours.map[9 * pagemap.PAGE] = 8
    into = bytearray(3 * pagemap.PAGE)
    runs = [(ours.start + n * pagemap.PAGE, ours.start + (n + 1) * pagemap.PAGE) for n in (0, 9)]
    assert memory.process_vm_readv(os.getpid(), memory.address(into), runs) == 2 * pagemap.PAGE
    assert (into[0], into[pagemap.PAGE]) == (7, 8)
    with pytest.raises(OSError, match="Bad address"):
        memory.process_vm_readv(os.getpid(), memory.address(into), [(0, pagemap.PAGE)])
