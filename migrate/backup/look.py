"""The images of a snapshot, to be looked at: what is asked for is read out of the store, and no more.

Images are copied into a spool one by one, when they are first opened. Pages are read where they lie, some or a
segment at a time; where they are is known from the tables of the snapshot alone.
"""

import io
import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, BinaryIO

from ocimig.criu_images.image import MANIFEST
from ocimig.criu_images.opened import Images
from ocimig.criu_images.pages import ANYWHERE, Place
from ocimig.migrate.memory import spaces
from ocimig.migrate.spool import Region, Spool
from ocimig.migrate.store import segments, stream
from ocimig.migrate.store.blobs import BLOCK, PAGE, ZEROS, Run
from ocimig.migrate.store.errors import StoreDamaged
from ocimig.migrate.store.packs import Packs
from ocimig.migrate.store.packs import Piece as Wanted
from ocimig.migrate.store.segments import SPAN, Piece
from ocimig.migrate.store.snapshot import Image, Segment, Snapshot
from ocimig.migrate.store.store import Store

_TABLES = 4  # segments that are kept at hand
_INDEXED = 1 << 20  # entries of packs whose index is kept at hand: 40 MiB
ONCE = 1 << 20  # bytes of a segment that are read by themselves
_LISTS = (("pagemap-shmem-", spaces.of_shared), ("pagemap-", spaces.of_process))


class SnapshotImages(Images):
    """The images of one snapshot. The caller holds the store's shared lock; closing leaves the store open."""

    kind = "snapshot"

    def __init__(self, repository: Store, snapshot: Snapshot) -> None:
        super().__init__(f"{repository.place.words}::{snapshot.id}")
        self.repository = repository
        self.packs = Packs(repository.place, repository.seals)
        self._snapshot = snapshot
        self._spool = Spool()
        self._regions: dict[str, Region] = {}
        told = {"id": snapshot.container, **snapshot.manifest}
        self._documents = {MANIFEST: json.dumps(told).encode()}

    def close(self) -> None:
        """Give the copies back."""
        self._spool.close()

    def origin(self) -> dict[str, Any]:
        """See Images."""
        one = self._snapshot
        return {
            "store": self.repository.place.words, "id": one.id, "container": one.container,
            "host": one.host, "time": one.time, "tags": list(one.tags),
        }  # fmt: skip

    def names(self) -> list[str]:
        """See Images."""
        return sorted(name for name in self._snapshot.images if name.endswith(".img"))

    def exists(self, name: str) -> bool:
        """See Images."""
        return name in self._snapshot.images or name in self._documents

    def open(self, name: str) -> BinaryIO:
        """See Images. Raises StoreDamaged, FileMissing, NoRoomToLook too."""
        if name in self._documents:
            return io.BytesIO(self._documents[name])
        if name not in self._regions:
            self._regions[name] = self._copied(name)
        return self._regions[name].open()

    def _copied(self, name: str) -> Region:
        image = self.image(name)
        try:
            region = self._spool.take(image.size)
            for offset, data in stream.pieces(self.packs, image.runs, image.size):
                region.write(offset, data)
        except ValueError as error:
            raise self.damaged(f"{name}: {error}") from None
        return region

    def image(self, name: str) -> Image:
        """What the snapshot says of an image. Raises BadImage."""
        found = self._snapshot.images.get(name)
        if found is None:
            raise self.refusal(name, "it is missing")
        return found

    def parent(self) -> None:
        """See Images: a snapshot has all of its memory itself."""

    def pages(self, number: int) -> "SavedPages":
        """See Images."""
        return SavedPages(self, f"pages-{number}.img")

    def lent(self, name: str) -> "StoredPages | None":
        """See Images: what CRIU left out, the store has."""
        for prefix, space in _LISTS:
            number = name.removeprefix(prefix).removesuffix(".img")
            if name.startswith(prefix) and number.isascii() and number.isdigit():
                return StoredPages(self, self._snapshot.spaces.get(space(int(number)), ()))
        return None

    def damaged(self, reason: str) -> StoreDamaged:
        """The error about this snapshot."""
        return self.repository.damaged(f"snapshot {self._snapshot.id}", reason)


