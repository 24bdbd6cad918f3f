"""Writes found by digests: every page is read and compared with what was sent. Works anywhere; costs CPU.

One look reads everything, about 1 GiB a second. A digest is BLAKE3's first 16 bytes, of the bytes that
were sent, which the sender shows us: that a page is as it was at the last look would not mean that it is
as the other side has it.
"""

import os
from collections.abc import Mapping, Sequence

from blake3 import blake3

from ocimig.migrate.memory.runs import PAGE, Run, intersect, merge, subtract, union
from ocimig.migrate.memory.spaces import of_process
from ocimig.migrate.trackers import Dirty, maps
from ocimig.runtime.linux import proc

DIGEST = 16
_PIECE = 256  # pages read at once
_SPAN = _PIECE * PAGE


class _Space:
    """What of one process was sent."""

    __slots__ = ("digests", "name", "named", "start_time")

    def __init__(self, name: str, start_time: int) -> None:
        self.name = name
        self.start_time = start_time
        self.digests: dict[int, bytearray] = {}  # start of a piece -> digests of its pages
        self.named: list[Run] = []  # what the last look was about

    def take(self, run: Run, data: memoryview) -> None:
        """Remember what was sent of a run."""
        start, end = run
        for at in range(start, end, PAGE):
            piece = at - at % _SPAN
            digests = self.digests.setdefault(piece, bytearray(_PIECE * DIGEST))
            place = (at - piece) // PAGE * DIGEST
            page = data[at - start : at - start + PAGE]
            digests[place : place + DIGEST] = blake3(page).digest(DIGEST)


class Content:
    """See Tracker."""

    name = "content"

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._spaces: dict[int, _Space] = {}
        self._names: dict[str, _Space] = {}
        self._buffer = bytearray(_SPAN)

    def look(self, tasks: Mapping[int, int], *, final: bool = False) -> list[Dirty]:
        """See Tracker."""
        for pid in set(self._spaces) - set(tasks):
            self._forget(pid)
        looks = (self._look_at(pid, inside, final=final) for pid, inside in tasks.items())
        return [dirty for dirty in looks if dirty is not None]

    def sent(self, space: str, runs: Sequence[Run], data: memoryview) -> None:
        """See Tracker."""
        known = self._names.get(space)
        if known is None:
            return
        at = 0
        for start, end in runs:
            known.take((start, end), data[at : at + end - start])
            at += end - start

    def close(self) -> None:
        """See Tracker."""
        self._spaces.clear()
        self._names.clear()

    def _forget(self, pid: int) -> None:
        known = self._spaces.pop(pid)
        if self._names.get(known.name) is known:
            del self._names[known.name]

    def _look_at(self, pid: int, inside: int, *, final: bool) -> Dirty | None:
        stat, mapped, fd = proc.stat(pid), maps.read(pid), maps.open_pagemap(pid)
        try:
            if stat is None or mapped is None or fd is None:
                return None
            known = self._spaces.get(pid)
            fresh = known is None or known.start_time != stat.start_time
            if known is None or fresh:
                known = _Space(of_process(inside), stat.start_time)
                if not final:
                    self._spaces[pid] = self._names[known.name] = known
            populated = maps.populated(fd, mapped.eligible)
            changed = populated if final and fresh else self._compare(pid, known, populated)
            if not final:
                unnamed = subtract(mapped.eligible, known.named)
                changed = union(changed, intersect(populated, unnamed))
                known.named = mapped.eligible
        except (ProcessLookupError, FileNotFoundError):
            return None
        finally:
            if fd is not None:
                os.close(fd)
        return Dirty(of_process(inside), pid, changed, mapped.eligible, fresh)

    def _compare(self, pid: int, known: _Space, populated: list[Run]) -> list[Run]:
        changed: list[Run] = []
        # not process_vm_readv(2): it would take pages apart that the process shares with its children
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for first, last in populated:
                for start in range(first - first % _SPAN, last, _SPAN):
                    run = max(first, start), min(last, start + _SPAN)
                    digests = known.digests.get(start)
                    if digests is None:
                        changed.append(run)
                    else:
                        changed += self._differing(fd, run, start, digests)
        finally:
            os.close(fd)
        return merge(changed)

    def _differing(self, fd: int, run: Run, piece: int, digests: bytearray) -> list[Run]:
        """The pages of a run within one piece that are not as they were sent."""
        view = memoryview(self._buffer)
        try:
            got = os.preadv(fd, [view[: run[1] - run[0]]], run[0])
        except OSError:  # it went meanwhile, or may not be read: the sender will find the same
            return [run]
        changed = []
        for at in range(0, got - got % PAGE, PAGE):
            address = run[0] + at
            place = (address - piece) // PAGE * DIGEST
            digest = blake3(view[at : at + PAGE]).digest(DIGEST)
            if digests[place : place + DIGEST] != digest:
                changed.append((address, address + PAGE))
        if got < run[1] - run[0]:
            changed.append((run[0] + got - got % PAGE, run[1]))
        return changed
