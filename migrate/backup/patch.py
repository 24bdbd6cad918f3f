"""What of a large file changed between the scan and the freeze, block by block. Keeps nothing itself.

The kernel says that a file was written to, not where. To copy a database for one page of it would need its
size of room and of time; so the scan leaves a digest of each block, and the freeze reads and compares.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from blake3 import blake3

from ocimig.migrate.store import stream
from ocimig.migrate.store.blobs import BLOCK, ZEROS, Data, Run, Sink

DIGEST = 16  # bytes; nobody gains from a collision, which must not happen by chance


class Marked(NamedTuple):
    """A stream as the scan stored it, with a digest of each block that is no zeros, in their order."""

    runs: tuple[Run, ...]
    size: int
    digests: bytes


class Marking:
    """A sink before a sink, for one file: notes a digest of what goes through."""

    def __init__(self, sink: Sink) -> None:
        self.digests = bytearray()
        self._sink = sink

    def put(self, blob: Data) -> tuple[int, int]:
        """See blobs.Sink."""
        self.digests += _digest(blob)
        return self._sink.put(blob)


def _digest(block: Data) -> bytes:
    return blake3(block).digest(DIGEST)


def changed(fd: int, size: int, before: Marked) -> Iterator[tuple[int, bytes]]:
    """The blocks of an open file of `size` bytes that are not as they were, in order, each with its bytes:
    none where there is a hole now. Raises OSError."""
    was = _digests(before)
    old, digest = next(was, (-1, b""))
    last = stream.blocks(size)
    for block, data in _solid(fd, size):
        while 0 <= old < block:
            yield old, b""
            old, digest = next(was, (-1, b""))
        if old == block:
            if _digest(data) != digest:
                yield block, bytes(data)
            old, digest = next(was, (-1, b""))
        else:
            yield block, bytes(data)
    while 0 <= old < last:
        yield old, b""
        old, digest = next(was, (-1, b""))


def _digests(before: Marked) -> Iterator[tuple[int, bytes]]:
    """The blocks that were no zeros, each with its digest."""
    block = position = 0
    for run in before.runs:
        if run.pack != ZEROS:
            for number in range(block, block + run.entries):
                yield number, before.digests[position : position + DIGEST]
                position += DIGEST
        block += run.entries


def _solid(fd: int, size: int) -> Iterator[tuple[int, bytearray]]:
    """The blocks that are no zeros now; what is yielded holds until the next one."""
    buffer = bytearray(BLOCK)
    done = 0
    for start, stop in stream.extents(fd, 0, size):
        for block in range(max(start // BLOCK, done), stream.blocks(stop)):
            want = min(BLOCK, size - block * BLOCK)
            count = stream.fill(fd, buffer, want, block * BLOCK)
            data = buffer if count == BLOCK else buffer[:count]
            if not stream.is_zeros(data):
                yield block, data
        done = max(done, stream.blocks(stop))


def patched(
    sink: Sink, before: Marked, size: int, changes: Iterable[tuple[int, bytes]]
) -> tuple[Run, ...]:
    """The runs of a stream of `size` bytes that is `before` with these blocks changed, which are stored."""
    found = stream.Runs()
    old = _Old(before.runs)
    for block, data in changes:
        old.copy(found, block)
        old.skip(block + 1)
        if data:
            found.add(*sink.put(data))
        else:
            found.add(ZEROS, 0)
    old.copy(found, stream.blocks(size))
    return found.all()


class _Old:
    """Runs, read from the front; zeros without end follow them."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = iter(runs)
        self._run = Run(ZEROS, 0, 0)
        self._block = 0

    def copy(self, found: stream.Runs, end: int) -> None:
        """Append the blocks up to `end`."""
        self._forward(end, found)

    def skip(self, end: int) -> None:
        """Leave out the blocks up to `end`."""
        self._forward(end, None)

    def _forward(self, end: int, found: stream.Runs | None) -> None:
        while self._block < end:
            if not self._run.entries:
                self._run = next(self._runs, Run(ZEROS, 0, end - self._block))
            pack, first, entries = self._run
            count = min(entries, end - self._block)
            if found is not None:
                found.add(pack, first, count)
            self._run = Run(pack, first if pack == ZEROS else first + count, entries - count)
            self._block += count
