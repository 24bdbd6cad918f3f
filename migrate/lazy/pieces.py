"""What one address space still lacks, and where it lies in which file. Pure; never touches memory.

CRIU's own server of lazy pages keeps the same list (criu/uffd.c: lazy_iov); ours is sorted by address
and taken from its end, where taking is cheap.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Piece(NamedTuple):
    """The bytes from `start` to `end` (addresses) lie in file number `file` from `offset` on."""

    start: int
    end: int
    file: int
    offset: int

    def cut(self, start: int, end: int) -> "Piece":
        """The part between two addresses, which has to be inside."""
        return Piece(start, end, self.file, self.offset + start - self.start)

    def moved(self, distance: int) -> "Piece":
        """The same bytes at another address."""
        return Piece(self.start + distance, self.end + distance, self.file, self.offset)


class Pieces:
    """Pieces in the order of their addresses; none overlaps another."""

    __slots__ = ("_items", "_starts")

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self._items = sorted(pieces)
        self._starts = [piece.start for piece in self._items]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Piece]:
        return iter(self._items)

    @property
    def bytes(self) -> int:
        """How much it is."""
        return sum(piece.end - piece.start for piece in self._items)

    def copy(self) -> "Pieces":
        """Another list of the same pieces."""
        other = Pieces()
        other._items = list(self._items)
        other._starts = list(self._starts)
        return other

    def find(self, address: int) -> Piece | None:
        """The piece that an address lies in."""
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self._items[index].end:
            return self._items[index]
        return None

    def within(self, offset: int, end: int) -> list[Piece]:
        """The pieces (parts of them) that lie between two offsets of their file, wherever they have moved.

        Most have not moved: those are found by their address, and only where some are missing all are
        looked through.
        """
        found = [
            piece.cut(max(piece.start, offset), min(piece.end, end))
            for piece in self._between(offset, end)
            if piece.start == piece.offset
        ]
        if sum(piece.end - piece.start for piece in found) < end - offset:
            for piece in self._items:
                low = max(offset, piece.offset)
                high = min(end, piece.offset + piece.end - piece.start)
                if piece.start != piece.offset and low < high:
                    moved = piece.start - piece.offset
                    found.append(piece.cut(low + moved, high + moved))
        return found

    def _between(self, start: int, end: int) -> list[Piece]:
        low = bisect_right(self._starts, start) - 1
        high = bisect_right(self._starts, end - 1)
        return [piece for piece in self._items[max(low, 0) : high] if piece.end > start]

    def last(self) -> Piece | None:
        """The one with the highest address."""
        return self._items[-1] if self._items else None

    def cut(self, start: int, end: int) -> list[Piece]:
        """Take out what lies between two addresses."""
        low = bisect_right(self._starts, start) - 1
        if low < 0 or self._items[low].end <= start:
            low += 1
        high = low
        taken: list[Piece] = []
        kept: list[Piece] = []
        while high < len(self._items) and self._items[high].start < end:
            piece = self._items[high]
            begin, stop = max(piece.start, start), min(piece.end, end)
            taken.append(piece.cut(begin, stop))
            if piece.start < begin:
                kept.append(piece.cut(piece.start, begin))
            if stop < piece.end:
                kept.append(piece.cut(stop, piece.end))
            high += 1
        if taken:
            self._items[low:high] = kept
            self._starts[low:high] = [piece.start for piece in kept]
        return taken

    def put(self, pieces: Iterable[Piece]) -> None:
        """Add pieces where nothing is."""
        for piece in pieces:
            index = bisect_right(self._starts, piece.start)
            self._items.insert(index, piece)
            self._starts.insert(index, piece.start)

    def move(self, start: int, to: int, length: int) -> None:
        """mremap(2): what was at `start` is at `to`; what was there is gone."""
        taken = self.cut(start, start + length)
        self.cut(to, to + length)
        self.put(piece.moved(to - start) for piece in taken)
