"""Blobs come into a store: each once. Never decides what belongs into a snapshot."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from blake3 import blake3

from ocimig.migrate.store.blobs import Data
from ocimig.migrate.store.known import Known
from ocimig.migrate.store.packing import Compressors, Pack, check_sizes
from ocimig.migrate.store.packs import Packs
from ocimig.migrate.store.place import Place
from ocimig.migrate.store.seal import Sealer

THREADS = 2
LEVEL = 1  # of zstandard: 3 takes twice as long for a tenth less


@dataclass(slots=True)
class Written:
    """What came into the store so far."""

    blobs: int = 0  # that were new
    raw_bytes: int = 0  # of these
    stored_bytes: int = 0  # packs as they lie there
    known_blobs: int = 0  # that were there already


class Writer:
    """Takes blobs for one snapshot, see blobs.Sink. One thread at a time puts."""

    def __init__(
        self, place: Place, seals: Sealer, packs: Packs, known: Known, digest_key: bytes
    ) -> None:
        self.written = Written()
        self._place = place
        self._seals = seals
        self._packs = packs
        self._known = known
        self._digest_key = digest_key
        self._threads = ThreadPoolExecutor(THREADS, "pack")
        self._compressors = Compressors(LEVEL)
        self._pack: Pack | None = None
        self._here: dict[bytes, int] = {}  # entries of the pack in the making, by digest

    def digest(self, blob: Data) -> bytes:
        """Of a blob, as it is found by."""
        return blake3(blob, key=self._digest_key).digest()

    def put(self, blob: Data) -> tuple[int, int]:
        """See blobs.Sink."""
        check_sizes(blob)
        return self.put_all([blob], [self.digest(blob)])[0]

    def put_all(self, blobs: Sequence[Data], digests: Sequence[bytes]) -> list[tuple[int, int]]:
        """Several at once, whose digests the caller knows: where each lies."""
        here = self._here
        found = self._known.find([each for each in digests if each not in here])
        places: list[tuple[int, int] | None] = []
        new: dict[bytes, Data] = {}
        for blob, digest in zip(blobs, digests, strict=True):
            place = found.get(digest)
            if place is None and digest in here:
                assert self._pack is not None
                place = found[digest] = self._pack.number, here[digest]
            if place is None and digest not in new:
                new[digest] = blob
            else:
                self.written.known_blobs += 1
            places.append(place)
        if not new:
            return [place for place in places if place is not None]
        self._add(list(new.values()), list(new), found)
        return [found[digest] for digest in digests]

    def _add(
        self, blobs: list[Data], digests: list[bytes], found: dict[bytes, tuple[int, int]]
    ) -> None:
        """Blobs that are nowhere yet, each once; where they lie comes into `found`."""
        while blobs:
            if self._pack is None:
                self._pack = Pack(self._place, self._seals, self._threads, self._compressors)
            pack, first = self._pack, self._pack.entries
            count = pack.put_many(blobs, digests)
            for entry, digest in enumerate(digests[:count], first):
                self._here[digest] = entry
                found[digest] = pack.number, entry
            self.written.blobs += count
            self.written.raw_bytes += sum(map(len, blobs[:count]))
            blobs, digests = blobs[count:], digests[count:]
            if pack.full:
                self._close_pack()

    def _close_pack(self) -> None:
        pack, self._pack = self._pack, None
        if pack is None:
            return
        self._here.clear()
        try:
            name, contents = pack.close()
        except BaseException:
            pack.abandon()
            raise
        self._packs.add(name, contents)
        self._known.add(name, pack.number, contents)
        self.written.stored_bytes += self._place.size("packs", name)

    def finish(self) -> Written:
        """Everything that was put is durable afterwards."""
        self._close_pack()
        return self.written

    def close(self) -> None:
        """No more comes; a pack in the making is dropped. The list of known blobs is closed."""
        pack, self._pack = self._pack, None
        if pack is not None:
            pack.abandon()
        self._threads.shutdown()
        self._known.close()
