"""What everything in a store is made of: blobs, and runs of references to them. Pure."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

LARGEST = 1 << 18  # bytes of a blob, and of the blobs of one frame
PAGE = 4096  # bytes of a page of memory, whatever the host's are
BLOCK = 1 << 16  # bytes of a block of a file
ZEROS = 0  # pack number of what is zeros only, and therefore in no pack

Data = bytes | bytearray | memoryview


class Run(NamedTuple):
    """`entries` consecutive entries of a pack, or so many pages or blocks of zeros."""

    pack: int
    first: int
    entries: int


class Sink(Protocol):
    """Takes blobs into a store."""

    def put(self, blob: Data) -> tuple[int, int]:
        """Keep a blob of 1 to LARGEST bytes, unless the store has it: its pack and its entry there.

        The bytes are taken before it returns. Raises NoSpace, PlaceFailed."""
        ...


class Origin(Protocol):
    """Gives blobs out of a store."""

    def blobs(self, runs: Iterable[Run]) -> Iterator[Data]:
        """Every blob of the runs, in their order, none of which may be ZEROS; what is yielded holds until
        the next one. Raises StoreDamaged, FileMissing."""
        ...


def joined(references: Iterable[tuple[int, int]]) -> list[Run]:
    """References in order, as few runs as there can be. ZEROS count whatever their entry is."""
    found: list[Run] = []
    pack, first, count = -1, 0, 0
    for place, entry in references:
        if place == pack and (place == ZEROS or entry == first + count):
            count += 1
            continue
        if count:
            found.append(Run(pack, first, count))
        pack, first, count = place, 0 if place == ZEROS else entry, 1
    if count:
        found.append(Run(pack, first, count))
    return found
