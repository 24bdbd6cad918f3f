"""Which blobs the snapshots of a store need. Reads segments and directories, nothing else."""

from collections.abc import Iterable

from ocimig.migrate.store import segments, stream, tree
from ocimig.migrate.store.blobs import ZEROS, Run
from ocimig.migrate.store.packs import Packs
from ocimig.migrate.store.snapshot import Snapshot
from ocimig.migrate.store.tree import DIRECTORY


class Marks:
    """What is needed, by pack: a byte for each entry that there was when it was asked for."""

    def __init__(self, packs: Packs) -> None:
        self._packs = packs
        self._used: dict[int, bytearray] = {}
        self._segments: set[tuple[int, int]] = set()
        self._directories: set[tuple[Run, ...]] = set()

    def used(self, pack: int) -> bytearray:
        """1 for each position of a pack (see Contents) that is needed. Raises FileMissing, StoreDamaged."""
        found = self._used.get(pack)
        if found is None:
            found = self._used[pack] = bytearray(self._packs.contents(pack).entries)
        return found

    def packs(self) -> set[int]:
        """Those of which anything is needed."""
        return set(self._used)

    def add(self, each: Snapshot) -> None:
        """Mark all that a snapshot needs. What other snapshots share with it is looked at once.

        Raises FileMissing, FileShort, StoreDamaged where something of it is not there, ValueError where
        something is not what it should be.
        """
        self.runs(each.runs())
        for listed in each.spaces.values():
            for number, pack, entry in listed:
                if (pack, entry) not in self._segments:
                    blob = self._packs.blob(pack, entry)
                    pieces = segments.decode(number, blob)
                    self.runs(Run(piece.pack, piece.first, piece.pages) for piece in pieces)
                    self._segments.add((pack, entry))
        for one in each.trees:
            root = one.node()
            self._tree(root.runs, root.size)

    def runs(self, runs: Iterable[Run]) -> None:
        """Mark these. Raises KeyError's cousin StoreDamaged where a pack does not have them."""
        for run in runs:
            if run.pack != ZEROS:
                at = self._packs.position(run)
                self.used(run.pack)[at : at + run.entries] = b"\1" * run.entries

    def _tree(self, root: tuple[Run, ...], size: int) -> None:
        pending = [(root, size)]
        while pending:
            runs, size = pending.pop()
            if runs in self._directories:
                continue
            self.runs(runs)
            for node in tree.nodes(part for _, part in stream.pieces(self._packs, runs, size)):
                if node.type == DIRECTORY:
                    pending.append((node.runs, node.size))
                else:
                    self.runs(node.runs)
            self._directories.add(runs)
