"""Packs are read: their contents, and blobs by frames. Nothing is believed before it was checked."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

import zstandard
from blake3 import blake3

from ocimig.errors import OcimigError
from ocimig.migrate.store import contents as contents_of
from ocimig.migrate.store import head
from ocimig.migrate.store.blobs import ZEROS, Data, Run
from ocimig.migrate.store.contents import CHECK, RAW, ZSTD, Contents
from ocimig.migrate.store.errors import FileMissing, FileShort, StoreDamaged
from ocimig.migrate.store.head import Head
from ocimig.migrate.store.packing import END, TRAILER
from ocimig.migrate.store.place import PACKS, Place
from ocimig.migrate.store.seal import LAST, FileSeal, Sealer

_LARGEST_INDEX = 1 << 30
_SPAN = 4 << 20  # bytes that are read at once
_RECENT = 64  # frames that are kept expanded
_GAP = 128 << 10  # bytes between two frames that are read rather than skipped
_TAIL = 32 << 10  # bytes at the end of a pack that are read at once: a small one's index is in them


class _Opened(NamedTuple):
    name: str
    head: Head
    seal: FileSeal
    contents: Contents
    offsets: list[int]  # of each frame in the file


class Piece(NamedTuple):
    """A run and where its bytes belong: an address, an offset, whatever the caller counts in."""

    run: Run
    position: int


class Packs:
    """The packs of one store."""

    def __init__(self, place: Place, seals: Sealer) -> None:
        self._place = place
        self._seals = seals
        self._names: dict[int, list[str]] = {}
        self._opened: dict[int, _Opened] = {}
        self._recent: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._guard = threading.Lock()
        self._expander = _Expander()
        self.refresh()

    def refresh(self) -> None:
        """Look which packs there are."""
        found: dict[int, list[str]] = {}
        for name in self._place.names(PACKS):
            parsed = head.parse(name, "pack")
            if parsed is not None:
                found.setdefault(parsed[0], []).append(name)
        with self._guard:
            for number in list(self._opened):
                # a pack that was compacted, by us or by others, is another file
                if set(found.get(number, ())) != set(self._names.get(number, ())):
                    del self._opened[number]
        self._names = found

    def rest(self, most: int) -> None:
        """Let go of the indexes that were read first, until those that are kept have at most so many
        entries: who reads much in order needs few of them at a time."""
        with self._guard:
            kept = sum(each.contents.entries for each in self._opened.values())
            while kept > most and len(self._opened) > 1:
                kept -= self._opened.pop(next(iter(self._opened))).contents.entries

    def add(self, name: str, contents: Contents) -> None:
        """A pack that was just written."""
        parsed = head.parse(name, "pack")
        assert parsed is not None
        self._names.setdefault(parsed[0], []).append(name)

    def numbers(self) -> set[int]:
        """Of all packs."""
        return set(self._names)

    def names(self, number: int) -> list[str]:
        """The files of a pack: one, or two where a crash came between them."""
        return list(self._names.get(number, ()))

    def contents(self, number: int) -> Contents:
        """What is in a pack. Raises FileMissing, StoreDamaged."""
        return self._open(number).contents

    def _open(self, number: int) -> _Opened:
        found = self._opened.get(number)
        if found is not None:
            return found
        names = self._names.get(number)
        if not names:
            file = f"pack {head.hexadecimal(number)}"
            raise FileMissing(place=self._place.words, file=file)
        best = self._best(names)
        with self._guard:
            return self._opened.setdefault(number, best)

    def _best(self, names: list[str]) -> _Opened:
        """The one with most entries of those that can be read."""
        found: list[_Opened] = []
        failed: OcimigError | None = None
        for name in names:
            try:
                found.append(self.load(name))
            except (FileMissing, FileShort, StoreDamaged) as error:
                failed = error
        if not found:
            assert failed is not None
            raise failed
        return max(found, key=lambda opened: opened.contents.entries)

    def load(self, name: str) -> _Opened:
        """Read and check the index of one file. Raises FileMissing, FileShort, StoreDamaged."""
        size = self._place.size(PACKS, name)
        try:
            if size < head.SIZE + TRAILER.size:
                raise ValueError("it is too short")
            start = head.read(self._place.read(PACKS, name, 0, head.SIZE), head.PACK)
            parsed = head.parse(name, "pack")
            if parsed is None or parsed[0] != start.number:
                raise ValueError("its name is another pack's")
            if start.sealed != self._seals.sealed:
                raise ValueError("it is not sealed as its store is")
            seal = self._seals.of(start, head.PACK)
            contents = self._index(name, size, seal)
        except ValueError as error:
            raise self._damaged(name, str(error)) from None
        offsets, at = [], head.SIZE
        for frame in contents.frames:
            offsets.append(at)
            at += frame.stored
        return _Opened(name, start, seal, contents, offsets)

    def _index(self, name: str, size: int, seal: FileSeal) -> Contents:
        tail = self._place.read(PACKS, name, max(0, size - _TAIL), min(size, _TAIL))
        begin, stored, raw, codec, zero, digest, end = TRAILER.unpack(tail[-TRAILER.size :])
        if end != END or zero or codec not in (RAW, ZSTD):
            raise ValueError("it does not end as one")
        if begin < head.SIZE or begin + stored + TRAILER.size != size or raw > _LARGEST_INDEX:
            raise ValueError("the lengths of its index do not fill it")
        if begin >= size - len(tail):
            index = tail[-TRAILER.size - stored : -TRAILER.size]
        else:
            index = self._place.read(PACKS, name, begin, stored)
        if blake3(index).digest() != digest:
            raise ValueError("its index was changed")
        return contents_of.decode(
            self._expander.expand(seal.open(LAST, index), raw, codec), begin - head.SIZE
        )

    def _damaged(self, name: str, reason: str) -> StoreDamaged:
        return StoreDamaged(place=self._place.words, file=f"{PACKS}/{name}", reason=reason)

    def position(self, run: Run) -> int:
        """Where a run begins among what is in its pack. Raises FileMissing, FileShort, StoreDamaged."""
        opened = self._open(run.pack)
        try:
            return opened.contents.positions(run.first, run.entries)
        except KeyError:
            raise self._lacks(opened, run) from None

    def _lacks(self, opened: _Opened, run: Run) -> StoreDamaged:
        reason = f"it does not have entries {run.first} to {run.first + run.entries - 1}"
        return self._damaged(opened.name, reason)

    def successor(self, number: int) -> Head:
        """The head of what replaces a pack."""
        return self._open(number).head.again()

    def name(self, number: int) -> str:
        """The file that a pack is read from. Raises as contents()."""
        return self._open(number).name

    def sound(self, number: int, digest_key: bytes) -> tuple[bytearray, list[str]]:
        """Read all of a pack: 1 for each position that can be read and is what its digest says, and what
        is wrong with the others."""
        opened = self._open(number)
        contents = opened.contents
        good, wrong = bytearray(contents.entries), []
        for frame in range(len(contents.frames)):
            first, stop = contents.offsets[frame], contents.offsets[frame + 1]
            try:
                stored = self._place.read(
                    PACKS, opened.name, opened.offsets[frame], contents.frames[frame].stored
                )
                data = memoryview(self._expand(opened, frame, memoryview(stored)))
            except (StoreDamaged, FileShort) as error:
                wrong.append(str(error))
                continue
            starts = _starts(contents, frame)
            for position in range(first, stop):
                at = position - first
                blob = data[starts[at] : starts[at + 1]]
                if blake3(blob, key=digest_key).digest() == contents.digest(position):
                    good[position] = 1
                else:
                    wrong.append(str(self._damaged(opened.name, f"blob {position} is another")))
        return good, wrong

    def spread(self, pieces: Iterable[Piece]) -> Iterator[tuple[int, Data]]:
        """The bytes of many runs, none of ZEROS: (position, bytes), in the order of the packs.

        Each frame is read and expanded once, whatever the order of the pieces. What is yielded holds
        until the next one. Raises FileMissing, FileShort, StoreDamaged.
        """
        by_pack: dict[int, list[Piece]] = {}
        for piece in pieces:
            by_pack.setdefault(piece.run.pack, []).append(piece)
        for number, wanted in by_pack.items():
            yield from self._of_pack(self._open(number), wanted)

    def _of_pack(self, opened: _Opened, pieces: list[Piece]) -> Iterator[tuple[int, Data]]:
        wanted = self._wanted(opened, pieces)
        wanted.sort()
        expanded = self._frames(opened, list(dict.fromkeys(frame for frame, *_ in wanted)))
        current, view, starts = -1, memoryview(b""), [0]
        for frame, first, stop, position in wanted:
            if frame != current:
                current, data = next(expanded)
                view, starts = memoryview(data), _starts(opened.contents, current)
            yield position, view[starts[first] : starts[stop]]

    def _wanted(self, opened: _Opened, pieces: list[Piece]) -> list[tuple[int, int, int, int]]:
        """(frame, first blob in it, behind the last, position) of all these pieces."""
        contents = opened.contents
        offsets, sizes = contents.offsets, contents.sizes
        found: list[tuple[int, int, int, int]] = []
        for run, position in pieces:
            try:
                at = contents.positions(run.first, run.entries)
            except KeyError:
                raise self._lacks(opened, run) from None
            end, frame = at + run.entries, contents.frame_of(at)
            while end > offsets[frame + 1]:
                base, stop = offsets[frame], offsets[frame + 1]
                found.append((frame, at - base, stop - base, position))
                position += sum(sizes[at:stop])
                at, frame = stop, frame + 1
            base = offsets[frame]
            found.append((frame, at - base, end - base, position))
        return found

    def _frames(self, opened: _Opened, frames: list[int]) -> Iterator[tuple[int, bytes]]:
        """These frames, in order, read many at a time; one alone is kept for who asks for its neighbours."""
        if len(frames) == 1:
            yield frames[0], self._lately(opened, frames[0])
            return
        at = 0
        while at < len(frames):
            begin = opened.offsets[frames[at]]
            stop = at
            while stop < len(frames) and self._near(opened, begin, frames, stop):
                stop += 1
            last = frames[stop - 1]
            size = opened.offsets[last] + opened.contents.frames[last].stored - begin
            data = memoryview(self._place.read(PACKS, opened.name, begin, size))
            for number in frames[at:stop]:
                frame = opened.contents.frames[number]
                offset = opened.offsets[number] - begin
                yield number, self._expand(opened, number, data[offset : offset + frame.stored])
            at = stop

    def _lately(self, opened: _Opened, number: int) -> bytes:
        key = opened.name, number
        with self._guard:
            data = self._recent.get(key)
            if data is not None:
                self._recent.move_to_end(key)
                return data
        stored = opened.contents.frames[number].stored
        read = self._place.read(PACKS, opened.name, opened.offsets[number], stored)
        data = self._expand(opened, number, memoryview(read))
        with self._guard:
            self._recent[key] = data
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
        return data

    def _near(self, opened: _Opened, begin: int, frames: list[int], at: int) -> bool:
        start = opened.offsets[frames[at]]
        if start == begin:
            return True
        before = frames[at - 1]
        gap = start - opened.offsets[before] - opened.contents.frames[before].stored
        return gap <= _GAP and start + opened.contents.frames[frames[at]].stored - begin <= _SPAN

    def _expand(self, opened: _Opened, number: int, stored: memoryview) -> bytes:
        frame = opened.contents.frames[number]
        try:
            if blake3(stored).digest(length=CHECK) != frame.check:
                raise ValueError("was changed")
            plain = opened.seal.open(number, stored)
            return self._expander.expand(plain, frame.raw, frame.codec)
        except ValueError as error:
            raise self._damaged(opened.name, f"frame {number} {error}") from None

    def blobs(self, runs: Iterable[Run]) -> Iterator[Data]:
        """See blobs.Origin."""
        for run in runs:
            if run.pack == ZEROS:
                raise ValueError("zeros are in no pack")
            contents = self._open(run.pack).contents
            at = -1
            for _, data in self._of_pack(self._open(run.pack), [Piece(run, 0)]):
                at = contents.position(run.first) if at < 0 else at
                used = 0
                while used < len(data):
                    size = contents.sizes[at]
                    yield data[used : used + size]
                    used, at = used + size, at + 1

    def blob(self, pack: int, entry: int) -> bytes:
        """One blob."""
        return bytes(next(iter(self.blobs([Run(pack, entry, 1)]))))


def _starts(contents: Contents, frame: int) -> list[int]:
    """Where each blob of a frame begins in it, and where the last one ends."""
    sizes = contents.sizes[contents.offsets[frame] : contents.offsets[frame + 1]]
    return list(accumulate(sizes, initial=0))


class _Expander(threading.local):
    """One zstandard decompressor a thread: to make one takes longer than a frame of pages does."""

    def __init__(self) -> None:
        self._own = zstandard.ZstdDecompressor()

    def expand(self, data: bytes, raw: int, codec: int) -> bytes:
        """Raises ValueError unless this many bytes come out."""
        if codec == RAW:
            if len(data) != raw:
                raise ValueError("has another length")
            return data
        try:
            size = zstandard.frame_content_size(data)
            if size != raw:
                raise ValueError("has another length")
            return self._own.decompress(data, max_output_size=max(raw, 1))
        except zstandard.ZstdError as error:
            raise ValueError(f"cannot be expanded: {error}") from None
