"""The memory of a process to look at: searched, extracted. Holds a block of it at a time."""

import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ocimig import files as floor
from ocimig.criu_images import mappings
from ocimig.criu_images.descriptors import Files
from ocimig.criu_images.errors import MemoryElsewhere, NoMapping
from ocimig.criu_images.mappings import Mapping
from ocimig.criu_images.opened import Images
from ocimig.criu_images.pages import BLOCK, SAVED, Piece
from ocimig.files import Fd

LONGEST = 4096  # bytes of a match of a regular expression that crosses from one block into the next
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WHY = {
    "elsewhere": "it was left out of the dump",
    "lost": "no parent, no shared object and no store has it",
}


@dataclass(frozen=True, slots=True)
class Match:
    """`data` at `address`, with what stands before and behind it, as far as it is saved."""

    address: int
    data: bytes
    before: bytes
    behind: bytes
    mapping: Mapping


Finder = Callable[[bytes, int], "tuple[int, int] | None"]


def literal(wanted: bytes) -> Finder:
    """Finds these bytes: in a block, from an offset on, where the next one begins and ends."""

    def find(block: bytes, start: int) -> tuple[int, int] | None:
        at = block.find(wanted, start)
        return None if at < 0 else (at, at + len(wanted))

    return find


def expression(wanted: re.Pattern[bytes]) -> Finder:
    """Finds what the expression matches; empty matches are none."""

    def find(block: bytes, start: int) -> tuple[int, int] | None:
        for match in wanted.finditer(block, start):
            if match.end() > match.start():
                return match.span()
        return None

    return find


def search(
    directory: Images, pid: int, files: Files, find: Finder, context: int = 0
) -> Iterator[Match]:
    """Every match in what is saved of the process's memory, ascending, none overlapping another.

    A match may cross from page to page within a mapping; one of more than LONGEST bytes may be cut, or missed,
    where it crosses into another block. Raises BadImage.
    """
    run = _Run(find, min(context, LONGEST))
    for mapping, piece in mappings.contents(directory, pid, files):
        if piece.where != SAVED:
            continue
        for at, data in piece.blocks():
            if run.mapping is not mapping or at != run.end:
                yield from run.finish()
                run.begin(mapping, at)
            run.data += data
            yield from run.matches(final=False)
    yield from run.finish()


class _Run:
    """Bytes that lie one behind the other in memory, and what of them was not searched yet."""

    def __init__(self, find: Finder, context: int) -> None:
        self.find = find
        self.context = context
        self.mapping: Mapping | None = None
        self.data = bytearray()
        self.start = 0  # the address of data[0]
        self.searched = 0  # offset from which on a match may begin

    @property
    def end(self) -> int:
        """The address behind what is here."""
        return self.start + len(self.data)

    def begin(self, mapping: Mapping, start: int) -> None:
        """Somewhere else."""
        self.mapping, self.start, self.searched = mapping, start, 0
        self.data.clear()

    def finish(self) -> Iterator[Match]:
        """The matches in what is left, for nothing follows."""
        if self.mapping is not None:
            yield from self.matches(final=True)

    def matches(self, *, final: bool) -> Iterator[Match]:
        """What begins early enough to be seen whole; the rest waits for more."""
        if not final and len(self.data) - self.searched < BLOCK // 2:
            return
        border = len(self.data) if final else len(self.data) - LONGEST - self.context
        block = bytes(self.data)
        at = self.searched
        while (found := self.find(block, at)) is not None and found[0] < border:
            at = found[1]
            yield self._match(block, *found)
        self.searched = max(at, border)
        drop = max(0, self.searched - self.context)
        del self.data[:drop]
        self.start += drop
        self.searched -= drop

    def _match(self, block: bytes, start: int, end: int) -> Match:
        assert self.mapping is not None
        return Match(
            self.start + start,
            block[start:end],
            block[max(0, start - self.context) : start],
            block[end : end + self.context],
            self.mapping,
        )


@dataclass(frozen=True, slots=True)
class Extracted:
    """Bytes that were written, and bytes of the range that are holes: zeros, or the mapped file's content."""

    written: int
    holes: int


def extract(
    directory: Images, pid: int, files: Files, chosen: list[tuple[int, int]], target: str
) -> Extracted:
    """Write ranges of memory to a new file, sparse, at their distance from the first one's start.

    Raises MemoryElsewhere, before the file is made, where a page was left out of the dump; NoMapping where
    nothing is mapped; FileExistsError; BadImage.
    """
    start, end = chosen[0][0], chosen[-1][1]
    _require(directory, pid, files, chosen)
    with Fd(os.open(target, _NEW, 0o600)) as output:
        try:
            written = sum(
                put(output, piece, piece.start - start)
                for piece in _chosen(directory, pid, files, chosen)
            )
            os.ftruncate(output, end - start)
        except BaseException:
            os.unlink(target)
            raise
    return Extracted(written, sum(last - first for first, last in chosen) - written)


def put(output: int, piece: Piece, offset: int) -> int:
    """Write a saved piece at an offset of a file, blocks of zeros as holes; its size. Raises BadImage."""
    for at, data in piece.blocks():
        if data.count(0) != len(data):
            os.lseek(output, offset + at - piece.start, os.SEEK_SET)
            floor.write_all(output, data)
    return piece.end - piece.start


def _chosen(
    directory: Images, pid: int, files: Files, chosen: list[tuple[int, int]]
) -> Iterator[Piece]:
    """The pieces in those ranges; both ascend, so a range that is passed is never looked at again."""
    first = 0
    for _, piece in mappings.contents(directory, pid, files):
        while first < len(chosen) and chosen[first][1] <= piece.start:
            first += 1
        for start, end in itertools.islice(chosen, first, None):
            if start >= piece.end:
                break
            yield piece.part(start, end)


def _require(directory: Images, pid: int, files: Files, chosen: list[tuple[int, int]]) -> None:
    found = mappings.of(directory, pid, files)
    if not any(each.start < chosen[-1][1] and chosen[0][0] < each.end for each in found):
        what = f"at {chosen[0][0]:#x}-{chosen[0][1]:#x}"
        raise NoMapping(pid=pid, what=what, path=directory.path)
    for piece in _chosen(directory, pid, files, chosen):
        if piece.where != SAVED:
            raise MemoryElsewhere(
                address=f"{piece.start:#x}", pid=pid, path=directory.path, reason=_WHY[piece.where]
            )


def named(directory: Images, pid: int, files: Files, name: str) -> list[tuple[int, int]]:
    """The ranges of the mappings of that name. Raises NoMapping and BadImage."""
    found = mappings.find(directory, pid, files, name)
    if not found:
        raise NoMapping(pid=pid, what=f"named {name!r}", path=directory.path)
    return [(each.start, each.end) for each in found]
