"""Our server of lazy pages against a real userfaultfd: what comes late is what was there, whatever happens."""

import hashlib
import mmap
import os
import queue
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocimig.migrate.lazy import mark
from ocimig.migrate.lazy.handler import PageHandler, held
from ocimig_testkit import lazy_target, until

pytestmark = [pytest.mark.root]

PAGE = mmap.PAGESIZE
PAGES = 4096  # 16 MiB
Pages = tuple[int, int]  # numbers of pages, the second exclusive


class Late:
    """A target, the memory that it shall have, and the handler that gives it."""

    def __init__(
        self, directory: Path, holes: tuple[Pages, ...] = (), *, later: Pages = (0, 0)
    ) -> None:
        self.lost: list[str] = []
        self.wants: queue.Queue[tuple[int, int]] = queue.Queue()
        self.handler = PageHandler(str(directory / "criu"), lost=self._lost, want=self._want)
        argv = [sys.executable, lazy_target.__file__, str(directory / "criu"), str(PAGES)]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.start = int(self._hear().split()[1])
        self.content = bytearray(random.Random(1).randbytes(PAGES * PAGE))
        runs, at = [], 0
        for first, last in (*holes, (PAGES, PAGES)):
            runs.append((self.start + at * PAGE, self.start + first * PAGE))
            self.zero(first, last)
            at = last
        self.memory = os.memfd_create("held")
        for start, end in runs:
            self._write(start, end)
        away = [(self.start + later[0] * PAGE, self.start + later[1] * PAGE)]
        os.pwrite(self.memory, bytes(away[0][1] - away[0][0]), away[0][0])
        self.handler.serve(
            {lazy_target.PID: [held(self.memory, runs)]},
            later={lazy_target.PID: away} if later[1] else {},
        )

    def _write(self, start: int, end: int) -> None:
        os.pwrite(self.memory, self.content[start - self.start : end - self.start], start)

    def _lost(self, reason: str) -> None:
        self.process.kill()
        self.process.wait()
        self.lost.append(reason)

    def _want(self, pid: int, run: tuple[int, int]) -> None:
        assert pid == lazy_target.PID
        self.wants.put(run)

    def bring(self, start: int, end: int) -> None:
        """The other host has sent it."""
        self._write(start, end)
        self.handler.arrived(lazy_target.PID, [(start, end)])

    def zero(self, first: int, last: int) -> None:
        """These pages shall read as zeros."""
        self.content[first * PAGE : last * PAGE] = bytes((last - first) * PAGE)

    def wanted(self, first: int = 0, last: int = PAGES) -> str:
        """What the target should say to "sum"."""
        return hashlib.sha256(self.content[first * PAGE : last * PAGE]).hexdigest()

    def _hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, line: str) -> None:
        """Without waiting for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, line: str) -> str:
        """What it answers."""
        self.say(line)
        return self._hear()

    def kill_handler(self) -> None:
        """SIGKILL, and wait until another one is there."""
        pid = until(lambda: self.handler.pid, "a handler")
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.handler.pid not in (0, pid), "another handler")

    def close(self) -> None:
        """End everything."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.handler.close()
        os.close(self.memory)


@pytest.fixture
def late(tmp_path: Path) -> Iterator[Callable[..., Late]]:
    """Makes one."""
    made: list[Late] = []

    def make(*holes: Pages, later: Pages = (0, 0)) -> Late:
        made.append(Late(tmp_path, holes, later=later))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_pages_come_when_they_are_read_and_holes_are_zeros(late: Callable[..., Late]) -> None:
    """Without any filling ahead: every page by a fault."""
    target = late((100, 200), (1000, 1001))
    assert target.ask(f"sum 0 {PAGES}") == target.wanted()
    assert not target.handler.filled(0)


def test_everything_comes_ahead_of_the_faults_and_the_file_is_given_back(
    late: Callable[..., Late],
) -> None:
    """After `filled` nobody is needed any more: the descriptors are closed, the memory is the target's."""
    target = late((100, 200))
    target.handler.fill()
    assert target.handler.filled(20)
    assert os.fstat(target.memory).st_blocks * 512 < PAGES * PAGE // 100
    target.handler.close()
    assert target.ask(f"sum 0 {PAGES}") == target.wanted()
    assert target.handler.outcome.faults == 0


def test_a_handler_that_is_killed_is_replaced_and_no_page_is_lost(
    late: Callable[..., Late],
) -> None:
    """Three times while the target reads; a fault that the dead one had taken is asked for again."""
    target = late()
    target.say(f"sum 0 {PAGES}")
    for _ in range(3):
        target.kill_handler()
    target.handler.fill()
    assert target._hear() == target.wanted()
    assert target.handler.filled(20)
    assert target.handler.outcome.restarts == 3
    assert not target.lost


def test_what_was_given_up_stays_zero_even_for_the_next_handler(late: Callable[..., Late]) -> None:
    """MADV_DONTNEED before the page came: it must never come."""
    target = late()
    assert target.ask("drop 10 30") == "done"
    target.zero(10, 30)
    target.kill_handler()
    target.handler.fill()
    assert target.handler.filled(20)
    assert target.ask(f"sum 0 {PAGES}") == target.wanted()


