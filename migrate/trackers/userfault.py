"""Writes found by asynchronous write protection: exact, and free for pages that are not written.

Each process is made to open a userfaultfd, which comes to us (runtime/arming.py). Its plain memory is
registered with it; a look asks the kernel, in one step, what was written and to protect that again
(PAGEMAP_SCAN). A write to a protected page only takes the mark away: nobody waits for us, and when we
die the kernel closes the descriptors and takes everything back.

A mapping that is not registered is new, moved, or of a new program: everything in it is dirty.
"""

import errno
import mmap
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from ocimig.migrate.memory.runs import PAGE, Run, intersect, merge, subtract, union
from ocimig.migrate.memory.spaces import of_process
from ocimig.migrate.trackers import Dirty, Pause, content, direct, maps
from ocimig.runtime import arming
from ocimig.runtime.errors import NoInit
from ocimig.runtime.linux import kcmp, memory, pagemap, proc, userfaultfd

_FEATURES = userfaultfd.UFFD_FEATURE_WP_ASYNC | userfaultfd.UFFD_FEATURE_WP_UNPOPULATED
_WP = userfaultfd.UFFDIO_REGISTER_MODE_WP
_TRIES = 3  # looks for which a process that could not be armed is tried again


def refusal() -> str:
    """Try all that is needed on ourselves and a child; "" when it works, else why not."""
    page = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    uffd = fd = -1
    try:
        uffd = userfaultfd.userfaultfd()
        userfaultfd.api(uffd, _FEATURES)
        run = [(memory.address(page), memory.address(page) + PAGE)]
        userfaultfd.register(uffd, *run[0], userfaultfd.UFFDIO_REGISTER_MODE_WP)
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        page[0] = 1
        seen = maps.written(fd, run, protect=True), maps.written(fd, run, protect=True)
        if seen != (run, []):
            return "the kernel does not tell what was written"
        return arming.works()
    except NoInit as error:
        return str(error)
    except OSError as error:
        return f"the kernel cannot do it: {error.strerror}"
    finally:
        for opened in (uffd, fd):
            if opened >= 0:
                os.close(opened)
        page.close()


class _Followed:
    """One process and its descriptor."""

    __slots__ = ("named", "start_time", "uffd")

    def __init__(self, start_time: int, uffd: int) -> None:
        self.start_time = start_time
        self.uffd = uffd
        self.named: list[Run] = []  # what the last look was about


class _Gone(Exception):
    """The address space that a descriptor is of exists no more."""


class _Taken(Exception):
    """Somebody else's userfaultfd watches a mapping: whose look comes first takes the marks away."""


def _ended(uffd: int, address: int) -> bool:
    """Whether the address space is no more: UFFDIO_REGISTER says ENOMEM then, as it does for others."""
    try:
        userfaultfd.writeprotect(uffd, address, PAGE, 0)
    except OSError as error:
        return error.errno == errno.ESRCH
    return False


