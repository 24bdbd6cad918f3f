"""Content of any length as runs of blocks of 65,536 bytes, and back. Holes cost nothing; bounded memory.

A stream of `size` bytes has ceil(size / BLOCK) blocks, the last one as long as what is left. A block of
zeros is in no pack. Offsets and sizes are bytes.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ocimig.migrate.store.blobs import BLOCK, PAGE, ZEROS, Data, Origin, Run, Sink

LARGEST_FILE = (1 << 63) - 1  # off_t
_ZEROS = bytes(BLOCK)
_ZERO_PAGE = bytes(PAGE)


class Stored(NamedTuple):
    """A stream in a store; `data` of its bytes were read, the rest is holes."""

    runs: tuple[Run, ...]
    size: int
    data: int


class Runs:
    """References in order, joined as they come: a hole of any length is one step."""

    def __init__(self) -> None:
        self._found: list[Run] = []

    def add(self, pack: int, first: int, entries: int = 1) -> None:
        """Append consecutive entries of a pack, or with ZEROS so many blocks of zeros."""
        if not entries:
            return
        if pack == ZEROS:
            first = 0
        if self._found:
            last = self._found[-1]
            if last.pack == pack and (pack == ZEROS or last.first + last.entries == first):
                self._found[-1] = Run(pack, last.first, last.entries + entries)
                return
        self._found.append(Run(pack, first, entries))

    def all(self) -> tuple[Run, ...]:
        """As few runs as there can be."""
        return tuple(self._found)


def blocks(size: int) -> int:
    """How many blocks a stream of so many bytes has."""
    return -(-size // BLOCK)


def put_bytes(sink: Sink, data: bytes) -> tuple[Run, ...]:
    """Store a stream that is in memory. Raises what the sink does."""
    found = Runs()
    for start in range(0, len(data), BLOCK):
        _put(sink, found, data[start : start + BLOCK])
    return found.all()


def put_file(sink: Sink, fd: int, size: int, base: int = 0) -> Stored:
    """Store `size` bytes of an open file from `base` on, reading no hole that its file system knows of.

    Where the file ends earlier, so does the stream. Raises OSError and what the sink does.
    """
    found = Runs()
    buffer = bytearray(BLOCK)
    done = data = 0
    for start, stop in extents(fd, base, size):
        first, last = start // BLOCK, blocks(stop)
        first = max(first, done)  # a hole may end, and the next begin, inside one block
        found.add(ZEROS, 0, first - done)
        for block in range(first, last):
            want = min(BLOCK, size - block * BLOCK)
            count = fill(fd, buffer, want, base + block * BLOCK)
            data += count
            if count:
                _put(sink, found, buffer if count == BLOCK else buffer[:count])
            if count < want:
                return Stored(found.all(), block * BLOCK + count, data)
        done = max(done, last)
    found.add(ZEROS, 0, blocks(size) - done)
    return Stored(found.all(), size, data)


def is_zeros(piece: bytes | bytearray) -> bool:
    """Whether a block, or the beginning of one, is zeros only."""
    # no memoryview here: it compares item by item, a hundred times slower
    return piece == (_ZEROS if len(piece) == BLOCK else _ZEROS[: len(piece)])


def _put(sink: Sink, found: Runs, piece: bytes | bytearray) -> None:
    if is_zeros(piece):
        found.add(ZEROS, 0)
    else:
        found.add(*sink.put(piece))


def fill(fd: int, buffer: bytearray, want: int, offset: int) -> int:
    """Read into the buffer until `want` bytes are there or the file ends; how many those are."""
    count = 0
    view = memoryview(buffer)
    while count < want:
        got = os.preadv(fd, [view[count:want]], offset + count)
        if not got:
            break
        count += got
    return count


def extents(fd: int, base: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of `size` bytes of a file that hold data, as offsets from `base`. Raises OSError."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, base + position, os.SEEK_DATA) - base
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        if start >= size:
            return
        position = min(os.lseek(fd, base + start, os.SEEK_HOLE) - base, size)
        yield start, position


def fault(runs: Iterable[Run], size: int) -> str:
    """What is wrong with the runs of a stream of `size` bytes; empty when they can be."""
    if not 0 <= size <= LARGEST_FILE:
        return f"its size is {size}"
    there = 0
    for run in runs:
        if run.entries < 1:
            return "one of its runs is empty"
        there += run.entries
    if there != blocks(size):
        return f"it has {there} blocks, its size of {size} bytes needs {blocks(size)}"
    return ""


def pieces(origin: Origin, runs: Iterable[Run], size: int) -> Iterator[tuple[int, Data]]:
    """The blocks that are no zeros, each with its offset; what is yielded holds until the next one.

    Raises ValueError where runs, blobs and size do not go together, and what the origin does.
    """
    kept = tuple(runs)
    if wrong := fault(kept, size):
        raise ValueError(wrong)
    blobs = iter(origin.blobs(run for run in kept if run.pack != ZEROS))
    block = 0
    for run in kept:
        if run.pack == ZEROS:
            block += run.entries
            continue
        for _ in range(run.entries):
            blob = next(blobs, b"")
            want = min(BLOCK, size - block * BLOCK)
            if len(blob) != want:
                raise ValueError(f"its block {block} has {len(blob)} bytes instead of {want}")
            yield block * BLOCK, blob
            block += 1


def write_file(origin: Origin, runs: Iterable[Run], size: int, fd: int) -> int:
    """Write a stream into a new, empty file; pages of zeros become holes. Returns the bytes written.

    Raises OSError, ValueError as pieces() does, and what the origin does.
    """
    written = 0
    for offset, data in pieces(origin, runs, size):
        block = bytes(data)
        for start, stop in _solid(block):
            _write(fd, memoryview(block)[start:stop], offset + start)
            written += stop - start
    os.ftruncate(fd, size)
    return written


def _solid(block: bytes) -> Iterator[tuple[int, int]]:
    """The parts of a block that are not whole pages of zeros."""
    start = -1
    for position in range(0, len(block), PAGE):
        zeros = block.startswith(_ZERO_PAGE, position)
        if zeros and start >= 0:
            yield start, position
            start = -1
        elif not zeros and start < 0:
            start = position
    if start >= 0:
        yield start, len(block)


def _write(fd: int, view: memoryview, offset: int) -> None:
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count
