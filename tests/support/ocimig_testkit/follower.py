"""A tracker and a process, and what a destination would hold of it by believing the tracker."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ocimig.migrate import trackers
from ocimig.migrate.memory.errors import NoTracker
from ocimig.migrate.memory.runs import PAGE, Run, intersect
from ocimig.migrate.trackers import Dirty, Tracker, maps
from ocimig.runtime.linux import memory
from ocimig_testkit.tracked import Tracked


class Follower:
    """A tracker, and what a destination would hold of one process by believing it."""

    def __init__(self, name: str, target: Tracked) -> None:
        self.target = target
        self.held: dict[int, bytes] = {}
        self.tracker: Tracker = choose(name, target)

    def look(self, *, final: bool = False, fetch: bool = True) -> Dirty:
        """One look; what it reports is fetched."""
        (dirty,) = self.tracker.look({self.target.pid: 7}, final=final)
        assert (dirty.space, dirty.pid) == ("p7", self.target.pid)
        if dirty.fresh:
            self.held.clear()
        if fetch:
            self.fetch(dirty)
        return dirty

    def fetch(self, dirty: Dirty, *, sent: bool = True) -> None:
        """What the sender does."""
        came = content(dirty.pid, dirty.runs)
        if dirty.pid == self.target.pid:
            self.held |= came
        for page, data in came.items() if sent else ():
            self.tracker.sent(dirty.space, [(page, page + PAGE)], memoryview(data))

    def check(self) -> None:
        """Stop the process as a freeze would, look for the last time, and compare every page."""
        os.kill(self.target.pid, signal.SIGSTOP)
        os.waitpid(self.target.pid, os.WUNTRACED)
        dirty = self.look(final=True, fetch=False)
        self.fetch(dirty, sent=False)
        fd = maps.open_pagemap(self.target.pid)
        assert fd is not None
        real = content(self.target.pid, maps.populated(fd, dirty.mappings))
        os.close(fd)
        os.kill(self.target.pid, signal.SIGCONT)
        wrong = [hex(page) for page, data in real.items() if self.held.get(page) != data]
        assert not wrong, f"{len(wrong)} of {len(real)}: {wrong[:5]}"


def choose(name: str, target: Tracked) -> Tracker:
    """The tracker of this name, or a skip."""

    @contextmanager
    def pause() -> Iterator[None]:
        os.kill(target.pid, signal.SIGSTOP)
        os.waitpid(target.pid, os.WUNTRACED)
        yield
        os.kill(target.pid, signal.SIGCONT)

    try:
        return trackers.choose(name, pause=pause)
    except NoTracker as error:
        pytest.skip(str(error))


def content(pid: int, runs: list[Run]) -> dict[int, bytes]:
    """The pages of these runs that can be read."""
    found = {}
    for start, end in runs:
        into = bytearray(end - start)
        try:
            got = memory.process_vm_readv(pid, memory.address(into), [(start, end)])
        except OSError:
            continue
        for at in range(0, got - got % PAGE, PAGE):
            found[start + at] = bytes(into[at : at + PAGE])
    return found


def of(dirty: Dirty, address: int, pages: int = 16) -> list[int]:
    """Numbers of the dirty pages of one mapping."""
    return [
        (page - address) // PAGE
        for start, end in intersect(dirty.runs, [(address, address + pages * PAGE)])
        for page in range(start, end, PAGE)
    ]
