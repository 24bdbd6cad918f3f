"""A tree that is captured into a store in memory again and again, and compared each time."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ocimig.migrate.backup.files import Capture, Captured, Frozen, Scanned
from ocimig.migrate.backup.files_restore import restore
from ocimig.migrate.backup.known import Known
from ocimig.migrate.rootfs import shared_mappings
from ocimig_testkit import trees
from ocimig_testkit.memory_store import MemoryStore


def _nothing() -> None:
    pass


class Captures:
    """The tree `here`, snapshots of it, and what the latest one cost."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.here = base / "here"
        self.room = base / "room"
        self.here.mkdir()
        self.room.mkdir(mode=0o700)
        self.store = MemoryStore()
        self.known: dict[str, Known] = {}
        self.scanned: Scanned
        self.frozen: Frozen
        self.facts: dict[str, dict[str, Any]] = {}  # of the tree in the latest freeze
        self._copies = 0

    def blind(self) -> str:
        """Why the kernel does not tell what changes in the tree; empty when it does."""
        with Capture(self.store, str(self.here), room=str(self.room)) as capture:
            return capture.blind

    def go(
        self,
        *,
        running: Callable[[], object] = _nothing,
        thawed: Callable[[], object] = _nothing,
        pids: Iterable[int] = (),
    ) -> Captured:
        """One snapshot; `running` happens after the scan, `thawed` after the freeze."""
        pids = list(pids)
        with Capture(self.store, str(self.here), room=str(self.room), known=self.known) as capture:
            self.scanned = capture.scan(lambda: shared_mappings(pids))
            running()
            self.frozen = capture.freeze(pids)
            self.facts = trees.facts(self.here)
            thawed()
            captured = capture.finish()
            self.known = capture.known()
        return captured

    def check(self, captured: Captured) -> Path:
        """It comes back as it was in the freeze; where."""
        self._copies += 1
        there = self.base / f"there{self._copies}"
        restored = restore(self.store, captured.root, str(there), sync=False)
        found = trees.facts(there)
        for name in {*self.facts, *found}:
            told = self.facts.get(name, {}), found.get(name, {})
            for each in told:
                each.pop("sparse", None)  # zeros that were written come back as a hole
            wrong = [
                what for what in {*told[0], *told[1]} if told[0].get(what) != told[1].get(what)
            ]
            assert not wrong, (name, wrong)
        assert captured.names == restored.names == len(found)
        return there

    def settle(self) -> None:
        """Snapshots until nothing is young: what changed within one tick of the clock is read again."""
        for _ in range(100):
            if not self.go().files:
                return
            os.sync()
        raise AssertionError("the tree never came to rest")
