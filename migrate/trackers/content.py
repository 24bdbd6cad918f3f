"""Writes found by digests: every page is read and compared with what it was. Works anywhere; costs CPU.

One look reads everything, about 1 GiB a second. A digest is BLAKE3's first 16 bytes. A page that
changes between the look and its sending is found by the next look: its digest is of before.
"""

import os
from collections.abc import Mapping

from blake3 import blake3

from ocimig.migrate.memory.runs import PAGE, Run, merge
from ocimig.migrate.memory.spaces import of_process
from ocimig.migrate.trackers import Dirty, maps
from ocimig.runtime.linux import memory, proc

DIGEST = 16
_PIECE = 256  # pages read at once


class _Space:
    """The digests of one process."""

    __slots__ = ("digests", "start_time")

    def __init__(self, start_time: int) -> None:
        self.start_time = start_time
        self.digests: dict[int, bytearray] = {}  # start of a piece -> digests of its pages


class Content:
    """See Tracker."""

    name = "content"

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._spaces: dict[int, _Space] = {}
        self._buffer = bytearray(_PIECE * PAGE)
        self._address = memory.address(self._buffer)
        self._entries = False

    def look(self, tasks: Mapping[int, int], *, final: bool = False) -> list[Dirty]:
        """See Tracker."""
        for pid in set(self._spaces) - set(tasks):
            del self._spaces[pid]
        looks = (self._look_at(pid, inside, final=final) for pid, inside in tasks.items())
        return [dirty for dirty in looks if dirty is not None]

    def close(self) -> None:
        """See Tracker."""
        self._spaces.clear()

    def _look_at(self, pid: int, inside: int, *, final: bool) -> Dirty | None:
        stat, mapped, fd = proc.stat(pid), maps.read(pid), maps.open_pagemap(pid)
        try:
            if stat is None or mapped is None or fd is None:
                return None
            known = self._spaces.get(pid)
            fresh = known is None or known.start_time != stat.start_time
            if known is None or fresh:
                known = _Space(stat.start_time)
                if not final:
                    self._spaces[pid] = known
            populated = self._populated(fd, mapped.eligible)
        finally:
            if fd is not None:
                os.close(fd)
        if final and fresh:
            changed = populated
        else:
            changed = self._compare(pid, known, populated, keep=not final)
        return Dirty(of_process(inside), pid, changed, mapped.eligible, fresh)

    def _populated(self, fd: int, mappings: list[Run]) -> list[Run]:
        if not self._entries:
            try:
                return maps.there(fd, mappings)
            except OSError:  # before Linux 6.7
                self._entries = True
        return maps.there_by_entries(fd, mappings)

    def _compare(self, pid: int, known: _Space, populated: list[Run], *, keep: bool) -> list[Run]:
        changed: list[Run] = []
        span = _PIECE * PAGE
        after: dict[int, bytearray] = {}
        for run_start, run_end in populated:
            start = run_start
            while start < run_end:
                piece = start - start % span
                end = min(run_end, piece + span)
                old = known.digests.get(piece) or bytes(_PIECE * DIGEST)
                new = after.setdefault(piece, bytearray(_PIECE * DIGEST))
                changed += self._digest(pid, (start, end), piece, old, new)
                start = end
        if keep:
            known.digests = after
        return merge(changed)

    def _digest(
        self, pid: int, run: Run, piece: int, old: bytes | bytearray, new: bytearray
    ) -> list[Run]:
        """The changed pages of a run within one piece; their digests go to `new`."""
        try:
            got = memory.process_vm_readv(pid, self._address, [run])
        except OSError:  # it went meanwhile, or may not be read: the sender will find the same
            return [run]
        changed = []
        view = memoryview(self._buffer)
        for at in range(0, got - got % PAGE, PAGE):
            address = run[0] + at
            place = (address - piece) // PAGE * DIGEST
            digest = blake3(view[at : at + PAGE]).digest(DIGEST)
            new[place : place + DIGEST] = digest
            if old[place : place + DIGEST] != digest:
                changed.append((address, address + PAGE))
        if got < run[1] - run[0]:
            changed.append((run[0] + got - got % PAGE, run[1]))
        return changed
