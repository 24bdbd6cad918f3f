"""Memory of other processes, and addresses of our own. Never decides what to read."""

import ctypes
import os

from ocimig.runtime.linux.syscalls import libc, oserror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

IOV_MAX = os.sysconf("SC_IOV_MAX")

_readv = libc.process_vm_readv
_readv.restype = ctypes.c_ssize_t


def address(buffer: "bytearray | memoryview | object") -> int:
    """Where a writable buffer (bytearray, mmap, memoryview) lies. It must outlive the use of this."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))  # type: ignore[arg-type]


def same(one: int, other: int, length: int) -> bool:
    """memcmp(3): whether the bytes at two of our addresses are equal."""
    return (
        int(libc.memcmp(ctypes.c_void_p(one), ctypes.c_void_p(other), ctypes.c_size_t(length))) == 0
    )


def process_vm_readv(pid: int, into: int, runs: "Sequence[tuple[int, int]]") -> int:
    """Read their runs (start, end) one behind the other to our address `into`; the bytes that came.

    Fewer than asked when a page is not there any more: the count ends before it. At most IOV_MAX
    runs. Raises OSError: EFAULT when not even the first byte came, ESRCH, EPERM.
    """
    total = sum(end - start for start, end in runs)
    local = (ctypes.c_size_t * 2)(into, total)
    words = [word for start, end in runs for word in (start, end - start)]
    remote = (ctypes.c_size_t * len(words))(*words)
    got = _readv(
        *(ctypes.c_int(pid), local, ctypes.c_ulong(1)),
        *(remote, ctypes.c_ulong(len(runs)), ctypes.c_ulong(0)),
    )
    if got < 0:
        raise oserror(f"/proc/{pid}/mem")
    return int(got)
