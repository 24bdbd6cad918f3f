"""zstd, gzip or nothing, as bounded streams over a descriptor. Knows nothing of what is inside."""

import os
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import zstandard

from ocimig import files
from ocimig.migrate.archive.errors import ArchiveBroken, ArchiveRefused
from ocimig.migrate.archive.limits import Limits

FORMS = ("zstd", "gzip", "none")
_ZSTD, _GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"
_SKIPPABLE = tuple(bytes((0x50 + low, 0x2A, 0x4D, 0x18)) for low in range(16))
_PIECE = 1 << 17
_LEVEL = 3


class _Source:
    """A file from its beginning, by pread(2): the offset of the descriptor is left alone."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.taken = 0

    def read(self, size: int = _PIECE) -> bytes:
        data = os.pread(self.fd, min(size, _PIECE) if size > 0 else _PIECE, self.taken)
        self.taken += len(data)
        return data


def form(fd: int) -> str:
    """One of FORMS, by the first bytes."""
    head = os.pread(fd, 4, 0)
    if head == _ZSTD or head in _SKIPPABLE:
        return "zstd"
    return "gzip" if head[:2] == _GZIP else "none"


class Unpacked:
    """What is in a file, decompressed as it is read, within limits.

    Raises ArchiveRefused where it grows too much, ArchiveBroken where it cannot be decompressed.
    """

    def __init__(self, fd: int, limits: Limits, shown: str) -> None:
        self.given = 0
        self._source = _Source(fd)
        self._limits = limits
        self._shown = shown
        # names and padding of members come on top of what they hold
        self._most = limits.total + limits.metadata + limits.members * 2048
        self._read = _READERS[form(fd)](self._source, limits)

    def read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end."""
        pieces = []
        wanted = size
        while wanted:
            try:
                piece = self._read(min(wanted, _PIECE))
            except (zstandard.ZstdError, zlib.error, MemoryError) as error:
                raise ArchiveBroken(path=self._shown, reason=str(error)) from None
            if not piece:
                break
            pieces.append(piece)
            wanted -= len(piece)
            self.given += len(piece)
            self._check()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _check(self) -> None:
        limits = self._limits
        if self.given > self._most:
            reason = f"it unpacks to more than {limits.total} bytes"
            raise ArchiveRefused(path=self._shown, reason=reason)
        if self.given > limits.ratio_after and self.given > limits.ratio * self._source.taken:
            reason = f"it unpacks to more than {limits.ratio} times its size"
            raise ArchiveRefused(path=self._shown, reason=reason)


def _plain(source: _Source, _: Limits) -> Callable[[int], bytes]:
    return source.read


def _zstd(source: _Source, limits: Limits) -> Callable[[int], bytes]:
    machine = zstandard.ZstdDecompressor(max_window_size=limits.window)
    reader = machine.stream_reader(source, read_size=_PIECE, read_across_frames=True)  # type: ignore[arg-type]
    read: Callable[[int], bytes] = reader.read
    return read


def _gzip(source: _Source, _: Limits) -> Callable[[int], bytes]:
    machine = zlib.decompressobj(31)
    waiting = b""

    def read(size: int) -> bytes:
        nonlocal machine, waiting
        while True:
            if machine.eof:
                waiting = machine.unused_data or source.read()
                if not waiting:
                    return b""
                machine = zlib.decompressobj(31)  # another member of the gzip file
            data = waiting or source.read()
            piece = machine.decompress(data, size)
            waiting = machine.unconsumed_tail
            if piece:
                return piece
            if not data and not machine.eof:
                raise zlib.error("it ends in the middle")

    return read


_READERS = {"none": _plain, "zstd": _zstd, "gzip": _gzip}


class Sink(Protocol):
    """Takes bytes; `close` ends the compression and leaves the descriptor open."""

    def write(self, data: bytes | memoryview) -> None:
        """All of it."""

    def close(self) -> None:
        """The last bytes."""


class _Plain:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes | memoryview) -> None:
        files.write_all(self._fd, data)

    def close(self) -> None:
        pass


class _Packed:
    """Compresses; the same bytes in give the same bytes out: no time, no name, no threads."""

    def __init__(self, fd: int, machine: Any) -> None:
        self._fd = fd
        self._machine = machine

    def write(self, data: bytes | memoryview) -> None:
        files.write_all(self._fd, self._machine.compress(data))

    def close(self) -> None:
        files.write_all(self._fd, self._machine.flush())


def pack(fd: int, how: str) -> Sink:
    """A sink that writes to `fd` in one of FORMS."""
    if how == "zstd":
        return _Packed(fd, zstandard.ZstdCompressor(_LEVEL, write_checksum=True).compressobj())
    if how == "gzip":
        return _Packed(fd, zlib.compressobj(6, zlib.DEFLATED, 31))
    return _Plain(fd)


def repack(fd: int, out: str, how: str, limits: Limits, shown: str) -> None:
    """The same archive compressed otherwise, in the new file `out`. Raises OSError; nothing is left then."""
    stream = Unpacked(fd, limits, shown)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with files.Fd(os.open(out, flags, 0o600)) as file:
        try:
            sink = pack(file, how)
            while data := stream.read(_PIECE):
                sink.write(data)
            sink.close()
            os.fsync(file)
        except BaseException:
            os.unlink(out)
            raise
