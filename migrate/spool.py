"""One file without a name that holds parts of other files: whatever ends the program, nothing of it stays."""

import errno
import io
import os
import tempfile
from typing import TYPE_CHECKING, BinaryIO, cast

from ocimig.errors import SystemFailure
from ocimig.migrate.errors import NoRoomToLook
from ocimig.migrate.report import size as amount

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_ALIGNED = 4096
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Spool:
    """The file, in the directory that TMPDIR names; a `with` block gives it back."""

    def __init__(self) -> None:
        self._end = 0
        try:
            self.directory = tempfile.gettempdir()
            # without a name from its first moment on, where the file system can do that
            with tempfile.TemporaryFile(dir=self.directory, buffering=0) as file:
                self._fd = os.dup(file.fileno())
        except OSError as error:
            raise SystemFailure.of("cannot make a temporary file", error) from None

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give it back; a second call does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def require(self, size: int) -> None:
        """Raises NoRoomToLook unless so many bytes can be written now."""
        there = os.fstatvfs(self._fd)
        if size > there.f_bavail * there.f_frsize:
            raise NoRoomToLook(path=self.directory, size=amount(size))

    def take(self, size: int) -> "Region":
        """A part of so many bytes; until they are written they are zeros, and take no room."""
        start = self._end
        self._end += -(-size // _ALIGNED) * _ALIGNED
        try:
            os.ftruncate(self._fd, self._end)
        except OSError as error:
            raise SystemFailure.of("cannot make a temporary file larger", error) from None
        return Region(self, start, size)

    def write(self, at: int, data: bytes | bytearray | memoryview) -> None:
        """Raises NoRoomToLook."""
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(self._fd, view, at)
                view, at = view[count:], at + count
        except OSError as error:
            if error.errno in _FULL:
                raise NoRoomToLook(path=self.directory, size=amount(len(view))) from None
            raise SystemFailure.of("cannot write a temporary file", error) from None

    def read(self, at: int, view: "WriteableBuffer") -> int:
        """As much as there is."""
        return os.preadv(self._fd, [view], at)


class Region:
    """One part of a spool; offsets are those in it."""

    def __init__(self, spool: Spool, start: int, size: int) -> None:
        self.size = size
        self._spool = spool
        self._start = start

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Raises NoRoomToLook; ValueError behind its end."""
        if offset + len(data) > self.size:
            raise ValueError(f"{offset + len(data)} bytes for a region of {self.size}")
        self._spool.write(self._start + offset, data)

    def read_into(self, offset: int, buffer: "WriteableBuffer") -> int:
        """How many bytes were there, at most as many as the buffer has."""
        view = memoryview(buffer).cast("B")
        view = view[: max(0, min(len(view), self.size - offset))]
        return self._spool.read(self._start + offset, view) if view else 0

    def read(self, offset: int, size: int) -> bytes:
        """Fewer bytes than `size` at its end."""
        buffer = bytearray(min(size, max(0, self.size - offset)))
        done = 0
        while done < len(buffer) and (
            got := self.read_into(offset + done, memoryview(buffer)[done:])
        ):
            done += got
        return bytes(buffer[:done])

    def open(self) -> BinaryIO:
        """It as a file to be read."""
        return cast(BinaryIO, io.BufferedReader(_Reader(self)))


class _Reader(io.RawIOBase):
    def __init__(self, region: Region) -> None:
        super().__init__()
        self._region = region
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = (0, self._at, self._region.size)[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        count = self._region.read_into(self._at, buffer)
        self._at += count
        return count
