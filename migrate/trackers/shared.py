"""Shared memory, followed by a copy of what was sent: it is compared whole at each look.

Page tables would not do: a process may write to a shared object and be gone, or have detached it, by the
next look, and memfds are written by write(2) too. Comparing runs at memory's speed, and costs as much
memory here as was sent. Reads the objects by /proc/PID/map_files, never through a process.
"""

import errno
import mmap
import os
from collections.abc import Mapping, Sequence

from ocimig.migrate.memory.runs import PAGE, Run, merge
from ocimig.migrate.memory.spaces import is_process, of_shared
from ocimig.migrate.trackers import Dirty, Tracker, maps
from ocimig.runtime.linux import memory

_PIECE = 256 * PAGE  # read at once
_BLOCK = 16 * PAGE  # compared at once


class _Object:
    """One object of shared memory and what was sent of it."""

    def __init__(self, fd: int, *, fixed: bool) -> None:
        self.fd = fd
        self.size = 0
        self.fresh = True
        self._fixed = (
            fixed  # of a memfd the end may come nearer while we read, and end us by SIGBUS
        )
        self._view: mmap.mmap | None = None
        self._copy = mmap.mmap(-1, PAGE)
        self._sent = bytearray()  # one byte a page
        self._buffer = bytearray(_PIECE)

    def _fit(self) -> None:
        """Objects of memfd_create(2) change their size."""
        size = -(-os.fstat(self.fd).st_size // PAGE) * PAGE
        if size == self.size:
            return
        copy = mmap.mmap(-1, max(size, PAGE), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for page in range(0, min(self.size, size), PAGE):
            if self._sent[page // PAGE]:
                copy[page : page + PAGE] = self._copy[page : page + PAGE]
        if self._fixed:  # private, for memory.address wants what can be written; nobody writes
            self._view = mmap.mmap(self.fd, size, mmap.MAP_PRIVATE)
        self.size = size
        self._copy = copy
        self._sent = self._sent[: size // PAGE].ljust(size // PAGE, b"\0")

    def dirty(self) -> list[Run]:
        """The pages that have content and are not as they were sent."""
        self._fit()
        found: list[Run] = []
        for first, last in _data(self.fd, self.size):
            for start in range(first, last, _PIECE):
                found += self._differing(start, min(last, start + _PIECE))
        return merge(found)

    def _here(self, start: int, end: int) -> int:
        """The address where the bytes of a piece lie now."""
        if self._view is not None:
            return memory.address(self._view) + start
        got = os.preadv(self.fd, [memoryview(self._buffer)[: end - start]], start)
        self._buffer[got : end - start] = bytes(end - start - got)
        return memory.address(self._buffer)

    def _differing(self, start: int, end: int) -> list[Run]:
        if not any(self._sent[start // PAGE : end // PAGE]):
            return [(start, end)]
        here, copy = self._here(start, end) - start, memory.address(self._copy)

        def clean(first: int, last: int) -> bool:
            sent = 0 not in self._sent[first // PAGE : last // PAGE]
            return sent and memory.same(here + first, copy + first, last - first)

        return [
            (page, page + PAGE)
            for block in range(start, end, _BLOCK)
            if not clean(block, min(end, block + _BLOCK))
            for page in range(block, min(end, block + _BLOCK), PAGE)
            if not clean(page, page + PAGE)
        ]

    def take(self, run: Run, data: memoryview) -> None:
        """Remember what was sent."""
        start, end = run[0], min(run[1], self.size)
        if start < end:
            self._copy[start:end] = data[: end - start]
            self._sent[start // PAGE : end // PAGE] = b"\1" * ((end - start) // PAGE)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


class WithShared:
    """A tracker that follows processes, and beside them the shared memory they have mapped."""

    def __init__(self, tracker: Tracker) -> None:
        self.name = tracker.name
        self.notes = tracker.notes
        self._tracker = tracker
        self._objects: dict[int, _Object] = {}
        self._refused: set[int] = set()

    def look(self, tasks: Mapping[int, int], *, final: bool = False) -> list[Dirty]:
        """See Tracker. What is mapped by nobody any more is CRIU's."""
        found = self._tracker.look(tasks, final=final)
        inodes = self._mapped(tasks)
        for inode in set(self._objects) - inodes:
            self._objects.pop(inode).close()
        return found + [self._look_at(inode, final=final) for inode in sorted(inodes)]

    def sent(self, space: str, runs: Sequence[Run], data: memoryview) -> None:
        """See Tracker."""
        if is_process(space):
            self._tracker.sent(space, runs, data)
            return
        shared = self._objects.get(int(space[1:]))
        at = 0
        for start, end in runs if shared else ():
            assert shared is not None
            shared.take((start, end), data[at : at + end - start])
            at += end - start

    def close(self) -> None:
        """See Tracker."""
        self._tracker.close()
        for shared in self._objects.values():
            shared.close()
        self._objects.clear()

    def _mapped(self, tasks: Mapping[int, int]) -> set[int]:
        """The objects that some process has mapped, opened."""
        inodes: set[int] = set()
        for pid in tasks:
            for inode, ((start, end), name) in maps.shared(pid).items():
                if inode not in self._objects and inode not in self._refused:
                    self._open(inode, f"/proc/{pid}/map_files/{start:x}-{end:x}", name)
                if inode in self._objects:
                    inodes.add(inode)
        return inodes

    def _open(self, inode: int, path: str, name: str) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # unmapped meanwhile
            return
        except OSError as error:
            self._refused.add(inode)
            self.notes.append(f"shared memory {name} travels in the freeze: {error.strerror}")
            return
        self._objects[inode] = _Object(fd, fixed=not name.startswith("/memfd:"))

    def _look_at(self, inode: int, *, final: bool) -> Dirty:
        shared = self._objects[inode]
        runs = shared.dirty()
        fresh, shared.fresh = shared.fresh, shared.fresh and final
        return Dirty(of_shared(inode), shared.fd, runs, [(0, shared.size)], fresh)


def _data(fd: int, size: int) -> list[Run]:
    """Where the object has pages."""
    found: list[Run] = []
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to its end
                break
            raise
        end = -(-os.lseek(fd, start, os.SEEK_HOLE) // PAGE) * PAGE
        found.append((start - start % PAGE, min(end, size)))
    return merge(found)
