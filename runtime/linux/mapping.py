"""Mappings of files by their address, for calls that take the address of memory. Never reads what is in them."""

import ctypes

from ocimig.runtime.linux import syscalls

PROT_READ = 1
PROT_WRITE = 2
MAP_SHARED = 1
MADV_REMOVE = 9
MADV_POPULATE_READ = 22

_mmap = syscalls.libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64,
)  # fmt: skip
_madvise = syscalls.libc.madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_FAILED = ctypes.c_void_p(-1).value


def map_file(fd: int, offset: int, length: int, *, writable: bool) -> int:
    """The address of `length` bytes of a file from `offset` on, shared with everybody who maps it. mmap(2)."""
    protection = PROT_READ | (PROT_WRITE if writable else 0)
    address = _mmap(None, length, protection, MAP_SHARED, fd, offset)
    if address in (None, _FAILED):
        raise syscalls.oserror()
    return int(address)


def populate(address: int, length: int) -> None:
    """Map the pages in now (MADV_POPULATE_READ, since Linux 5.14; before it they come one by one)."""
    if _madvise(address, length, MADV_POPULATE_READ):
        error = syscalls.oserror()
        if error.errno != 22:  # EINVAL: unknown to this kernel
            raise error


def punch(address: int, length: int) -> None:
    """Give back what the file holds there: it reads as zeros from now on (MADV_REMOVE)."""
    if _madvise(address, length, MADV_REMOVE):
        raise syscalls.oserror()
