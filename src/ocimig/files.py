"""Files that are there whole or not at all, locks, and descriptors with one owner. Never parses."""

import errno
import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class Fd:
    """A file descriptor with one owner; leaving the `with` block closes it."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        """The number, for calls that take anything with a fileno()."""
        return self.number

    def release(self) -> int:
        """Hand the number to another owner."""
        number, self.number = self.number, -1
        return number

    def close(self) -> None:
        """Close it once; a second call does nothing."""
        if self.number >= 0:
            number, self.number = self.number, -1
            os.close(number)

    def __enter__(self) -> int:
        return self.number

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        trace: "TracebackType | None",
    ) -> None:
        self.close()


class Lock:
    """An exclusive lock on a file, held until the `with` block ends (flock(2), follows the open file).

    Raises BlockingIOError at once when `wait` is false and somebody else holds it.
    """

    __slots__ = ("fd", "path", "wait")

    def __init__(self, path: str, *, wait: bool = True) -> None:
        self.path = path
        self.wait = wait
        self.fd = -1

    def __enter__(self) -> "Lock":
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | (0 if self.wait else fcntl.LOCK_NB))
                if _same_file(fd, self.path):
                    self.fd = fd
                    return self
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # the file was removed or replaced while we waited: take the new one

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        trace: "TracebackType | None",
    ) -> None:
        fd, self.fd = self.fd, -1
        os.close(fd)


def _same_file(fd: int, path: str) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def read(path: str, *, limit: int = 64 << 20) -> bytes:
    """The whole file. Raises OSError(EFBIG) when it is larger than `limit` bytes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        size = 0
        while chunk := os.read(fd, 1 << 20):
            size += len(chunk)
            if size > limit:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)


def write_all(fd: int, data: "bytes | memoryview") -> None:
    """write(2) until all of it is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_atomic(path: str, data: bytes, mode: int = 0o600, *, sync: bool = True) -> None:
    """Replace `path` by `data`: a reader, or a crash, sees the old file or the new one, never a part.

    With `sync` false the rename is still atomic for readers but may not survive a power cut.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.tmp")
    fd = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode
    )
    try:
        try:
            write_all(fd, data)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        raise
    if sync:
        fsync_directory(directory or ".")


def fsync_directory(path: str) -> None:
    """Make the names in a directory survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_tree(path: str) -> None:
    """Remove a directory and all below it, never following a link and never leaving the file system.

    A directory that does not exist is fine. Raises OSError(EXDEV) at a mount point.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _remove_below(fd, os.fstat(fd).st_dev, path)
    finally:
        os.close(fd)
    os.rmdir(path)


def _remove_below(directory: int, device: int, shown: str) -> None:
    with os.scandir(directory) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
            continue
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=directory)
        try:
            if os.fstat(fd).st_dev != device:
                raise OSError(errno.EXDEV, "is a mount point", os.path.join(shown, name))
            _remove_below(fd, device, os.path.join(shown, name))
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=directory)
