"""A dump without the memory that the destination holds already: whose, which, and what of it was left out.
Decides nothing about memory and reads none of it; `Memory` does.

    query-ext-files   every process stands still: Memory.withhold says which ranges CRIU shall leave out
    (CRIU dumps)      the shared object in it (criu_images/preload/withhold.c) notes the ranges it left out,
                      and we look meanwhile which pages there are in them
    post-dump         Memory.withheld is told exactly those, and they are entered in the images as lazy
"""

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

from ocimig import log
from ocimig.criu_images import assemble
from ocimig.criu_images.withheld import Withheld
from ocimig.files import Fd
from ocimig.migrate.mappings import Mappings
from ocimig.migrate.memory.errors import MemoryUnaccounted
from ocimig.migrate.memory.runs import PAGE, Run, intersect, merge, subtract
from ocimig.migrate.trackers import maps
from ocimig.runtime.linux import proc
from ocimig.runtime.linux.vma_flags import Unavailable, VmaFlags


class Memory(Protocol):
    """Who moves the memory of a container by other means than CRIU's images."""

    def withhold(self, tasks: Mapping[int, int]) -> Mapping[int, Sequence[Run]]:
        """Which ranges (bytes, page aligned, sorted, disjoint) CRIU shall leave out, by host pid.

        `tasks` is every process with memory: host pid → pid in the container's pid namespace. All of them
        are stopped, and stay so until `withheld` returned. Ranges may hold pages that do not exist.
        """
        ...

    def withheld(self, runs: Mapping[int, Sequence[Run]]) -> None:
        """Exactly the pages that CRIU left out, by host pid: from here on they are in no image. What
        this raises lets the container run on."""
        ...


@runtime_checkable
class SharedMemory(Protocol):
    """What a Memory has in addition when it moves memory that processes share (anonymous, memfd, SysV), too."""

    def withhold_shared(self, tasks: Mapping[int, int]) -> Mapping[int, Sequence[Run]]:
        """As Memory.withhold, for shared objects of the kernel's own tmpfs: by inode, runs of offsets."""
        ...

    def withheld_shared(self, runs: Mapping[int, Sequence[Run]]) -> None:
        """As Memory.withheld; CRIU's number of such an object (shmid) is its inode."""
        ...


class Withholding:
    """The memory of one dump."""

    def __init__(self, memory: Memory, directory: str) -> None:
        self._memory = memory
        self._files = Withheld(directory)
        self._tasks: dict[int, int] = {}
        self._words = _words()
        self._mappings = Mappings(self._words)
        self._aside = ThreadPoolExecutor(1, "present")
        self._looking: Future[dict[int, list[Run]]] | None = None
        self.pages = 0  # left out, in all

    def environment(self) -> dict[str, str]:
        """For CRIU. Raises CriuMissing."""
        return self._files.environment()

    def prepare(self, pids: Iterable[int]) -> None:
        """Before the freeze, as short before as can be; takes 13 ms a GiB."""
        self._mappings.look(pids)

    def ask(self, pids: Iterable[int]) -> None:
        """In query-ext-files."""
        self._tasks = tasks(pids)
        for pid, text in self._mappings.texts(self._tasks).items():
            self._files.write_mappings(pid, text)
        wanted = self._memory.withhold(self._tasks)
        shared: Mapping[int, Sequence[Run]] = {}
        if isinstance(self._memory, SharedMemory):
            shared = self._memory.withhold_shared(self._tasks)
        ranges = {
            pid: subtract(list(runs), stack_pages(pid)) for pid, runs in wanted.items() if runs
        }
        self._files.write(ranges, shared)
        self._looking = self._aside.submit(_present, ranges)

    def settle(self, directory: str) -> None:
        """In post-dump. Raises MemoryUnaccounted."""
        self._mappings.start_to_confirm()
        assert self._looking is not None
        there = self._looking.result()
        found = {
            pid: intersect(runs, there[pid]) if pid in there else runs
            for pid, runs in self._files.read().items()
        }
        strangers = set(found) - set(self._tasks)
        if strangers:
            raise MemoryUnaccounted(pid=min(strangers))
        self._memory.withheld(found)
        for pid, inside in self._tasks.items():
            self.pages += assemble.merge(directory, inside, found.get(pid, []))

        shared = self._files.read_shared()
        if shared and isinstance(self._memory, SharedMemory):
            self._memory.withheld_shared(shared)
        for inode, runs in shared.items():
            self.pages += assemble.merge_shared(directory, inode, runs)

    def confirm(self) -> None:
        """Before the one point of commitment: that the mappings were what CRIU was told. Raises
        MappingsChanged. Waits for the kernel to count them, which began in settle()."""
        self._mappings.confirm()

    def close(self) -> None:
        """Remove the two files, whatever became of the dump."""
        self._aside.shutdown()
        if self._words is not None:
            self._words.close()
        self._files.remove()


def _words() -> VmaFlags | None:
    """None where the kernel does not tell its flags of mappings; then smaps does, which takes longer."""
    try:
        return VmaFlags()
    except Unavailable as error:
        log.debug(f"flags of mappings are confirmed by smaps: {error}")
        return None


def _present(ranges: Mapping[int, list[Run]]) -> dict[int, list[Run]]:
    """Which pages there are; nothing where the kernel has no PAGEMAP_SCAN: then CRIU looks page by page, and
    what was left out is noted so."""
    found = {}
    for pid, runs in ranges.items():
        fd = maps.open_pagemap(pid)
        if fd is not None:
            with Fd(fd):
                try:
                    found[pid] = maps.present(fd, runs)
                except OSError as error:
                    if error.errno not in (errno.ENOTTY, errno.EINVAL):
                        raise
    return found


def tasks(pids: Iterable[int]) -> dict[int, int]:
    """Host pid → pid in its own pid namespace, of those that have memory (a zombie has none)."""
    found = {}
    for pid in pids:
        status = proc.status(pid)
        if status is not None and "VmSize" in status:
            found[pid] = int(status.get("NSpid", str(pid)).split()[-1])
    return found


def stack_pages(pid: int) -> list[Run]:
    """The page that the stack pointer of each thread is in: CRIU never restores those lazily (is_stack in
    criu/mem.c), since they are written while the memory of the process is still being put together."""
    found = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/syscall", "rb", buffering=0) as file:
            words = file.read(256).split()
        # "number arguments stack-pointer program-counter", or "-1 stack-pointer program-counter"
        if len(words) >= 3:
            found.add(int(words[-2], 16) // PAGE * PAGE)
    return merge((page, page + PAGE) for page in found)
