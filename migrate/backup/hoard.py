"""Files as they were in the freeze, kept aside until the container runs again. Never stores anything."""

import errno
import fcntl
import os
import struct
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from ocimig import files
from ocimig.errors import NoSpace
from ocimig.migrate.backup.patch import Marked, changed, patched
from ocimig.migrate.errors import TreeFailed
from ocimig.migrate.store.blobs import BLOCK, Sink
from ocimig.migrate.store.stream import Stored, extents, put_bytes, put_file

SMALL = 128 << 10  # files up to here stay in memory
IN_MEMORY = 64 << 20  # bytes of such files, all together
_FICLONERANGE = 0x4020940D
_RANGE = struct.Struct("=qQQQ")  # struct file_clone_range of <linux/fs.h>


class Place(NamedTuple):
    """Where in the hoard's own file the copy of one begins, and how long it is, in bytes."""

    base: int
    size: int


class Patch(NamedTuple):
    """Blocks that changed, one behind the other from `base` on: the number and the length of each."""

    base: int
    size: int  # bytes of the whole file
    before: Marked
    blocks: list[tuple[int, int]]


Kept = bytes | Place | Patch


class Hoard:
    """Copies of files: small ones in memory, others one behind the other in a file without a name; of those
    that were stored shortly before only what changed.

    On a file system that can share blocks nothing is copied. `room` is a directory of ours, best on the
    file system of the files.
    """

    def __init__(self, room: str) -> None:
        self.copied = 0  # bytes; what was shared is not among them
        self._room = room
        self._free = IN_MEMORY
        self._fd = -1
        self._end = 0
        self._shares = True

    def take(self, fd: int, size: int, before: Marked | None = None) -> Kept:
        """Keep `size` bytes of an open file, which was `before`. Raises OSError of the file, NoSpace and
        TreeFailed of the room."""
        if size <= min(SMALL, self._free):
            data = _read(fd, size)
            self._free -= len(data)
            self.copied += len(data)
            return data
        if self._fd < 0:
            self._fd = self._open()
        base = self._end
        if not self._share(fd, base):
            if before is not None:
                return self._compare(fd, size, before)
            self._copy(fd, base, size)
        self._end = base + -(-size // BLOCK) * BLOCK
        self._room_for(self._end)
        return Place(base, size)

    def store(self, sink: Sink, kept: Kept) -> Stored:
        """Put what take() kept into a store. Raises what the sink does."""
        if isinstance(kept, bytes):
            return Stored(put_bytes(sink, kept), len(kept), len(kept))
        if isinstance(kept, Place):
            return put_file(sink, self._fd, kept.size, kept.base)
        runs = patched(sink, kept.before, kept.size, self._blocks(kept))
        return Stored(runs, kept.size, sum(length for _, length in kept.blocks))

    def _blocks(self, patch: Patch) -> Iterator[tuple[int, bytes]]:
        base = patch.base
        for block, length in patch.blocks:
            yield block, os.pread(self._fd, length, base)
            base += length

    def close(self) -> None:
        """Let everything go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        try:
            with tempfile.TemporaryFile(dir=self._room, buffering=0) as file:
                return os.dup(file.fileno())
        except OSError as error:
            raise self._failed(error) from None

    def _share(self, fd: int, base: int) -> bool:
        """FICLONERANGE up to the end of the file; False where that cannot be, now and ever after."""
        if not self._shares:
            return False
        try:
            fcntl.ioctl(self._fd, _FICLONERANGE, _RANGE.pack(fd, 0, 0, base))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(path=self._room) from None
            self._shares = False
        return self._shares

    def _compare(self, fd: int, size: int, before: Marked) -> Patch:
        base, blocks = self._end, []
        os.lseek(self._fd, base, os.SEEK_SET)
        for block, data in changed(fd, size, before):
            try:
                files.write_all(self._fd, data)
            except OSError as error:
                raise self._failed(error) from None
            blocks.append((block, len(data)))
            self._end += len(data)
        self.copied += self._end - base
        self._end += -self._end % BLOCK
        return Patch(base, size, before, blocks)

    def _copy(self, fd: int, base: int, size: int) -> None:
        for start, stop in extents(fd, 0, size):
            os.lseek(self._fd, base + start, os.SEEK_SET)
            while start < stop:
                try:
                    count = os.sendfile(self._fd, fd, start, min(stop - start, 1 << 30))
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise NoSpace(path=self._room) from None
                    raise
                if not count:  # it became shorter: whoever looks at its size again will see
                    break
                start += count
                self.copied += count

    def _room_for(self, end: int) -> None:
        try:
            os.ftruncate(self._fd, end)
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> NoSpace | TreeFailed:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return NoSpace(path=self._room)
        reason = error.strerror or str(error)
        return TreeFailed(what="keep copies in", path=self._room, reason=reason)


def _read(fd: int, size: int) -> bytes:
    """As much of `size` bytes as there is."""
    parts = []
    done = 0
    while done < size and (part := os.pread(fd, size - done, done)):
        parts.append(part)
        done += len(part)
    return b"".join(parts)
