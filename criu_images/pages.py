"""Where each page of an address space is: in the pages of this image, of a parent, elsewhere, nowhere. Reads
them in pieces; holds neither a list of pages nor more than a block of them.

A space is named by its list: "pagemap-7.img" is process 7, "pagemap-shmem-5.img" a shared object, by offset.
"""

import os
from collections.abc import Hashable, Iterator
from typing import BinaryIO, NamedTuple, Protocol

from ocimig.criu_images import pagemap
from ocimig.criu_images.errors import BadImage
from ocimig.criu_images.opened import Images
from ocimig.criu_images.pagemap import PAGE, Entry

SAVED, ELSEWHERE, LOST = "saved", "elsewhere", "lost"
BLOCK = 1 << 20
ANYWHERE = -1
_HIGHEST = 1 << 63
_ENTRY = 1 << 10


class Place(NamedTuple):
    """`size` bytes, from `at` on in what `key` names: two in one place are the same bytes. ANYWHERE is the place
    of what needs none."""

    size: int
    key: Hashable
    at: int

    def behind(self, size: int) -> "Place":
        """What of it is left behind its first `size` bytes."""
        return Place(self.size - size, self.key, self.at if self.at == ANYWHERE else self.at + size)


class PageFile(Protocol):
    """Pages one behind the other; offsets and sizes in bytes."""

    def read(self, offset: int, size: int) -> bytes:
        """At most BLOCK bytes, all of them. Raises BadImage where they are not there."""
        ...

    def places(self, offset: int, size: int) -> Iterator[Place]:
        """Where these whole pages lie, without reading them."""
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...


class Lent(PageFile, Protocol):
    """Pages that were left out of a dump, with somebody who has them; offsets are their addresses."""

    def runs(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """The range of whole pages in order, start to end of each part, and whether it is there."""
        ...


class Piece(NamedTuple):
    """A run of pages that are in one place: bytes `start` to `end` (exclusive).

    SAVED are the bytes at `offset` of `pages`; ELSEWHERE was left out of the dump (docs/formats/pages.md, or
    --lazy-pages); LOST is said to be in a parent, or in a store, that does not have it.
    """

    start: int
    end: int
    where: str
    pages: PageFile | None = None
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

    def places(self) -> Iterator[Place]:
        """Where the bytes of a SAVED one lie."""
        assert self.pages is not None, self.where
        return self.pages.places(self.offset, self.end - self.start)


class Pages:
    """One file of pages, opened when it is first read."""

    def __init__(self, directory: Images, number: int) -> None:
        self._directory = directory
        self._name = f"pages-{number}.img"
        self._file: BinaryIO | None = None

    def read(self, offset: int, size: int) -> bytes:
        """Raises BadImage where the file ends before."""
        data = os.pread(self._opened(), size, offset)
        if len(data) != size:
            raise self._directory.refusal(self._name, "it is shorter than its list of pages")
        return data

    def places(self, offset: int, size: int) -> Iterator[Place]:
        """See PageFile: the same for the same file, by whatever way it was found."""
        found = os.fstat(self._opened())
        yield Place(size, (found.st_dev, found.st_ino), offset)

    def _opened(self) -> int:
        if self._file is None:
            self._file = self._directory.open(self._name)
        return self._file.fileno()

    def close(self) -> None:
        """Close it, if it was opened."""
        if self._file is not None:
            self._file.close()


class Space:
    """One address space, with the parents its pages may be in; a `with` block closes their files."""

    def __init__(self, directory: Images, name: str) -> None:
        self.directory = directory
        self.name = name
        self._pages: PageFile | None = None
        self._lent: Lent | None = None
        self._above: Space | None = None

    def __enter__(self) -> "Space":
        return self

    def __exit__(self, *error: object) -> None:
        for each in (self._pages, self._lent):
            if each is not None:
                each.close()
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
                yield from self._left_out(entry)
            else:
                if above is None:
                    above = _Cursor(self._parent())
                yield from above.cover(entry.start, entry.end)

    def _left_out(self, entry: Entry) -> Iterator[Piece]:
        if self._lent is None:
            self._lent = self.directory.lent(self.name)
        if self._lent is None:
            yield Piece(entry.start, entry.end, ELSEWHERE)
            return
        for start, end, there in self._lent.runs(entry.start, entry.end):
            yield Piece(start, end, SAVED, self._lent, start) if there else Piece(start, end, LOST)

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
                self._pages = self.directory.pages(number) or Pages(self.directory, number)
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
