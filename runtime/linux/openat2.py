"""openat2(2): open a name without leaving a directory. Since Linux 5.6. Falls back to nothing."""

import os
import struct

from ocimig.runtime.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocimig.runtime.linux.syscalls import Path

RESOLVE_NO_XDEV = 0x1
RESOLVE_NO_MAGICLINKS = 0x2
RESOLVE_NO_SYMLINKS = 0x4
RESOLVE_BENEATH = 0x8
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20


def openat2(dirfd: int, path: "Path", flags: int, mode: int = 0, resolve: int = 0) -> int:
    """open(2) below `dirfd` under the rules of `resolve`; O_CLOEXEC is always set.

    `mode` goes only with O_CREAT or O_TMPFILE: the kernel refuses it otherwise. A rename somewhere on
    the way makes the kernel answer EAGAIN when it cannot be sure; a few more tries settle it.
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(32):
        try:
            return syscalls.call(
                syscalls.NR_openat2, dirfd, syscalls.path(path), how, len(how), filename=path
            )
        except BlockingIOError:
            continue
    return syscalls.call(
        syscalls.NR_openat2, dirfd, syscalls.path(path), how, len(how), filename=path
    )
