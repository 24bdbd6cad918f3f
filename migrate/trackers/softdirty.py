"""Writes found by the kernel's soft-dirty bits, for kernels before 6.7 with CONFIG_MEM_SOFT_DIRTY.

The bits cannot be read and cleared in one step: between the two a write would be lost, so the processes
are paused for each look (30 ms for each GiB or so).
"""

import mmap
import os
from collections.abc import Mapping, Sequence

from ocimig.migrate.memory.runs import PAGE, Run, subtract, union
from ocimig.migrate.memory.spaces import of_process
from ocimig.migrate.trackers import Dirty, Pause, content, maps
from ocimig.runtime.linux import memory, pagemap, proc

_CLEAR_SOFT_DIRTY = b"4"


def refusal() -> str:
    """Try it on ourselves; "" when it works, else why not."""
    page = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = memory.address(page)
    run = [(start, start + PAGE)]
    page[0] = 1
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _clear(os.getpid())
        clean = _written(fd, run)
        page[0] = 2
        if clean or _written(fd, run) != run:
            return "the kernel has no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)"
    except OSError as error:
        return f"the kernel cannot do it: {error.strerror}"
    finally:
        os.close(fd)
        page.close()
    return ""


class SoftDirty:
    """See Tracker. What cannot be followed this way is followed by its content. Clearing the bits again
    on close is not needed: nobody else is told by them."""

    name = "softdirty"

    def __init__(self, pause: Pause) -> None:
        self.notes: list[str] = []
        self._pause = pause
        self._others = content.Content()
        self._given_up: set[tuple[int, int]] = set()  # pid, start time
        self._start: dict[int, int] = {}  # pid -> start time, of those whose bits were cleared
        self._named: dict[int, list[Run]] = {}  # what the last look at these was about

    def look(self, tasks: Mapping[int, int], *, final: bool = False) -> list[Dirty]:
        """See Tracker."""
        for pid in set(self._start) - set(tasks):
            del self._start[pid], self._named[pid]
        if final:
            found = [self._look_at(pid, inside, final=True) for pid, inside in tasks.items()]
        else:
            with self._pause():
                found = [self._look_at(pid, inside, final=False) for pid, inside in tasks.items()]
        known = [dirty for dirty in found if dirty is not None]
        done = {dirty.pid for dirty in known}
        others = {pid: inside for pid, inside in tasks.items() if pid not in done}
        return known + self._others.look(others, final=final)

    def sent(self, space: str, runs: Sequence[Run], data: memoryview) -> None:
        """See Tracker."""
        self._others.sent(space, runs, data)

    def close(self) -> None:
        """See Tracker."""
        self._others.close()
        self._start.clear()
        self._named.clear()

    def _is_for_us(self, pid: int, start_time: int, mapped: maps.Maps, *, final: bool) -> bool:
        """Whether the bits tell of every write. Pausing it does not stop a device that writes for it; what
        was begun after the last look has its bit, and that stays."""
        if mapped.aio and not final and (pid, start_time) not in self._given_up:
            self._given_up.add((pid, start_time))
            self._start.pop(pid, None)
            self._named.pop(pid, None)
            self.notes.append(
                f"process {pid} is followed by its content, which takes longer: {maps.AIO_WRITES}"
            )
        return (pid, start_time) not in self._given_up

    def _look_at(self, pid: int, inside: int, *, final: bool) -> Dirty | None:
        stat, mapped, fd = proc.stat(pid), maps.read(pid), maps.open_pagemap(pid)
        try:
            if stat is None or mapped is None or fd is None:
                return None
            if not self._is_for_us(pid, stat.start_time, mapped, final=final):
                return None
            fresh = self._start.get(pid) != stat.start_time
            # a new mapping, also that of a new program, counts as written until the bits are cleared
            runs = maps.populated(fd, mapped.eligible) if fresh else _written(fd, mapped.eligible)
            if not fresh and not final:  # the bits of what was not eligible were cleared too
                unnamed = subtract(mapped.eligible, self._named[pid])
                runs = union(runs, maps.populated(fd, unnamed))
            if not final:
                _clear(pid)
                self._start[pid], self._named[pid] = stat.start_time, mapped.eligible
        except ProcessLookupError:
            return None
        finally:
            if fd is not None:
                os.close(fd)
        return Dirty(of_process(inside), pid, runs, mapped.eligible, fresh)


def _written(fd: int, mappings: list[Run]) -> list[Run]:
    return maps.there_by_entries(fd, mappings, pagemap.ENTRY_SOFT_DIRTY)


def _clear(pid: int) -> None:
    fd = os.open(f"/proc/{pid}/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, _CLEAR_SOFT_DIRTY)
    finally:
        os.close(fd)
