"""Names below a directory, opened without ever leaving it. Knows nothing of what is sent."""

import errno
import os
import stat
from collections import OrderedDict

from ocimig.runtime.linux.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
)

RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
MAX_PATH = 4095
MAX_NAME = 255
LONGEST = 1 << 14  # characters of a directory's path; who nests deeper is after our memory
_STEP = 1000  # characters of a path that are PATH_MAX bytes at most
_KEPT = 64  # directories held open


def split(path: str) -> tuple[str, str]:
    """The directory and the name of a relative path."""
    directory, _, name = path.rpartition("/")
    return directory, name


def fault(path: bytes) -> str:
    """What is wrong with a relative path from somewhere else; empty when it is in order."""
    if not path or path.startswith(b"/"):
        return "it is not below the directory"
    if b"\0" in path:
        return "there is a NUL in it"
    if len(path) > MAX_PATH:
        return f"it is longer than {MAX_PATH} bytes"
    for part in path.split(b"/"):
        if part in (b"", b".", b".."):
            return f"a part of it is {part.decode()!r}"
        if len(part) > MAX_NAME:
            return f"a part of it is longer than {MAX_NAME} bytes"
    return ""


def open_directory(root: int, path: str) -> int:
    """The directory `path` below `root`, for reading, through no link.

    It may be longer than the kernel takes at once, up to LONGEST characters; longer ones raise
    OSError(ENAMETOOLONG).
    """
    if len(path) > LONGEST:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path[:_STEP] + "…")
    fd = root
    while True:
        cut = len(path) if len(path) <= _STEP else path.rindex("/", 0, _STEP)
        step, path = path[:cut], path[cut + 1 :]
        try:
            new = openat2(fd, step or ".", os.O_RDONLY | os.O_DIRECTORY, 0, RESOLVE)
        finally:
            if fd != root:
                os.close(fd)
        if not path:
            return new
        fd = new


class Directories:
    """The directories of a tree, each opened when it is first needed; the latest stay open."""

    def __init__(self, root: int) -> None:
        self.root = root
        self._open: OrderedDict[str, int] = OrderedDict()

    def open(self, path: str) -> int:
        """A descriptor that belongs to this object."""
        if not path:
            return self.root
        fd = self._open.get(path)
        if fd is None:
            fd = self._open[path] = open_directory(self.root, path)
            if len(self._open) > _KEPT:
                os.close(self._open.popitem(last=False)[1])
        else:
            self._open.move_to_end(path)
        return fd

    def forget(self) -> None:
        """Close all: names have changed under us."""
        while self._open:
            os.close(self._open.popitem()[1])


def open_regular(directory: int, name: str, flags: int) -> int:
    """Open a regular file and nothing else: to open a device can already do something.

    Raises OSError(ELOOP) for anything that is not a regular file.
    """
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.ELOOP, "it is not a regular file", name)
        path = f"/proc/self/fd/{handle}"
        try:
            return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOATIME)
        except PermissionError:  # O_NOATIME is for the owner and for root of the initial namespace
            return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(handle)


def remove(directory: int, name: str) -> None:
    """Remove a name and all below it, through no link and over no mount point."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=directory)
        try:
            empty(fd, os.fstat(directory).st_dev)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=directory)


def empty(directory: int, device: int) -> None:
    """Remove all below an open directory that is on `device`."""
    if os.fstat(directory).st_dev != device:
        raise OSError(errno.EXDEV, "it is a mount point")
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        remove(directory, name)
