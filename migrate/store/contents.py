"""What is in a pack: its frames, and where each blob is. Pure; docs/formats/store.md has the bytes.

Columns of one type each, so that the index of a pack of 64 MiB costs what its bytes cost.
"""

import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from ocimig.migrate.store.blobs import LARGEST

DIGEST = 32
CHECK = 12
RAW, ZSTD = 0, 1
MOST_BLOBS = 1 << 16  # in one frame
MOST_ENTRIES = 1 << 24  # in one pack

_COUNTS = struct.Struct("<III")
_PAIR = struct.Struct("<II")
_FRAME = struct.Struct(f"<IIIHH{CHECK}s")


class Frame(NamedTuple):
    """One frame: lengths in bytes, as stored and as it is."""

    stored: int
    raw: int
    blobs: int
    codec: int
    check: bytes


class Contents:
    """The index of one pack. Positions count the blobs that are in it; entries are their numbers."""

    __slots__ = ("_at", "_firsts", "_runs", "digests", "entries", "frames", "offsets", "sizes")

    def __init__(
        self,
        runs: Sequence[tuple[int, int]],
        frames: Sequence[Frame],
        sizes: "array[int]",
        digests: bytes,
    ) -> None:
        self._runs = list(runs)
        self._firsts = [first for first, _ in runs]
        self._at = [0, *accumulate(count for _, count in runs)]
        self.entries = self._at[-1]
        self.frames = list(frames)
        self.sizes = sizes
        self.digests = digests
        # position of the first blob of each frame, and of the one behind the last
        self.offsets = [0, *accumulate(frame.blobs for frame in frames)]

    @property
    def runs(self) -> list[tuple[int, int]]:
        """(first entry, count) of what is in it."""
        return list(self._runs)

    @property
    def stored(self) -> int:
        """Bytes of all frames as stored."""
        return sum(frame.stored for frame in self.frames)

    def position(self, entry: int) -> int:
        """Of an entry. Raises KeyError where the pack does not have it (any more)."""
        at = bisect_right(self._firsts, entry) - 1
        if at < 0 or entry - self._firsts[at] >= self._runs[at][1]:
            raise KeyError(entry)
        return self._at[at] + entry - self._firsts[at]

    def positions(self, first: int, count: int) -> int:
        """The position of `count` consecutive entries. Raises KeyError unless all are in it."""
        at = bisect_right(self._firsts, first) - 1
        if at < 0 or first + count > self._firsts[at] + self._runs[at][1]:
            raise KeyError(first)
        return self._at[at] + first - self._firsts[at]

    def frame_of(self, position: int) -> int:
        """Which frame a blob is in."""
        return bisect_right(self.offsets, position) - 1

    def digest(self, position: int) -> bytes:
        """Of the blob there."""
        return self.digests[position * DIGEST : (position + 1) * DIGEST]

    def numbered(self) -> Iterable[tuple[int, bytes]]:
        """(entry, digest) of every blob."""
        position = 0
        for first, count in self._runs:
            for entry in range(first, first + count):
                yield entry, self.digests[position : position + DIGEST]
                position += DIGEST

    def encode(self) -> bytes:
        """As the index of a pack, before compression and sealing."""
        return b"".join((
            _COUNTS.pack(len(self.frames), self.entries, len(self._runs)),
            *(_PAIR.pack(first, count) for first, count in self._runs),
            *(_FRAME.pack(f.stored, f.raw, f.blobs, f.codec, 0, f.check) for f in self.frames),
            _bytes(self.sizes),
            self.digests,
        ))  # fmt: skip


def decode(data: bytes, room: int) -> Contents:
    """The index of a pack whose frames have `room` bytes. Raises ValueError unless it fits exactly."""
    if len(data) < _COUNTS.size:
        raise ValueError("its index is too short")
    frame_count, entries, run_count = _COUNTS.unpack_from(data)
    at = _COUNTS.size
    sizes_at = at + run_count * _PAIR.size + frame_count * _FRAME.size
    if entries > MOST_ENTRIES or sizes_at + entries * (4 + DIGEST) != len(data):
        raise ValueError("the lengths of its index do not fill it")
    runs = list(_PAIR.iter_unpack(data[at : at + run_count * _PAIR.size]))
    frames = [
        Frame(stored, raw, blobs, codec, check)
        for stored, raw, blobs, codec, zero, check in _FRAME.iter_unpack(
            data[at + run_count * _PAIR.size : sizes_at]
        )
        if not zero
    ]
    sizes = array("I")
    sizes.frombytes(data[sizes_at : sizes_at + entries * 4])
    if sys.byteorder == "big":
        sizes.byteswap()
    contents = Contents(runs, frames, sizes, data[sizes_at + entries * 4 :])
    if len(frames) != frame_count:
        raise ValueError("a frame of it is not one that is known here")
    _check(contents, entries, room)
    return contents


def _check(contents: Contents, entries: int, room: int) -> None:
    behind = 0
    for first, count in contents.runs:
        if not count or first < behind:
            raise ValueError("the numbers of its entries are out of order")
        behind = first + count
    if contents.entries != entries or contents.offsets[-1] != entries or behind > 1 << 32:
        raise ValueError("its frames do not have as many blobs as it has entries")
    if contents.stored != room:
        raise ValueError("its frames do not fill it")
    for number, frame in enumerate(contents.frames):
        sizes = contents.sizes[contents.offsets[number] : contents.offsets[number + 1]]
        if (
            not 0 < frame.blobs <= MOST_BLOBS
            or frame.codec not in (RAW, ZSTD)
            or not 0 < frame.raw <= LARGEST
            or not 0 < frame.stored <= 2 * LARGEST
            or sum(sizes) != frame.raw
            or not min(sizes)
        ):
            raise ValueError(f"frame {number} of it cannot be")


def _bytes(column: "array[int]") -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()
