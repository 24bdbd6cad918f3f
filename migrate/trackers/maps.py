"""Which memory of a process may travel before CRIU saves the rest, and what of it is there.

Private and anonymous, not locked, not a huge page of hugetlbfs, nothing of the kernel's own: what CRIU
may restore lazily (vma_entry_can_be_lazy in its include/vma.h). Reads /proc only.
"""

import errno
import mmap
import os
import re
from functools import cache

from ocimig.files import Fd
from ocimig.migrate.memory.runs import Run, intersect, merge, subtract
from ocimig.runtime.linux import memory, pagemap
from ocimig.runtime.linux.pagemap import PAGE

# Of /proc/PID/maps: private, no file, and no name but those that the kernel gives to plain memory.
_PLAIN = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) (?:[-rwx]{3})p [0-9a-f]+ 00:00 0 *(?:\[heap\]|\[stack\]|\[anon:[^\n]*\])?$",
    re.MULTILINE,
)
_SHARED = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) (?:[-rwx]{3})s [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+) ([0-9]+) *([^\n]*)$",
    re.MULTILINE,
)
_EXECUTABLE = re.compile(rb"^([0-9a-f]+)-[0-9a-f]+ ..x", re.MULTILINE)
_RANGE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ")
_NOT_LAZY = {b"lo", b"ht", b"ss"}  # VmFlags: locked, hugetlb, shadow stack
_SOME_LOCKED = re.compile(rb"^VmLck:\s*[1-9]|^x86_Thread_features:.*shstk", re.MULTILINE)
_AIO = b"/[aio]"
AIO_WRITES = "it uses io_submit(2), whose writes the page tables do not show"

# What CRIU would save of an anonymous mapping: pagemap-cache.c, pmc_fill. It asks for PAGE_IS_FILE too,
# which is never true here and makes the kernel look at every page's descriptor: 13 ms a GiB, not 1.
_THERE = {
    "mask": pagemap.PAGE_IS_PFNZERO,
    "inverted": pagemap.PAGE_IS_PFNZERO,
    "anyof": pagemap.PAGE_IS_PRESENT | pagemap.PAGE_IS_SWAPPED,
}
_CONTENT = pagemap.PAGE_IS_PRESENT | pagemap.PAGE_IS_SWAPPED
_ENTRIES_AT_ONCE = 1 << 18
_STEP = 1 << 28
_FEW = 4096  # regions: a thread of its own has no room for more yet, and getting it takes longer


class Maps:
    """The mappings of one process at one moment."""

    __slots__ = ("aio", "areas", "eligible")

    def __init__(self, areas: list[Run], eligible: list[Run], *, aio: bool) -> None:
        self.areas = areas  # one for each mapping, also where they touch
        self.eligible = eligible
        self.aio = aio  # it has contexts of io_setup(2): the kernel writes to its memory unseen


def read(pid: int) -> Maps | None:
    """The mappings of a process now; None when it has ended."""
    text = _file(pid, "maps")
    if not text:
        return None
    plain = [(int(start, 16), int(end, 16)) for start, end in _PLAIN.findall(text)]
    if _some_are_not_lazy(pid):
        lazy = _lazy_by_flags(pid)
        plain = [area for area in plain if area in lazy]
    eligible = merge(plain)
    if first := _EXECUTABLE.search(text):
        # CRIU puts its first instructions there and takes them out again (criu/parasite-syscall.c): where
        # that is compiled code in plain memory, whoever reads the page meanwhile would read those.
        page = int(first[1], 16)
        eligible = subtract(eligible, [(page, page + PAGE)])
    return Maps(plain, eligible, aio=_AIO in text)


def shared(pid: int) -> dict[int, tuple[Run, str]]:
    """Shared memory that a process has mapped: inode -> a mapping of it and its name.

    MAP_SHARED|MAP_ANONYMOUS, memfd_create(2) and SysV segments: all are files of the kernel's own tmpfs,
    and CRIU's shmid is the inode's number (proc_parse.c, memfd.c). Huge pages are left to CRIU.
    """
    found = {}
    for start, end, device, inode, name in _SHARED.findall(_file(pid, "maps")):
        if device == own_tmpfs():
            found[int(inode)] = ((int(start, 16), int(end, 16)), name.decode("utf-8", "replace"))
    return found


@cache
def own_tmpfs() -> bytes:
    """The device of the kernel's own tmpfs, as maps shows it: that of a mapping we make."""
    with mmap.mmap(-1, PAGE) as page:
        start = memory.address(page)
        for match in _SHARED.finditer(_file(os.getpid(), "maps")):
            if int(match[1], 16) <= start < int(match[2], 16):
                return match[3]
    return b""


def open_pagemap(pid: int) -> int | None:
    """A descriptor of /proc/PID/pagemap, for the address space it has now; None when it has ended."""
    try:
        return os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None


