"""How a system call is made and how it fails. Knows no call by name: the other modules here do.

ctypes costs 2.5 ms at start-up, so what `state`, `kill` and `list` need (`proc`, `process`) reaches
this module only from inside the functions that cannot do without it.
"""

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    Path = str | bytes | os.PathLike[str] | None

libc = ctypes.CDLL(None, use_errno=True)

# Since Linux 5.1 a new call has the same number on every architecture (alpha aside).
NR_open_tree = 428
NR_move_mount = 429
NR_fsopen = 430
NR_fsconfig = 431
NR_fsmount = 432
NR_fspick = 433
NR_close_range = 436
NR_openat2 = 437
NR_pidfd_getfd = 438
NR_mount_setattr = 442

_syscall = libc.syscall
_syscall.restype = ctypes.c_long


def oserror(filename: "Path" = None) -> OSError:
    """The error of the call that just failed, naming the file it was about."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), None if filename is None else os.fspath(filename))


def path(name: "Path") -> "bytes | None":
    """A path as the kernel takes it. A NUL inside would silently cut it short, so it is refused."""
    if name is None:
        return None
    raw = os.fsencode(name)
    if b"\0" in raw:
        raise ValueError(f"embedded null byte in {name!r}")
    return raw


def call(number: int, *arguments: "int | bytes | None", filename: "Path" = None) -> int:
    """syscall(2): `bytes` go as a pointer to them, None as NULL. Raises OSError, restarts on EINTR."""
    words = [_word(argument) for argument in arguments]
    while True:
        result = _syscall(ctypes.c_long(number), *words)
        if result >= 0:
            return int(result)
        if ctypes.get_errno() != 4:  # EINTR
            raise oserror(filename)


def _word(argument: "int | bytes | None") -> "ctypes.c_long | ctypes.c_char_p | ctypes.c_void_p":
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, int):
        return ctypes.c_long(argument)
    return ctypes.c_char_p(argument)
