"""fallocate(2), as far as holes need it. Knows no file by name."""

import ctypes

from ocimig.runtime.linux.syscalls import libc, oserror

FALLOC_FL_KEEP_SIZE = 0x1
FALLOC_FL_PUNCH_HOLE = 0x2

_fallocate = libc.fallocate64 if hasattr(libc, "fallocate64") else libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch_hole(fd: int, start: int, end: int) -> None:
    """Give the bytes between two offsets of a file back; they read as zeros. EOPNOTSUPP: not there."""
    while _fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, end - start):
        if ctypes.get_errno() != 4:  # EINTR
            raise oserror()