def there(fd: int, mappings: list[Run], *, also: int = 0, without: int = 0) -> list[Run]:
    """The pages of these mappings that have content, by PAGEMAP_SCAN of everything between.

    `also` and `without` are further categories that a page must have, or must not have.
    """
    if not mappings:
        return []
    found = pagemap.scan_all(
        *(fd, mappings[0][0], mappings[-1][1]),
        mask=_THERE["mask"] | also | without,
        inverted=_THERE["inverted"] | without,
        anyof=_THERE["anyof"],
    )
    return intersect(merge((start, end) for start, end, _ in found), mappings)


def written(fd: int, mappings: list[Run], *, protect: bool) -> list[Run]:
    """What was written in mappings that are registered, and with `protect` is watched again from here on."""
    flags = pagemap.PM_SCAN_WP_MATCHING if protect else 0
    return _written(fd, mappings, flags, pagemap.PAGE_IS_WPALLOWED, 0)[0]


def written_or_strange(fd: int, mappings: list[Run]) -> tuple[list[Run], list[Run]]:
    """What was written in mappings that are registered, and what there is in others, in one walk: there
    every page counts as written."""
    return _written(fd, mappings, 0, 0, pagemap.PAGE_IS_WPALLOWED)


def _written(
    fd: int, mappings: list[Run], flags: int, also: int, returned: int
) -> tuple[list[Run], list[Run]]:
    if not mappings:
        return [], []
    found = pagemap.scan_all(
        *(fd, mappings[0][0], mappings[-1][1]),
        flags=flags,
        mask=_THERE["mask"] | pagemap.PAGE_IS_WRITTEN | also,
        inverted=_THERE["inverted"],
        anyof=_THERE["anyof"],
        returned=returned,
    )
    marked = [(start, end) for start, end, kind in found if kind == returned]
    others = [(start, end) for start, end, kind in found if kind != returned]
    return intersect(merge(marked), mappings), intersect(merge(others), mappings)


def populated(fd: int, mappings: list[Run]) -> list[Run]:
    """As `there`, on every kernel."""
    try:
        return there(fd, mappings)
    except OSError as error:
        if error.errno not in {errno.ENOTTY, errno.EINVAL}:  # before Linux 6.7
            raise
    return there_by_entries(fd, mappings)


def present(fd: int, runs: list[Run]) -> list[Run]:
    """Exactly the pages that CRIU would save of these runs of anonymous mappings. Raises OSError as scan().

    What is not there is asked for, and taken out: the kernel is quick to tell of few and long runs, and
    each page of one costs it 20 ns. In steps, so that whoever wants to change the mappings gets in between.
    """
    found: list[Run] = []
    for first, last in runs:
        for start in range(first, last, _STEP):
            end = min(start + _STEP, last)
            without = pagemap.scan_all(
                fd, start, end, mask=_CONTENT, inverted=_CONTENT, regions=_FEW
            )
            without += pagemap.scan_all(fd, start, end, anyof=_zero_or_guard(), regions=_FEW)
            found += subtract([(start, end)], merge((at, stop) for at, stop, _ in without))
    return merge(found)


@cache
def _zero_or_guard() -> int:
    """What CRIU does not save though it is there; as far as the kernel knows it."""
    both = pagemap.PAGE_IS_PFNZERO | pagemap.PAGE_IS_GUARD
    with Fd(os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)) as fd:
        try:
            pagemap.scan(fd, 0, PAGE, anyof=both)
        except OSError as error:
            if error.errno != errno.EINVAL:  # before Linux 6.15
                raise
            return pagemap.PAGE_IS_PFNZERO
    return both


def there_by_entries(fd: int, mappings: list[Run], bits: int = 0) -> list[Run]:
    """As `there`, for kernels without PAGEMAP_SCAN: pages present or swapped that have all of `bits`."""
    found: list[Run] = []
    wanted = pagemap.ENTRY_PRESENT | pagemap.ENTRY_SWAPPED
    for first, last in mappings:
        for start in range(first, last, _ENTRIES_AT_ONCE * PAGE):
            words = pagemap.entries(fd, start, min(last, start + _ENTRIES_AT_ONCE * PAGE))
            found += [
                (start + n * PAGE, start + (n + 1) * PAGE)
                for n, word in enumerate(words)
                if word & wanted and word & bits == bits
            ]
    return merge(found)


def _some_are_not_lazy(pid: int) -> bool:
    return _SOME_LOCKED.search(_file(pid, "status")) is not None


def _lazy_by_flags(pid: int) -> set[Run]:
    lazy: set[Run] = set()
    current: Run | None = None
    for line in _file(pid, "smaps").split(b"\n"):  # a name may hold any other end of line
        if match := _RANGE.match(line):
            current = (int(match[1], 16), int(match[2], 16))
        elif line.startswith(b"VmFlags:") and current and not _NOT_LAZY & set(line.split()):
            lazy.add(current)
    return lazy


def _file(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""