def test_memory_that_was_moved_comes_to_its_new_place(late: Callable[..., Late]) -> None:
    """mremap(2), also when another handler takes over after it."""
    target = late()
    assert target.ask("move 64 128") == "done"
    target.kill_handler()
    assert target.ask("sum-moved") == target.wanted(64, 128)
    assert target.ask("sum 0 64") == target.wanted(0, 64)


def test_a_child_has_the_memory_that_had_not_come_when_it_was_forked(
    late: Callable[..., Late],
) -> None:
    """Its pages come by themselves, and the file is not given back under it."""
    target = late()
    assert target.ask(f"fork 0 {PAGES}") == target.wanted()
    target.handler.fill()
    assert target.ask(f"sum 0 {PAGES}") == target.wanted()
    assert target.handler.filled(20)
    assert target.handler.outcome.forks == 1


def test_memory_that_was_unmapped_is_nobodys_any_more(late: Callable[..., Late]) -> None:
    """It does not hinder the end."""
    target = late()
    assert target.ask("unmap 0 2000") == "done"
    target.handler.fill()
    assert target.handler.filled(20)
    assert target.ask(f"sum 2000 {PAGES}") == target.wanted(2000)


def test_a_target_that_is_killed_ends_the_handler(late: Callable[..., Late]) -> None:
    """No memory is lost with it."""
    target = late()
    target.process.kill()
    target.process.wait()
    target.handler.fill()
    assert target.handler.filled(20)
    assert not target.lost


def test_a_handler_that_dies_again_and_again_ends_the_container(late: Callable[..., Late]) -> None:
    """Zeros are worse than an end: `lost` is called while the memory is still watched."""
    target = late()
    for _ in range(5):
        target.kill_handler()
    os.kill(target.handler.pid, signal.SIGKILL)
    assert target.handler.filled(20)
    assert target.lost == ["the page handler died again and again"]


def test_the_sign_of_missing_memory_ends_when_it_is_there(
    late: Callable[..., Late], tmp_path: Path
) -> None:
    """Whoever wants to dump the container can wait for it."""
    assert mark.wait(str(tmp_path))
    target = late()
    target.handler.mark(str(tmp_path))
    assert not mark.wait(str(tmp_path), 0.05)
    target.handler.fill()
    assert mark.wait(str(tmp_path), 20)
    assert not (tmp_path / mark.NAME).exists()


def test_a_page_that_is_still_elsewhere_is_asked_for_and_waited_for(
    late: Callable[..., Late],
) -> None:
    """Post-copy: whoever touches it sleeps until it was sent; everything else goes on."""
    target = late(later=(50, 60))
    target.handler.fill()
    target.say("sum 40 70")
    for page in range(50, 60):
        wanted = (target.start + page * PAGE, target.start + (page + 1) * PAGE)
        assert target.wants.get(timeout=10) == wanted
        assert not target.handler.filled(0)
        target.bring(*wanted)
    assert target._hear() == target.wanted(40, 70)
    assert target.handler.filled(20)


def test_pages_that_are_sent_unasked_fill_the_rest(late: Callable[..., Late]) -> None:
    """The end comes when the last one has come, also for the handler after one that died."""
    target = late(later=(0, PAGES))
    target.handler.fill()
    middle = target.start + PAGES // 2 * PAGE
    target.bring(target.start, middle)
    target.kill_handler()
    assert target.ask("sum 0 2048") == target.wanted(0, 2048)
    assert not target.handler.filled(0.1)
    target.bring(middle, target.start + PAGES * PAGE)
    assert target.handler.filled(20)
    assert target.ask(f"sum 0 {PAGES}") == target.wanted()


def test_memory_that_moved_before_it_was_sent_finds_its_place(late: Callable[..., Late]) -> None:
    """The other host knows it only by its old address."""
    target = late(later=(0, PAGES))
    assert target.ask("move 64 128") == "done"
    target.say("sum-moved")
    assert target.wants.get(timeout=10)[0] == target.start + 64 * PAGE
    target.bring(target.start, target.start + PAGES * PAGE)
    assert target._hear() == target.wanted(64, 128)


def test_when_the_other_host_is_gone_the_container_ends_and_says_why(
    late: Callable[..., Late],
) -> None:
    """It sleeps over a page that will never come; zeros would be worse."""
    target = late(later=(0, 10))
    target.handler.fill()
    target.say("sum 0 10")
    target.wants.get(timeout=10)
    target.handler.fail("the link to the source is lost")
    assert target.handler.filled(20)
    assert target.lost == ["the link to the source is lost"]
    assert target._hear() == ""


def test_a_dead_link_is_nothing_to_a_container_that_has_everything(
    late: Callable[..., Late],
) -> None:
    """All pages had come before."""
    target = late(later=(0, 10))
    target.bring(target.start, target.start + 10 * PAGE)
    target.handler.fail("the link to the source is lost")
    target.handler.fill()
    assert target.handler.filled(20)
    assert not target.lost
