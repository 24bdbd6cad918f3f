"""Calls about files that `os` does not have. Never decides what is worth keeping."""

import ctypes

from ocimig.runtime.linux import syscalls


def syncfs(fd: int) -> None:
    """syncfs(2): write out everything of the file system that `fd` is on; since Linux 5.8 with errors."""
    if syscalls.libc.syncfs(fd) != 0:
        raise syscalls.oserror()


def statfs_type(fd: int) -> int:
    """The type of the file system that `fd` is on: f_type of statfs(2), numbers of <linux/magic.h>."""
    room = (ctypes.c_long * 32)()  # struct statfs is 120 bytes at most
    if syscalls.libc.fstatfs(fd, room) != 0:
        raise syscalls.oserror()
    return int(room[0])
