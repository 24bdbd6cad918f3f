"""A process whose memory comes late, as CRIU leaves it: run as a program, it obeys one line at a time.

lazy_target.py DIRECTORY PAGES     connects to the page handler there, says "ready <address>"
sum A B      the SHA-256 of pages A to B (end exclusive)
fork A B     the same, of a child's memory
drop A B     madvise(MADV_DONTNEED)
unmap A B    munmap(2)
move A B     mremap(2) to another place; "sum-moved" tells the SHA-256 there
"""

import ctypes
import hashlib
import mmap
import os
import socket
import struct
import sys

from ocimig.runtime.linux import userfaultfd as uffd

PAGE = mmap.PAGESIZE
FEATURES = (
    uffd.UFFD_FEATURE_EVENT_FORK | uffd.UFFD_FEATURE_EVENT_REMAP
    | uffd.UFFD_FEATURE_EVENT_REMOVE | uffd.UFFD_FEATURE_EVENT_UNMAP
)  # fmt: skip
PID = 7  # in the "container"
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = _libc.mremap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.mremap.argtypes = (
    *[ctypes.c_void_p] * 1,
    *[ctypes.c_size_t] * 2,
    ctypes.c_int,
    ctypes.c_void_p,
)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


_MAP_FIXED_NOREPLACE = 0x100000


def map_memory(pages: int, address: int = 0) -> int:
    """Where so much new memory lies: at `address`, where one is given."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (_MAP_FIXED_NOREPLACE if address else 0)
    rights = mmap.PROT_READ | mmap.PROT_WRITE
    found = int(_libc.mmap(address or None, pages * PAGE, rights, flags, -1, 0))
    assert not address or found == address
    return found


def unmap_memory(start: int, pages: int) -> None:
    """munmap(2)."""
    _libc.munmap(start, pages * PAGE)


class Target:
    """The memory, and what can be asked of it."""

    def __init__(self, directory: str, pages: int, address: int = 0) -> None:
        self.start = map_memory(pages, address)
        self.moved = self.moved_pages = 0
        fd = uffd.userfaultfd(0)
        uffd.api(fd, FEATURES)
        mode = uffd.UFFDIO_REGISTER_MODE_MISSING
        uffd.register(fd, self.start, self.start + pages * PAGE, mode)
        link = socket.socket(socket.AF_UNIX)
        link.connect(os.path.join(directory, "lazy-pages.socket"))
        link.send(struct.pack("=i", PID))
        socket.send_fds(link, [b"\0"], [fd])
        os.close(fd)
        with link:  # and CRIU's last word
            link.send(struct.pack("=I", 0x52535446))

    def sum(self, first: int, last: int, start: int = 0) -> str:
        """SHA-256 of some pages."""
        return hashlib.sha256(
            ctypes.string_at((start or self.start) + first * PAGE, (last - first) * PAGE)
        ).hexdigest()

    def obey(self, word: str, numbers: list[int]) -> str:
        """Do what a line says; what to answer."""
        if word == "sum":
            return self.sum(*numbers)
        if word == "sum-moved":
            return self.sum(0, self.moved_pages, self.moved)
        if word == "fork":
            return self._fork(*numbers)
        first, last = numbers
        start, size = self.start + first * PAGE, (last - first) * PAGE
        if word == "drop":
            failed = _libc.madvise(start, size, mmap.MADV_DONTNEED)
        elif word == "unmap":
            failed = _libc.munmap(start, size)
        else:
            self.moved_pages, place = last - first, map_memory(last - first)
            self.moved = int(_libc.mremap(start, size, size, 3, place))
            failed = self.moved != place
        return "failed" if failed else "done"

    def _fork(self, first: int, last: int) -> str:
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(writer, self.sum(first, last).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read().decode()
        os.waitpid(pid, 0)
        return said


def main() -> None:
    """Obey until the input ends."""
    target = Target(sys.argv[1], *map(int, sys.argv[2:]))
    print("ready", target.start, flush=True)
    for line in sys.stdin:
        word, *numbers = line.split()
        print(target.obey(word, [int(number) for number in numbers]), flush=True)


if __name__ == "__main__":
    main()