class Userfault:
    """See Tracker. What cannot be followed this way is followed by its content."""

    name = "userfault"

    def __init__(self, pause: Pause | None = None) -> None:
        self.notes: list[str] = []
        self.stopped = 0.0  # seconds that a process stood still for us, at most
        self._followed: dict[int, _Followed] = {}
        self._refused: dict[tuple[int, int], int] = {}  # (pid, start time) -> tries
        self._pause: Pause = pause or nullcontext
        self._others = content.Content()

    def look(self, tasks: Mapping[int, int], *, final: bool = False) -> list[Dirty]:
        """See Tracker."""
        self._forget_the_dead(tasks)
        if not final:
            tasks = {pid: inside for pid, inside in tasks.items() if not self._borrows(pid, tasks)}
        new = set() if final else self._arm([pid for pid in tasks if pid not in self._followed])
        direct_users = set() if final else {pid for pid in self._followed if direct.used(pid)}
        plain = [pid for pid in tasks if pid in self._followed and pid not in direct_users]
        found = [self._look_safely(pid, tasks, new, final=final) for pid in plain]
        if direct_users:
            with self._pause():  # see direct.py
                found += [self._look_safely(pid, tasks, new) for pid in sorted(direct_users)]
            self._settle(direct_users)
        known = [dirty for dirty in found if dirty is not None]
        done = {dirty.pid for dirty in known}
        others = {pid: inside for pid, inside in tasks.items() if pid not in done}
        return known + self._others.look(others, final=final)

    def sent(self, space: str, runs: Sequence[Run], data: memoryview) -> None:
        """See Tracker."""
        self._others.sent(space, runs, data)

    def close(self) -> None:
        """See Tracker."""
        for pid in list(self._followed):
            self._forget(pid)
        self._others.close()

    # ---- whom we follow

    def _forget_the_dead(self, tasks: Mapping[int, int]) -> None:
        for pid, followed in list(self._followed.items()):
            stat = proc.stat(pid) if pid in tasks else None
            if stat is None or stat.start_time != followed.start_time:
                self._forget(pid)

    def _borrows(self, pid: int, tasks: Mapping[int, int]) -> bool:
        """Whether it runs in the memory of another that is looked at (vfork(2), CLONE_VM): a look of its
        own would take away marks of writes after the other's. Should it be met in the freeze, it is a stranger.
        """
        if pid in self._followed or (stat := proc.stat(pid)) is None:
            return False
        others = [stat.ppid] if stat.ppid in tasks else []
        return any(kcmp.same_memory(pid, other) for other in (*others, *self._followed))

    def _forget(self, pid: int) -> None:
        os.close(self._followed.pop(pid).uffd)

    def _arm(self, pids: list[int]) -> set[int]:
        """Follow these from now on; those that it worked for."""
        started = {pid: it.start_time for pid in pids if (it := proc.stat(pid)) is not None}
        wanted = [
            pid for pid, start in started.items() if self._refused.get((pid, start), 0) < _TRIES
        ]
        armed: set[int] = set()
        for pid, answer in arming.arm(wanted).items() if wanted else ():
            if answer.fd < 0:
                if answer.errno != errno.ESRCH:
                    self._refuse(pid, started[pid], answer.reason)
                continue
            self.stopped = max(self.stopped, answer.stopped)
            self._followed[pid] = _Followed(started[pid], answer.fd)
            try:
                userfaultfd.api(answer.fd, _FEATURES)
            except OSError as error:
                self._forget(pid)
                self._refuse(pid, started[pid], str(error.strerror))
            else:
                armed.add(pid)
        return armed

    def _refuse(self, pid: int, start: int, reason: str) -> None:
        tries = self._refused.get((pid, start), 0) + 1
        self._refused[pid, start] = tries
        if tries == _TRIES:
            self._say(pid, reason)

    def _say(self, pid: int, reason: str) -> None:
        self.notes.append(f"process {pid} is followed by its content, which takes longer: {reason}")

    # ---- one process

    def _look_safely(
        self, pid: int, tasks: Mapping[int, int], new: set[int], *, final: bool = False
    ) -> Dirty | None:
        """None when it has ended, runs another program now and cannot be followed, or is not for us."""
        try:
            try:
                return self._look_at(pid, tasks[pid], final=final, fresh=pid in new)
            except _Gone:
                self._forget(pid)
            if final or not self._arm([pid]):
                return None
            return self._look_at(pid, tasks[pid], fresh=True)
        except _Gone:
            self._forget(pid)
        except _Taken:
            self._give_up(pid, "its memory is watched by another userfaultfd")
        return None

    def _look_at(
        self, pid: int, inside: int, *, final: bool = False, fresh: bool = False
    ) -> Dirty | None:
        """None when it has ended, or is not for us. Raises _Gone, _Taken."""
        mapped, fd = maps.read(pid), maps.open_pagemap(pid)
        try:
            if mapped is None or fd is None:
                return None
            if not final and not self._is_for_us(pid, mapped):
                return None
            followed = self._followed[pid]
            if fresh:
                self._register(followed, mapped.areas)
            if final:
                runs, untracked = maps.written_or_strange(fd, mapped.eligible)
                runs = union(runs, untracked)
            else:
                runs = maps.written(fd, mapped.eligible, protect=True)
                if not fresh and mapped.eligible != followed.named:
                    # the marks of what lies between eligible mappings are taken away too, unseen
                    unnamed = subtract(mapped.eligible, followed.named)
                    runs = union(runs, maps.there(fd, unnamed))
                followed.named = mapped.eligible
                untracked = maps.there(fd, mapped.eligible, without=pagemap.PAGE_IS_WPALLOWED)
                if untracked:
                    runs, untracked = self._adopt(followed, fd, mapped, runs, untracked)
        except ProcessLookupError:  # PAGEMAP_SCAN: what we opened is not its address space any more
            raise _Gone from None
        finally:
            if fd is not None:
                os.close(fd)
        return Dirty(of_process(inside), pid, runs, mapped.eligible, fresh, untracked)

    def _adopt(
        self,
        followed: _Followed,
        fd: int,
        mapped: maps.Maps,
        runs: list[Run],
        strange: list[Run],
    ) -> tuple[list[Run], list[Run]]:
        """Follow mappings that nobody follows yet: what is dirty, and what remains without."""
        areas = [area for area in mapped.areas if intersect([area], strange)]
        refused = merge(self._register(followed, areas, moved=True))
        written = maps.written(fd, merge(areas), protect=True)
        left = intersect(strange, refused)
        return union(union(runs, written), subtract(strange, left)), left

    def _register(self, followed: _Followed, areas: list[Run], *, moved: bool = False) -> list[Run]:
        """Let the kernel watch these mappings; those that it will not. Raises _Gone, _Taken."""
        refused: list[Run] = []
        for start, end in areas:
            try:
                userfaultfd.register(followed.uffd, start, end, _WP)
                if moved:
                    # Before Linux 6.14 mremap(2) took old marks of protection along, and pages that
                    # bear one look clean whatever is written to them. This takes them away.
                    userfaultfd.unregister(followed.uffd, start, end)
                    userfaultfd.register(followed.uffd, start, end, _WP)
            except OSError as error:
                if error.errno == errno.ENOMEM and _ended(followed.uffd, start):
                    raise _Gone from None
                if error.errno == errno.EBUSY:
                    raise _Taken from None
                if error.errno not in {errno.EINVAL, errno.ENOENT}:  # these: it went meanwhile
                    refused.append((start, end))
        return refused

    # ---- writes that the processor does not do

    def _is_for_us(self, pid: int, mapped: maps.Maps) -> bool:
        """Whether the page tables tell of every write."""
        if mapped.aio:
            self._give_up(pid, maps.AIO_WRITES)
            return False
        return True

    def _settle(self, pids: set[int]) -> None:
        """Where nothing could be paused, wait for direct reads that began before the look."""
        if self._pause is nullcontext:
            for pid in direct.settle(pids & set(self._followed)):
                self._give_up(pid, "a read past the page cache does not end")

    def _give_up(self, pid: int, reason: str) -> None:
        self._refused[pid, self._followed[pid].start_time] = _TRIES
        self._forget(pid)
        self._say(pid, reason)