class SavedPages:
    """Pages that CRIU saved, in blocks of a file. See criu_images.pages.PageFile."""

    def __init__(self, images: SnapshotImages, name: str) -> None:
        self._images = images
        self._name = name

    def read(self, offset: int, size: int) -> bytes:
        """See PageFile."""
        images = self._images
        first = offset // BLOCK
        count = stream.blocks(offset + size) - first
        found = bytearray(count * BLOCK)
        at = 0
        for run in self._runs(first, first + count, offset + size):
            if run.pack == ZEROS:
                at += run.entries * BLOCK
                continue
            for blob in images.packs.blobs([run]):
                if len(blob) > BLOCK:
                    raise images.damaged(f"{self._name}: a block has {len(blob)} bytes")
                found[at : at + len(blob)] = blob
                at += BLOCK
        return bytes(found[offset - first * BLOCK :][:size])

    def places(self, offset: int, size: int) -> Iterator[Place]:
        """See PageFile."""
        at, end = offset, offset + size
        for run in self._runs(offset // BLOCK, stream.blocks(end), end):
            for entry in range(run.first, run.first + run.entries):
                inside = at % BLOCK
                part = min(BLOCK - inside, end - at)
                if run.pack == ZEROS:
                    yield Place(part, ZEROS, ANYWHERE)
                else:
                    yield Place(part, (self._images.repository.id, run.pack, entry), inside)
                at += part

    def close(self) -> None:
        """See PageFile: nothing is held."""

    def _runs(self, first: int, behind: int, end: int) -> Iterator[Run]:
        """The blocks `first` to `behind` (exclusive). Raises BadImage where there is nothing at `end`."""
        image = self._images.image(self._name)
        if wrong := stream.fault(image.runs, image.size):
            raise self._images.damaged(f"{self._name}: {wrong}")
        if end > image.size:
            raise self._images.refusal(self._name, "it is shorter than its list of pages")
        block = 0
        for run in image.runs:
            start, stop = max(block, first), min(block + run.entries, behind)
            if start < stop:
                skipped = 0 if run.pack == ZEROS else start - block
                yield Run(run.pack, run.first + skipped, stop - start)
            block += run.entries


class StoredPages:
    """Pages that the store has and CRIU has not. See criu_images.pages.Lent."""

    def __init__(self, images: SnapshotImages, listed: Sequence[Segment]) -> None:
        self._images = images
        self._listed = listed  # ascending
        self._tables: dict[int, list[Piece]] = {}
        self._start = 0  # the address of what is kept in the window
        self._window = bytearray()
        self._number = -1  # the segment that was read in last
        self._asked = 0  # bytes of it

    def runs(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """See Lent."""
        begin = at = start  # what is between the two is there
        for piece in self._pieces(start, end):
            if piece.address > at:
                if begin < at:
                    yield begin, at, True
                yield at, piece.address, False
                begin = piece.address
            at = piece.address + piece.pages * PAGE
        if begin < at:
            yield begin, at, True
        if at < end:
            yield at, end, False

    def read(self, offset: int, size: int) -> bytes:
        """See PageFile. Raises StoreDamaged and FileMissing too."""
        start = offset // PAGE * PAGE
        end = -(-(offset + size) // PAGE) * PAGE
        if not all(there for _, _, there in self.runs(start, end)):
            raise self._images.damaged(f"it lacks memory at {start:#x}-{end:#x}")
        if start < self._start or end > self._start + len(self._window):
            self._take(start, end)
        return bytes(memoryview(self._window)[offset - self._start :][:size])

    def _take(self, start: int, end: int) -> None:
        """Some pages; of who goes on in a segment all of it. What changed in one backup lies in one frame,
        however it is spread over the segment: a frame would be expanded for every block of it."""
        number = start // SPAN
        self._asked = end - start + (self._asked if number == self._number else 0)
        self._number = number
        if self._asked > ONCE:
            start, end = number * SPAN, max(end, number * SPAN + SPAN)
        self._start, self._window = start, self._fetched(start, end)

    def _fetched(self, start: int, end: int) -> bytearray:
        """The pages that are there; others are zeros."""
        images = self._images
        found = bytearray(end - start)
        wanted = [
            Wanted(Run(piece.pack, piece.first, piece.pages), piece.address - start)
            for piece in self._pieces(start, end)
            if piece.pack != ZEROS
        ]
        left = sum(each.run.entries for each in wanted) * PAGE
        for position, data in images.packs.spread(wanted):
            found[position : position + len(data)] = data
            left -= len(data)
        if left or len(found) != end - start:
            raise images.damaged(f"what it has at {start:#x}-{end:#x} are not pages")
        images.packs.rest(_INDEXED)
        return found

    def places(self, offset: int, size: int) -> Iterator[Place]:
        """See PageFile."""
        for piece in self._pieces(offset, offset + size):
            part = piece.pages * PAGE
            if piece.pack == ZEROS:
                yield Place(part, ZEROS, ANYWHERE)
            else:
                key = self._images.repository.id, piece.pack
                yield Place(part, key, piece.first * PAGE)

    def close(self) -> None:
        """See PageFile: nothing is held."""

    def _pieces(self, start: int, end: int) -> Iterator[Piece]:
        """What of the store lies between two whole pages, cut to them, ascending."""
        at = bisect_left(self._listed, start // SPAN, key=itemgetter(0))
        for place in range(at, len(self._listed)):
            number, pack, entry = self._listed[place]
            if number * SPAN >= end:
                return
            for piece in self._table(number, pack, entry):
                first = max(piece.address, start)
                behind = min(piece.address + piece.pages * PAGE, end)
                if first < behind:
                    skipped = 0 if piece.pack == ZEROS else (first - piece.address) // PAGE
                    pages = (behind - first) // PAGE
                    yield Piece(first, pages, piece.pack, piece.first + skipped)

    def _table(self, number: int, pack: int, entry: int) -> list[Piece]:
        found = self._tables.get(number)
        if found is None:
            try:
                found = segments.decode(number, self._images.packs.blob(pack, entry))
            except ValueError as error:
                raise self._images.damaged(str(error)) from None
            if len(self._tables) >= _TABLES:
                del self._tables[next(iter(self._tables))]
            self._tables[number] = found
            self._images.packs.rest(_INDEXED)
        return found
