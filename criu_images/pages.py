"""Where each page of an address space is: in the pages of this image, of a parent, elsewhere, nowhere. Reads
them in pieces; holds neither a list of pages nor more than a block of them.

A space is named by its list: "pagemap-7.img" is process 7, "pagemap-shmem-5.img" a shared object, by offset.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from ocimig.criu_images import pagemap
from ocimig.criu_images.errors import BadImage
from ocimig.criu_images.opened import ImageDirectory
from ocimig.criu_images.pagemap import PAGE, Entry
from ocimig.files import Fd

SAVED, ELSEWHERE, LOST = "saved", "elsewhere", "lost"
BLOCK = 1 << 20
_HIGHEST = 1 << 63
_ENTRY = 1 << 10


class Piece(NamedTuple):
    """A run of pages that are in one place: bytes `start` to `end` (exclusive).

    SAVED are the bytes at `offset` of `pages`; ELSEWHERE was left out of the dump (docs/formats/pages.md, or
    --lazy-pages); LOST is said to be in a parent that does not have it.
    """

    start: int
    end: int
    where: str
    pages: "Pages | None" = None
    offset: int = 0
    inherited: bool = False  # it is in a parent

    def part(self, start: int, end: int) -> "Piece":
        """What of it lies between two addresses."""
        start, end = max(start, self.start), min(end, self.end)
        return self._replace(start=start, end=end, offset=self.offset + start - self.start)

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """The bytes of a SAVED one with their addresses, a block at a time. Raises BadImage."""
        assert self.pages is not None, self.where
        at = self.start
        while at < self.end:
            size = min(BLOCK - at % BLOCK, self.end - at)
            yield at, self.pages.read(self.offset + at - self.start, size)
            at += size


class Pages:
    """One file of pages, opened when it is first read."""

    def __init__(self, directory: ImageDirectory, number: int) -> None:
        self._directory = directory
        self._name = f"pages-{number}.img"
        self._fd: Fd | None = None
        self._size = 0

    def read(self, offset: int, size: int) -> bytes:
        """Raises BadImage where the file ends before."""
        data = os.pread(self._opened(), size, offset)
        if len(data) != size:
            raise self._directory.refusal(self._name, "it is shorter than its list of pages")
        return data

    def identity(self) -> tuple[int, int]:
        """The same for the same file, by whatever way it was found."""
        found = os.fstat(self._opened())
        return found.st_dev, found.st_ino

    def _opened(self) -> int:
        if self._fd is None:
            self._fd = self._directory.open(self._name)
        return self._fd.number

    def close(self) -> None:
        """Close it, if it was opened."""
        if self._fd is not None:
            self._fd.close()


class Space:
    """One address space, with the parents its pages may be in; a `with` block closes their files."""

    def __init__(self, directory: ImageDirectory, name: str) -> None:
        self.directory = directory
        self.name = name
        self._pages: Pages | None = None
        self._above: Space | None = None

    def __enter__(self) -> "Space":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pages is not None:
            self._pages.close()
        if self._above is not None:
            self._above.__exit__()

    def pieces(self) -> Iterator[Piece]:
        """Every piece, ascending; what is in no piece was never touched, or is in the mapped file.

        Raises BadImage.
        """
        above: _Cursor | None = None
        for entry, offset in self._entries():
            if entry.flags & pagemap.PRESENT:
                yield Piece(entry.start, entry.end, SAVED, self._pages, offset)
            elif not entry.flags & pagemap.PARENT:
                yield Piece(entry.start, entry.end, ELSEWHERE)
            else:
                if above is None:
                    above = _Cursor(self._parent())
                yield from above.cover(entry.start, entry.end)

    def within(self, start: int, end: int) -> Iterator[Piece]:
        """The pieces between two addresses, cut to them."""
        for piece in self.pieces():
            if piece.start >= end:
                return
            if piece.end > start:
                yield piece.part(start, end)

    def _parent(self) -> "Space | None":
        if self._above is None:
            directory = self.directory.parent()
            if directory is None or not directory.exists(self.name):
                return None
            self._above = Space(directory, self.name)
        return self._above

    def _entries(self) -> Iterator[tuple[Entry, int]]:
        """The list, checked: whole pages in ascending order; and where those of it that are here begin."""
        offset = end = 0
        records = self.directory.records(self.name, "pagemap", _ENTRY)
        try:
            number = pagemap.numbers(next(records))[1]
            if self._pages is None:
                self._pages = Pages(self.directory, number)
            for record in records:
                entry = pagemap.entry(record)
                if entry.start < end or entry.start % PAGE or not 0 < entry.end <= _HIGHEST:
                    raise ValueError(f"page {entry.start:#x} is not in order")
                if entry.end == entry.start:
                    continue
                yield entry, offset
                end = entry.end
                if entry.flags & pagemap.PRESENT:
                    offset += end - entry.start
        except (ValueError, KeyError, IndexError, StopIteration) as error:
            raise self.refusal(f"not a list of pages that is known here ({error})") from None

    def refusal(self, reason: str) -> BadImage:
        """The error that names its list."""
        return self.directory.refusal(self.name, reason)


class _Cursor:
    """Goes along a parent's pieces while its child asks for more and more of them."""

    def __init__(self, space: Space | None) -> None:
        self._pieces = iter(space.pieces() if space is not None else ())
        self._at: Piece | None = next(self._pieces, None)

    def cover(self, start: int, end: int) -> Iterator[Piece]:
        """The pieces that make up the range; later calls ask for later ranges."""
        while start < end:
            while self._at is not None and self._at.end <= start:
                self._at = next(self._pieces, None)
            found = self._at
            if found is None or found.start >= end:
                yield Piece(start, end, LOST, inherited=True)
                return
            if found.start > start:
                yield Piece(start, found.start, LOST, inherited=True)
            part = found.part(start, end)._replace(inherited=True)
            yield part
            start = part.end
