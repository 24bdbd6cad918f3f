"""Pages of a container into a store: read while it runs, put aside while it is frozen, stored afterwards.

Two senders for SourceMemory, which knows what has to be read and when; neither sends anything anywhere.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from blake3 import blake3

from ocimig.files import Fd, write_all
from ocimig.migrate.memory import frames, spaces
from ocimig.migrate.memory.reader import Reader
from ocimig.migrate.memory.runs import PAGE as HOST_PAGE
from ocimig.migrate.memory.runs import Run, merge, subtract, total
from ocimig.migrate.memory.sender import Sent, Witness
from ocimig.migrate.store import segments
from ocimig.migrate.store.blobs import PAGE, ZEROS
from ocimig.migrate.store.packs import Packs
from ocimig.migrate.store.segments import SPAN, Space
from ocimig.migrate.store.snapshot import Snapshot
from ocimig.migrate.store.writer import Writer
from ocimig.migrate.wire import Wire
from ocimig.runtime.linux.memory import address

_PIECE = 1 << 20  # bytes that are read at once
_SEGMENTS = 4  # of the snapshot before that are kept at hand
_nothing = bytearray(PAGE)
Known = tuple[bytes, int, int]  # digest, pack, entry
Work = Iterable[tuple[str, int, list[Run]]]


class Before:
    """The pages of the snapshot before, by address: what did not change is known without a question."""

    def __init__(self, packs: Packs, snapshot: Snapshot) -> None:
        self._packs = packs
        self._where = {
            (name, number): (pack, entry)
            for name, listed in snapshot.spaces.items()
            for number, pack, entry in listed
        }
        self._tables: dict[tuple[str, int], list[Known | None]] = {}

    def page(self, space: str, start: int, pages: int) -> "list[Known | None] | None":
        """For pages of one segment, from an address on; None where there was none of them."""
        key = space, start // SPAN
        if key not in self._where:
            return None
        table = self._tables.get(key)
        if table is None:
            if len(self._tables) >= _SEGMENTS:
                del self._tables[next(iter(self._tables))]
            table = self._tables[key] = self._table(key)
        first = start % SPAN // PAGE
        return table[first : first + pages]

    def _table(self, key: tuple[str, int]) -> list[Known | None]:
        table: list[Known | None] = [None] * segments.PAGES
        blob = self._packs.blob(*self._where[key])
        for piece in segments.decode(key[1], blob):
            if piece.pack == ZEROS:
                continue
            contents = self._packs.contents(piece.pack)
            at = contents.positions(piece.first, piece.pages)
            page = piece.address % SPAN // PAGE
            for count in range(piece.pages):
                digest = contents.digest(at + count)
                table[page + count] = (digest, piece.pack, piece.first + count)
        return table


class Keeper:
    """What is known of the pages of a snapshot in the making. `key` is the store's digest key."""

    def __init__(self, writer: Writer, key: bytes, before: Before | None) -> None:
        self.spaces: dict[str, Space] = {}
        self.read_bytes = 0
        self._writer = writer
        self._key = key
        self._before = before

    def take(self, space: str, runs: Sequence[Run], data: memoryview) -> None:
        """Pages as they were read, run after run; what was known of them is forgotten."""
        self.read_bytes += len(data)
        at = 0
        for start, end in runs:
            while start < end:
                size = min(end, (start // SPAN + 1) * SPAN) - start
                self._take(space, start, data[at : at + size])
                start, at = start + size, at + size

    def _take(self, space: str, start: int, data: memoryview) -> None:
        """Pages of one segment."""
        key = self._key
        count = len(data) // PAGE
        expected = self._before.page(space, start, count) if self._before is not None else None
        # a page that begins with anything but a zero word is not one of zeros
        firsts = data.cast("Q")[:: PAGE // 8].tolist()
        places: list[tuple[int, int]] = [(ZEROS, 0)] * count
        pages: list[memoryview] = []
        digests: list[bytes] = []
        numbers: list[int] = []
        for number in range(count):
            page = data[number * PAGE : (number + 1) * PAGE]
            if not firsts[number] and _nothing == page:
                continue
            digest = blake3(page, key=key).digest()
            before = expected[number] if expected is not None else None
            if before is not None and before[0] == digest:
                places[number] = before[1], before[2]
                continue
            pages.append(page)
            digests.append(digest)
            numbers.append(number)
        if pages:
            for number, place in zip(numbers, self._writer.put_all(pages, digests), strict=True):
                places[number] = place
        self.spaces.setdefault(space, Space()).set(start, places)

    def segments(
        self, wanted: Mapping[str, list[Run]]
    ) -> dict[str, tuple[tuple[int, int, int], ...]]:
        """Store what is known of these runs of each space. Raises KeyError where a page of them is not."""
        return {
            name: tuple(
                (number, *self._writer.put(blob))
                for number, blob in self.spaces.get(name, Space()).encode(runs)
            )
            for name, runs in wanted.items()
        }


class StoreSender:
    """Reads pages and lets a Keeper have them, while the container runs. See source_memory.Sender."""

    def __init__(self, keeper: Keeper, witness: Witness) -> None:
        self.gone: list[tuple[str, list[Run]]] = []
        self._keeper = keeper
        self._witness = witness
        self._known: set[str] = set()
        self._buffer = bytearray(_PIECE)

    def send(self, dirty: Work) -> Sent:
        """See Sender."""
        began = time.monotonic()
        sent = Sent()
        self.gone = []
        for space, pid, runs in dirty:
            for came, data, wanted in _read(space, pid, runs, self._buffer, space in self._known):
                self._witness(space, came, data)
                self._keeper.take(space, came, data)
                missing = subtract(wanted, merge(came))
                if missing:
                    self.gone.append((space, missing))
                    sent.missing += total(missing) // HOST_PAGE
                sent.pages += len(data) // HOST_PAGE
                sent.read_bytes += len(data)
            self._known.add(space)
        sent.wire_bytes = sent.read_bytes
        sent.seconds = time.monotonic() - began
        return sent

    def settle(self, timeout: float | None) -> None:
        """See Sender: nobody is waited for."""

    def lost(self) -> list[tuple[str, int, list[Run]]]:
        """See Sender: there is no link that could break."""
        return []

    def reopen(self, streams: Sequence[Wire]) -> None:
        """See Sender: there is no link."""


class Aside(StoreSender):
    """Puts pages aside in an unlinked file, while the container is frozen; `take_up` stores them."""

    def __init__(self, directory: str, keeper: Keeper) -> None:
        super().__init__(keeper, lambda *_: None)
        self._directory = directory
        self._file = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._pieces: list[tuple[str, list[Run], int]] = []
        self._end = 0
        self.pages = 0

    def send(self, dirty: Work) -> Sent:
        """See Sender."""
        began = time.monotonic()
        sent = Sent()
        for space, pid, runs in dirty:
            for came, data, wanted in _read(space, pid, runs, self._buffer, pinned=True):
                write_all(self._file, data)
                self._pieces.append((space, list(came), self._end))
                self._end += len(data)
                sent.missing += (total(wanted) - len(data)) // HOST_PAGE
                sent.pages += len(data) // HOST_PAGE
        self.pages += sent.pages
        sent.seconds = time.monotonic() - began
        return sent

    def take_up(self) -> None:
        """It runs again: store what was put aside."""
        view = memoryview(self._buffer)
        for space, runs, offset in self._pieces:
            size = total(runs)
            got = 0
            while got < size:
                count = os.preadv(self._file, [view[got:size]], offset + got)
                if not count:
                    raise EOFError(f"what was put aside in {self._directory} ends early")
                got += count
            self._keeper.take(space, runs, view[:size])
        self._pieces.clear()

    def close(self) -> None:
        """Give the file back."""
        with Fd(self._file):
            pass


def _read(
    space: str, pid: int, runs: list[Run], buffer: bytearray, pinned: bool
) -> Iterator[tuple[list[Run], memoryview, list[Run]]]:
    """What is there of the runs, what they hold, and what was wanted, a piece at a time."""
    reader = Reader(pid) if spaces.is_process(space) else Reader.of_file(pid)
    view, at = memoryview(buffer), address(buffer)
    try:
        if pinned:
            reader.pin()
        for piece, _ in frames.cut(runs, len(buffer)):
            came = reader.read(piece, view, at)
            yield came, view[: total(came)], piece
    finally:
        reader.close()
