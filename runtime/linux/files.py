"""Calls about files that `os` does not have. Never decides what is worth keeping."""

from ocimig.runtime.linux import syscalls


def syncfs(fd: int) -> None:
    """syncfs(2): write out everything of the file system that `fd` is on; since Linux 5.8 with errors."""
    if syscalls.libc.syncfs(fd) != 0:
        raise syscalls.oserror()
