"""Whether a file system can keep a store: each thing is tried, none is looked up in a table of names."""

import errno
import fcntl
import os
import secrets
from contextlib import suppress

from ocimig.files import Fd

_PREFIX = ".ocimig-try-"


def check(directory: int) -> None:
    """Try in this directory what a store needs; leaves nothing behind.

    Raises ValueError, with words, for what the file system cannot do, OSError for what fails otherwise.
    """
    name = f"{_PREFIX}{secrets.token_hex(4)}"
    other = f"{name}-b"
    try:
        _try(directory, name, other)
    finally:
        for each in (name, other):
            with suppress(OSError):
                os.unlink(each, dir_fd=directory)


def _try(directory: int, name: str, other: str) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        opened = os.open(name, flags, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.EROFS:
            raise ValueError("its file system is read-only") from None
        raise
    with Fd(opened) as fd:
        if os.fstat(fd).st_mode & 0o077:
            raise ValueError(
                "its file system keeps no permissions (FAT?): others could read what is in it"
            )
        os.write(fd, b"x")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"its file system has no locks: {error.strerror}") from None
        try:
            os.fsync(fd)
            os.fsync(directory)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            raise ValueError(
                f"its file system makes nothing durable: fsync: {error.strerror}"
            ) from None
    if _exists(directory, name.upper()):
        raise ValueError("its file system takes upper and lower case for the same")
    os.rename(name, other, src_dir_fd=directory, dst_dir_fd=directory)
    if _exists(directory, name) or not _exists(directory, other):
        raise ValueError("its file system does not rename")


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
