"""Post-copy between two real processes: one that stands still here, one that runs there without its memory."""

import ctypes
import hashlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.errors import OcimigError
from ocimig.migrate.errors import BrokenFrame, LinkLost
from ocimig.migrate.lazy import push
from ocimig.migrate.lazy.handler import PageHandler, held
from ocimig.migrate.lazy.pull import Pull
from ocimig.migrate.lazy.push import Push
from ocimig.migrate.memory import frames
from ocimig.migrate.memory.held import Held
from ocimig.migrate.transport.memory import pair
from ocimig.migrate.wire import Wire
from ocimig_testkit import lazy_target

pytestmark = [pytest.mark.root]

PAGE = lazy_target.PAGE
PAGES = 2048  # 8 MiB
ADDRESS = 0x5000_0000_0000
RUN = (ADDRESS, ADDRESS + PAGES * PAGE)
SPACE = f"p{lazy_target.PID}"


class Moved:
    """The memory here (ours, at ADDRESS), and a target there that has none of it yet."""

    def __init__(self, directory: Path) -> None:
        lazy_target.map_memory(PAGES, ADDRESS)
        self.content = random.Random(2).randbytes((PAGES - 64) * PAGE) + bytes(64 * PAGE)
        ctypes.memmove(ADDRESS, self.content, len(self.content))
        self.lost: list[str] = []
        self.raised: list[BaseException] = []
        self.held = Held()
        self.pull = Pull(self.held)
        self.handler = PageHandler(str(directory / "criu"), lost=self._lost, want=self.pull.want)
        argv = [sys.executable, lazy_target.__file__, str(directory / "criu")]
        self.process = subprocess.Popen(
            [*argv, str(PAGES), str(ADDRESS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.hear() == f"ready {ADDRESS}"
        here, there = pair()
        self.wire, self.far = Wire(here), Wire(there)
        self.thread = threading.Thread(target=self._pull)
        self.thread.start()

    def _pull(self) -> None:
        try:
            self.pull.run(self.far, silence=20)
        except OcimigError as error:
            self.raised.append(error)

    def _lost(self, reason: str) -> None:
        self.process.kill()
        self.process.wait()
        self.lost.append(reason)

    def restore(self) -> None:
        """As CRIU would have, once the source has said what follows."""
        assert list(self.pull.missing(10)) == [lazy_target.PID]
        source = held(self.held.open(SPACE), [RUN])
        self.pull.serve(self.handler, {lazy_target.PID: [source]}, {})
        self.handler.fill()

    def say(self, line: str) -> None:
        """To the target, without waiting for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """Its answer."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def wanted(self, first: int, last: int) -> str:
        """What it should answer to "sum"."""
        return hashlib.sha256(self.content[first * PAGE : last * PAGE]).hexdigest()

    def close(self) -> None:
        """End everything."""
        self.wire.close()
        self.thread.join(20)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.handler.close()
        self.held.close()
        self.far.close()
        lazy_target.unmap_memory(ADDRESS, PAGES)


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[Moved]:
    """One."""
    made = Moved(tmp_path)
    yield made
    made.close()


class Shy(Push):
    """Sends nothing that nobody asks for until it is told to."""

    bold = False

    def _may_send(self) -> bool:
        return self.bold and super()._may_send()


def _run(work: Push) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work.run()
        except OcimigError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def test_all_memory_follows_while_the_container_runs(moved: Moved) -> None:
    """Noise and zeros, every page, and both ends know when it was the last."""
    work = Push(moved.wire, [(SPACE, os.getpid(), [RUN])], silence=20)
    thread, raised = _run(work)
    moved.restore()
    moved.say(f"sum 0 {PAGES}")
    assert moved.hear() == moved.wanted(0, PAGES)
    thread.join(20)
    assert not raised
    assert moved.handler.filled(20)
    assert moved.pull.wait(20)
    assert (work.pages, moved.pull.pages, moved.pull.failure) == (PAGES, PAGES, "")
    assert not moved.lost


def test_what_is_left_is_said_in_as_many_frames_as_it_takes(
    moved: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs scattered over an address space, one a frame: each is waited for, and what lies between is not."""
    monkeypatch.setattr(push, "_RUNS", 1)
    middle = ADDRESS + 1000 * PAGE
    runs = [(ADDRESS, middle), (middle + PAGE, RUN[1])]
    work = Shy(moved.wire, [(SPACE, os.getpid(), runs)], silence=20)
    thread, raised = _run(work)
    assert moved.pull.missing(10) == {lazy_target.PID: runs}
    moved.restore()
    work.bold = True
    for first, last in ((0, 1000), (1001, PAGES)):
        moved.say(f"sum {first} {last}")
        assert moved.hear() == moved.wanted(first, last)
    thread.join(20)
    assert not raised
    assert moved.pull.pages == PAGES - 1


def test_what_somebody_waits_for_comes_before_everything_else(moved: Moved) -> None:
    """A page in the middle, while nothing comes unasked; its neighbours come with it."""
    work = Shy(moved.wire, [(SPACE, os.getpid(), [RUN])], silence=20)
    thread, raised = _run(work)
    moved.restore()
    moved.say("sum 1000 1004")
    assert moved.hear() == moved.wanted(1000, 1004)
    assert work.pages == push.AROUND // PAGE
    assert not moved.handler.filled(0)
    work.bold = True
    moved.say(f"sum 0 {PAGES}")
    assert moved.hear() == moved.wanted(0, PAGES)
    thread.join(20)
    assert not raised


def test_a_link_that_breaks_ends_the_container_and_says_what_was_missing(moved: Moved) -> None:
    """It waits for a page when the link goes: it reads nothing at all."""
    work = Shy(moved.wire, [(SPACE, os.getpid(), [RUN])], silence=20)
    thread, raised = _run(work)
    moved.restore()
    moved.say("sum 0 1")
    assert moved.hear() == moved.wanted(0, 1)
    moved.far.channel.close_write()
    moved.wire.channel.close_write()
    moved.thread.join(20)
    assert moved.handler.filled(20)
    assert moved.lost == [moved.pull.failure]
    assert "its memory was still on memory" in moved.pull.failure
    assert isinstance(moved.raised[0], LinkLost)
    thread.join(20)
    assert isinstance(raised[0], LinkLost)


def test_a_source_that_ends_too_early_is_not_believed(moved: Moved) -> None:
    """Whatever it says: pages are missing."""
    moved.wire.send(push.LEFT, {"space": SPACE}, frames.pack_runs([RUN]))
    moved.wire.send(push.FOLLOW)
    moved.restore()
    moved.wire.send(push.END, {"pages": PAGES})
    assert moved.pull.wait(20)
    assert moved.handler.filled(20)
    assert moved.lost
    assert isinstance(moved.raised[0], BrokenFrame)


def test_no_page_is_written_over_that_the_container_has(moved: Moved) -> None:
    """A page that comes twice, or was never missing, breaks the rules."""
    moved.wire.send(push.LEFT, {"space": SPACE}, frames.pack_runs([RUN]))
    moved.wire.send(push.FOLLOW)
    moved.restore()
    table = frames.table([(ADDRESS, ADDRESS + PAGE, frames.ZERO)])
    for _ in range(2):
        moved.wire.send(frames.PAGES, frames.header(SPACE, 1, 0, compressed=False), table)
    assert moved.pull.wait(20)
    assert "pages came that nobody lacks" in moved.pull.failure
    assert moved.handler.filled(20)
    assert moved.lost
