"""Which pages of a stopped process CRIU would save, asked the other way round: our own, which hold still."""

import errno
import mmap
import os
import random
from collections.abc import Iterator

import pytest

from ocimig.migrate.memory.runs import PAGE, Run, merge
from ocimig.migrate.trackers import maps
from ocimig.runtime.linux import memory, pagemap

PAGES = 600
_GUARD_INSTALL, _GUARD_REMOVE = 102, 103  # MADV_GUARD_*, since Linux 6.13


@pytest.fixture
def area() -> Iterator[mmap.mmap]:
    """Anonymous memory without anything in it, of small pages."""
    made = mmap.mmap(-1, PAGES * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    made.madvise(mmap.MADV_NOHUGEPAGE)
    yield made
    made.close()


@pytest.fixture
def fd() -> Iterator[int]:
    """Our pagemap."""
    found = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        pagemap.scan(found, 0, PAGE, mask=pagemap.PAGE_IS_PRESENT)
    except OSError:
        os.close(found)
        pytest.skip("the kernel has no PAGEMAP_SCAN (Linux 6.7)")
    yield found
    os.close(found)


def run(area: mmap.mmap, first: int, last: int) -> Run:
    """These pages of it."""
    start = memory.address(area)
    return (start + first * PAGE, start + last * PAGE)


def test_nothing_is_there_at_first(area: mmap.mmap, fd: int) -> None:
    """Whole and in parts."""
    assert maps.present(fd, [run(area, 0, PAGES)]) == []
    assert maps.present(fd, [run(area, 0, 3), run(area, 5, 9)]) == []
    assert maps.present(fd, []) == []


@pytest.mark.parametrize("step", [1 << 28, 16 * PAGE], ids=["at once", "in steps"])
@pytest.mark.parametrize("seed", range(5))
def test_what_was_written_is_there(
    area: mmap.mmap, fd: int, seed: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what was only read (the kernel's page of zeros), nor what was given back."""
    monkeypatch.setattr(maps, "_STEP", step)
    chance = random.Random(seed)
    there = set()
    for _ in range(200):
        page = chance.randrange(PAGES)
        what = chance.choice(["write", "write", "read", "give back"])
        if what == "write":
            area[page * PAGE] = 1
            there.add(page)
        elif what == "read":
            assert area[page * PAGE] == (page in there)
        else:
            area.madvise(mmap.MADV_DONTNEED, page * PAGE, PAGE)
            there.discard(page)
    wanted = [run(area, 10, 300), run(area, 301, PAGES)]
    inside = [page for page in there if 10 <= page < 300 or page >= 301]
    assert maps.present(fd, wanted) == merge(run(area, page, page + 1) for page in inside)
    assert maps.present(fd, wanted) == maps.there(fd, wanted)


def test_guard_pages_are_not_there(area: mmap.mmap, fd: int) -> None:
    """They bear a mark in the page table, and no content."""
    area[: 8 * PAGE] = b"x" * 8 * PAGE
    try:
        area.madvise(_GUARD_INSTALL, 2 * PAGE, 3 * PAGE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        pytest.skip("the kernel has no guard regions (Linux 6.13)")
    if not maps._zero_or_guard() & pagemap.PAGE_IS_GUARD:
        pytest.skip("the kernel does not tell guard pages (Linux 6.15)")
    assert maps.present(fd, [run(area, 0, 8)]) == [run(area, 0, 2), run(area, 5, 8)]
    area.madvise(_GUARD_REMOVE, 2 * PAGE, 3 * PAGE)


def test_an_older_kernel_is_not_asked_for_guards(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would refuse the whole question."""
    real = pagemap.scan

    def old(*arguments: int, **more: int) -> tuple[list[tuple[int, int, int]], int]:
        if more.get("anyof", 0) & pagemap.PAGE_IS_GUARD:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(*arguments, **more)

    maps._zero_or_guard.cache_clear()
    monkeypatch.setattr(pagemap, "scan", old)
    try:
        assert maps._zero_or_guard() == pagemap.PAGE_IS_PFNZERO
    finally:
        maps._zero_or_guard.cache_clear()


def test_the_name_of_a_file_unlocks_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel writes a carriage return in a name as it is: no line of its own begins there."""
    name = b"/a\r10000-20000 \rVmFlags: rd"
    smaps = (
        b"10000-20000 rw-p 00000000 00:00 0\nVmFlags: rd lo\n"
        b"30000-40000 r--p 00000000 fe:00 7 " + name + b"\nVmFlags: rd\n"
    )
    monkeypatch.setattr(maps, "_file", lambda _pid, _name: smaps)
    assert maps._lazy_by_flags(7) == {(0x30000, 0x40000)}
