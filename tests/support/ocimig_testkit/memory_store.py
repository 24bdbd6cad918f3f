"""A store in memory: what blobs.Sink and blobs.Origin ask for, and a count of what was asked."""

from collections.abc import Iterable, Iterator

from ocimig.migrate.store.blobs import LARGEST, ZEROS, Data, Run

PACK = 0xFEDCBA9876543210  # as large as numbers of packs get


class MemoryStore:
    """Blobs by content, each once, `entries` to a pack."""

    def __init__(self, entries: int = 100) -> None:
        self.packs: dict[int, list[bytes]] = {}
        self.put_bytes = 0  # that were offered
        self.new_bytes = 0  # that were not there
        self.asked = 0  # blobs
        self._entries = entries
        self._places: dict[bytes, tuple[int, int]] = {}

    def put(self, blob: Data) -> tuple[int, int]:
        """See blobs.Sink."""
        raw = bytes(blob)
        assert 1 <= len(raw) <= LARGEST
        self.put_bytes += len(raw)
        if (place := self._places.get(raw)) is not None:
            return place
        number = PACK + len(self.packs) - 1
        if not self.packs or len(self.packs[number]) == self._entries:
            number += 1
            self.packs[number] = []
        self.packs[number].append(raw)
        self.new_bytes += len(raw)
        place = self._places[raw] = number, len(self.packs[number]) - 1
        return place

    def blobs(self, runs: Iterable[Run]) -> Iterator[Data]:
        """See blobs.Origin. What is yielded is wiped at the next one."""
        for run in runs:
            assert run.pack != ZEROS
            for blob in self.packs[run.pack][run.first : run.first + run.entries]:
                self.asked += 1
                lent = bytearray(blob)
                yield lent
                lent[:] = b"\xee" * len(lent)
