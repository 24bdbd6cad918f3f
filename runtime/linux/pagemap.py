"""/proc/PID/pagemap: which pages are there, were written, are protected. Never decides what to send.

A descriptor of that file belongs to the address space the process had when it was opened: after
execve(2) it must be opened anew. Layouts are those of <linux/fs.h> (PAGEMAP_SCAN, since Linux 6.7)
and of the kernel's Documentation/admin-guide/mm/pagemap.rst.
"""

import _thread
import ctypes
import fcntl
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    Region = tuple[int, int, int]  # start, end (exclusive), categories

PAGE = os.sysconf("SC_PAGE_SIZE")

PAGE_IS_WPALLOWED = 1 << 0  # the mapping is registered for asynchronous write protection
PAGE_IS_WRITTEN = 1 << 1
PAGE_IS_FILE = 1 << 2
PAGE_IS_PRESENT = 1 << 3
PAGE_IS_SWAPPED = 1 << 4
PAGE_IS_PFNZERO = 1 << 5
PAGE_IS_HUGE = 1 << 6
PAGE_IS_SOFT_DIRTY = 1 << 7
PAGE_IS_GUARD = 1 << 8  # since Linux 6.15

PM_SCAN_WP_MATCHING = 1 << 0  # protect what is found, in the same step
PM_SCAN_CHECK_WPASYNC = 1 << 1  # EPERM when a mapping is not registered

# one 64-bit word a page, in the file itself
ENTRY_SOFT_DIRTY = 1 << 55
ENTRY_FILE = 1 << 61
ENTRY_SWAPPED = 1 << 62
ENTRY_PRESENT = 1 << 63

_SCAN = 3 << 30 | 96 << 16 | ord("f") << 8 | 16
_ARGUMENTS = struct.Struct("=12Q")  # struct pm_scan_arg
_REGION = 24  # sizeof(struct page_region)
_WALK_END = 4 * 8


class _Room(_thread._local):
    """Memory for the answers, kept for each thread: a scan is repeated many times."""

    def __init__(self) -> None:
        self.memory = bytearray()
        self.address = 0

    def fit(self, regions: int) -> int:
        """The address of memory for so many regions."""
        if len(self.memory) < regions * _REGION:
            self.memory = bytearray(regions * _REGION)
            self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        return self.address


_room = _Room()


def scan(
    fd: int,
    start: int,
    end: int,
    *,
    flags: int = 0,
    mask: int = 0,
    anyof: int = 0,
    inverted: int = 0,
    returned: int = 0,
    max_pages: int = 0,
    regions: int = 65536,
) -> "tuple[list[Region], int]":
    """ioctl(PAGEMAP_SCAN): the pages that have all categories of `mask` and one of `anyof`.

    Categories in `inverted` count when they are absent. Returns runs of pages with those of their
    categories that are in `returned`, and the address where the walk ended: less than `end` when
    there are more than `regions` runs or `max_pages` pages; go on from there. Raises OSError: EPERM (PM_SCAN_CHECK_WPASYNC), ENOTTY and EINVAL on kernels that do not
    have it, ESRCH when the process is gone.
    """
    request = bytearray(
        _ARGUMENTS.pack(
            *(96, flags, start, end, 0, _room.fit(regions), regions, max_pages),
            *(inverted, mask, anyof, returned),
        )
    )
    found = fcntl.ioctl(fd, _SCAN, request)
    words = memoryview(_room.memory)[: found * _REGION].cast("Q")
    rows = list(zip(words[0::3].tolist(), words[1::3].tolist(), words[2::3].tolist(), strict=True))
    return rows, int(struct.unpack_from("=Q", request, _WALK_END)[0])


def scan_all(
    fd: int,
    start: int,
    end: int,
    *,
    flags: int = 0,
    mask: int = 0,
    anyof: int = 0,
    inverted: int = 0,
    returned: int = 0,
    regions: int = 65536,
) -> "list[Region]":
    """`scan` from `start` to `end`, however many runs there are."""
    found: list[Region] = []
    while start < end:
        rows, start = scan(
            *(fd, start, end),
            flags=flags,
            mask=mask,
            anyof=anyof,
            inverted=inverted,
            returned=returned,
            regions=regions,
        )
        found += rows
    return found


def entries(fd: int, start: int, end: int) -> memoryview:
    """The words of the pages from `start` to `end`, one a page, as 64-bit numbers."""
    length = (end - start) // PAGE * 8
    data = os.pread(fd, length, start // PAGE * 8)
    return memoryview(data).cast("Q")
