"""Does a store stay as fast as it was? Snapshots of made-up memory, one after another, no container.

Each snapshot changes a part of the pages, anywhere. Printed are, for some of them: how long it took to
take, what it stored, and how long it takes to read its memory back.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from ocimig.migrate.backup.memory import Before, Keeper
from ocimig.migrate.store import head, local, segments
from ocimig.migrate.store.blobs import PAGE, ZEROS, Run
from ocimig.migrate.store.packs import Packs, Piece
from ocimig.migrate.store.snapshot import Snapshot
from ocimig.migrate.store.store import Store

SPACE = "p1"


class Memory:
    """Pages that tell their number and their version; half of each compresses."""

    def __init__(self, mib: int) -> None:
        self.pages = mib * 256
        self._random = random.Random(1)
        self._noise = [self._random.randbytes(PAGE // 2) for _ in range(251)]
        self._versions = [0] * self.pages

    def page(self, number: int) -> bytes:
        """As it is now."""
        start = number.to_bytes(8, "little") + self._versions[number].to_bytes(8, "little")
        noise = self._noise[(number * 31 + self._versions[number]) % len(self._noise)]
        return start + noise + bytes([65 + number % 26]) * (PAGE - len(start) - len(noise))

    def change(self, part: float) -> list[int]:
        """Write to so many pages, anywhere: their numbers."""
        chosen = self._random.sample(range(self.pages), max(1, int(self.pages * part)))
        for number in chosen:
            self._versions[number] += 1
        return sorted(chosen)


def take(store: Store, memory: Memory, changed: list[int], last: Snapshot | None) -> Snapshot:
    """A snapshot in which only these pages are read, as if a tracker had told which."""
    began = time.perf_counter()
    writer = store.writer()
    before = Before(store.packs, last) if last is not None else None
    keeper = Keeper(writer, store.digest_key, before)
    if last is not None:
        space = keeper.spaces.setdefault(SPACE, segments.Space())
        for piece in _pieces(store.packs, last):
            space.put(piece.address, piece.pages, piece.pack, piece.first)
    for number in changed:
        data = memoryview(bytearray(memory.page(number)))
        keeper.take(SPACE, [(number * PAGE, (number + 1) * PAGE)], data)
    listed = keeper.segments({SPACE: [(0, memory.pages * PAGE)]})
    written = writer.finish()
    writer.close()
    snapshot = Snapshot(
        id=head.hexadecimal(head.fresh_number()), container="bench", host="bench", time=time.time(),
        config={}, manifest={}, images={}, spaces=listed, shared={}, trees=(),
        seconds=time.perf_counter() - began, stored_bytes=written.stored_bytes, pages=memory.pages,
    )  # fmt: skip
    store.add(snapshot)
    return snapshot


def _pieces(packs: Packs, snapshot: Snapshot) -> list[segments.Piece]:
    return [
        piece
        for number, pack, entry in snapshot.spaces[SPACE]
        for piece in segments.decode(number, packs.blob(pack, entry))
    ]


def read(store: Store, snapshot: Snapshot) -> float:
    """Seconds to bring all of its memory into a file in memory; the packs were not opened before."""
    packs = Packs(store.place, store.seals)
    fd = os.memfd_create("bench")
    os.ftruncate(fd, snapshot.pages * PAGE)
    began = time.perf_counter()
    wanted = [
        Piece(Run(piece.pack, piece.first, piece.pages), piece.address)
        for piece in _pieces(packs, snapshot)
        if piece.pack != ZEROS
    ]
    for position, data in packs.spread(wanted):
        os.pwrite(fd, data, position)
    took = time.perf_counter() - began
    os.close(fd)
    return took


def main(argv: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=256, help="of memory")
    parser.add_argument("--snapshots", type=int, default=1000)
    parser.add_argument("--changed", type=float, default=0.01, help="part of the pages, each time")
    options = parser.parse_args(argv)
    place = Path(tempfile.mkdtemp(prefix="ocimig-bench-"))
    try:
        _measure(place, options)
    finally:
        shutil.rmtree(place)
    return 0


def _measure(place: Path, options: argparse.Namespace) -> None:
    store = Store.init(
        local.create(str(place / "store")), None, sealed="none", cache=str(place / "cache")
    )
    memory = Memory(options.mib)
    print(f"{options.mib} MiB, {options.changed:.0%} changed each time")
    print(f"{'snapshot':>8} {'take s':>8} {'MiB':>8} {'read s':>8}")
    last: Snapshot | None = None
    shown = {1, 2, *(10**power for power in range(1, 7)), options.snapshots}
    first: Snapshot | None = None
    for number in range(1, options.snapshots + 1):
        changed = list(range(memory.pages)) if last is None else memory.change(options.changed)
        last = take(store, memory, changed, last)
        first = first or last
        if number in shown:
            print(f"{number:8} {last.seconds:8.2f} {last.stored_bytes / 2**20:8.2f} {read(store, last):8.2f}",
                  flush=True)  # fmt: skip
    assert first is not None
    print(f"and now the first again: {read(store, first):.2f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
