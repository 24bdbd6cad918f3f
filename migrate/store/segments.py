"""Which pages a space has and where they lie: 4,096 pages to a segment, a segment to a blob. Pure.

docs/formats/store.md has the bytes. A page of a `Space` is (pack, entry), zeros, or absent.
"""

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ocimig.migrate.store.blobs import PAGE, ZEROS

PAGES = 4096  # in one segment
SPAN = PAGES * PAGE  # bytes of addresses

_COUNTS = struct.Struct("<II")
_ABSENT, _ZEROS = 0, 1  # the numbers from 2 on are packs


class Piece(NamedTuple):
    """Consecutive pages from an address (bytes) on, in consecutive entries of a pack, or of zeros."""

    address: int
    pages: int
    pack: int
    first: int


class Space:
    """The pages of one space, in the making. Costs 6 bytes a page of every segment that has any."""

    def __init__(self) -> None:
        self._packs: list[int] = []
        self._numbers: dict[int, int] = {}
        self._segments: dict[int, tuple[array[int], array[int]]] = {}

    def put(self, address: int, pages: int, pack: int, first: int = 0) -> None:
        """These pages are in consecutive entries of a pack now, or zeros where it is ZEROS."""
        which = _ZEROS if pack == ZEROS else self._number(pack)
        page = address // PAGE
        while pages:
            number, inside = divmod(page, PAGES)
            count = min(pages, PAGES - inside)
            packs, entries = self._segment(number)
            packs[inside : inside + count] = array("I", (which,)) * count
            entries[inside : inside + count] = array("I", range(first, first + count))
            page, pages, first = page + count, pages - count, first + count

    def set(self, address: int, places: Iterable[tuple[int, int]]) -> None:
        """Page by page, from an address on: each at its place."""
        page, numbers = address // PAGE, self._numbers
        current = page // PAGES
        packs, entries = self._segment(current)
        for pack, entry in places:
            number, inside = divmod(page, PAGES)
            if number != current:
                current = number
                packs, entries = self._segment(number)
            packs[inside] = _ZEROS if pack == ZEROS else numbers.get(pack) or self._number(pack)
            entries[inside] = entry
            page += 1

    def forget(self) -> None:
        """It has no pages any more."""
        self._segments.clear()

    def encode(self, runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """(number, blob) of each segment, of the pages in these runs (bytes, in order) only.

        Raises KeyError with the address of a page that is in the runs and not here."""
        waiting: list[Piece] = []
        number = -1
        for start, end in runs:
            for piece in self._pieces(start, end):
                if piece.address // SPAN != number:
                    if waiting:
                        yield number, encode(waiting)
                    waiting, number = [], piece.address // SPAN
                last = waiting[-1] if waiting else None
                if last is not None and _goes_on(last, piece):
                    waiting[-1] = last._replace(pages=last.pages + piece.pages)
                else:
                    waiting.append(piece)
        if waiting:
            yield number, encode(waiting)

    def _pieces(self, start: int, end: int) -> Iterator[Piece]:
        page, behind = start // PAGE, end // PAGE
        while page < behind:
            number, inside = divmod(page, PAGES)
            stop = min(PAGES, inside + behind - page)
            found = self._segments.get(number)
            if found is None:
                raise KeyError(page * PAGE)
            packs, entries = found
            while inside < stop:
                which, first, count = packs[inside], entries[inside], 1
                if which == _ABSENT:
                    raise KeyError((number * PAGES + inside) * PAGE)
                while (
                    inside + count < stop
                    and packs[inside + count] == which
                    and (which == _ZEROS or entries[inside + count] == first + count)
                ):
                    count += 1
                pack = ZEROS if which == _ZEROS else self._packs[which - 2]
                entry = 0 if which == _ZEROS else first
                yield Piece((number * PAGES + inside) * PAGE, count, pack, entry)
                inside += count
            page = number * PAGES + stop

    def _segment(self, number: int) -> "tuple[array[int], array[int]]":
        found = self._segments.get(number)
        if found is None:
            found = array("I", bytes(4 * PAGES)), array("I", bytes(4 * PAGES))
            self._segments[number] = found
        return found

    def _number(self, pack: int) -> int:
        number = self._numbers.get(pack)
        if number is None:
            number = self._numbers[pack] = len(self._packs) + 2
            self._packs.append(pack)
        return number


def _goes_on(last: Piece, piece: Piece) -> bool:
    return (
        last.address + last.pages * PAGE == piece.address
        and last.pack == piece.pack
        and (last.pack == ZEROS or last.first + last.pages == piece.first)
    )


def encode(pieces: list[Piece]) -> bytes:
    """The blob of a segment from its pieces, which are in order and all in one segment."""
    packs: dict[int, int] = {}
    starts, counts, which = array("H"), array("H"), array("H")
    firsts = array("I")
    for piece in pieces:
        starts.append(piece.address // PAGE % PAGES)
        counts.append(piece.pages)
        which.append(0 if piece.pack == ZEROS else packs.setdefault(piece.pack, len(packs) + 1))
        firsts.append(0 if piece.pack == ZEROS else piece.first)
    numbers = array("Q", packs)
    columns = [_little(column) for column in (numbers, starts, counts, which, firsts)]
    return b"".join((_COUNTS.pack(len(numbers), len(pieces)), *columns))


def decode(number: int, blob: bytes | bytearray | memoryview) -> list[Piece]:
    """The pieces of segment `number`. Raises ValueError for anything that is not one."""
    if len(blob) < _COUNTS.size:
        raise ValueError("a segment is too short")
    pack_count, run_count = _COUNTS.unpack_from(blob)
    if run_count > PAGES or pack_count > run_count:
        raise ValueError("a segment has more runs than pages")
    if len(blob) != _COUNTS.size + 8 * pack_count + 10 * run_count:
        raise ValueError("the lengths of a segment do not fill it")
    columns: list[array[int]] = []
    at = _COUNTS.size
    for kind, count in (("Q", pack_count), *((kind, run_count) for kind in "HHHI")):
        column = array(kind)
        column.frombytes(blob[at : at + count * column.itemsize])
        if sys.byteorder == "big":
            column.byteswap()
        columns.append(column)
        at += count * column.itemsize
    packs, starts, counts, which, firsts = columns
    if ZEROS in packs:
        raise ValueError("a pack of a segment has the number 0")
    base, behind = number * SPAN, 0
    pieces = []
    for start, count, pack, first in zip(starts, counts, which, firsts, strict=True):
        if start < behind or not count or start + count > PAGES or pack > pack_count:
            raise ValueError("the runs of a segment are out of order")
        behind = start + count
        pieces.append(Piece(base + start * PAGE, count, packs[pack - 1] if pack else ZEROS, first))
    return pieces


def _little(column: "array[int]") -> bytes:
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()
