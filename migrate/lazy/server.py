"""The page handler itself: a process that puts memory where CRIU left it out. Hears nothing from CRIU.

    guard                                   handler
    space {pid, files…} file… table…       →            where the pages of one address space lie
    task {serial, pid} uffd                →            one restored task; faults are answered from now on
    later {pid} table                      →            which of it is not there yet (post-copy)
    arrived {pid} table                    →            these places of its file are there now
    hot {pid} table                        →            hot pages of a space, most urgent first
    mark {} lock                           →            held open until the end (mark.py)
    criu {} socket                         →            CRIU's connection, held open until CRIU closes it
    fill {}                                →            everything is restored: fill ahead of the faults
    touch {}                               →            the same, but only what is touched, and what is near it
    resume {}                              →            after a restart: replay the record of events
                                           ← fork {serial, parent, pid} uffd
                                           ← want {pid, start, end} somebody waits for it
                                           ← done {serial}          this address space has everything
                                           ← filled {bytes, faults, forks}    the end
                                           ← lost {reason}          it cannot go on

One thread reads events and copies: an event changes what may be copied where, from the moment it is read.
"""

import errno
import gc
import os
import select
import signal
from collections import deque
from typing import Any

from ocimig.files import Fd
from ocimig.migrate.lazy import channel as channels
from ocimig.migrate.lazy import events
from ocimig.migrate.lazy.channel import Channel
from ocimig.migrate.lazy.fill import Files, NoMemory, Task, TaskGone
from ocimig.migrate.lazy.pieces import Pieces
from ocimig.migrate.memory.runs import Run
from ocimig.runtime.linux import process, userfaultfd

CHILD = 1 << 20  # serials of forked address spaces begin here
_PAUSE = 0.01  # seconds before another try where there was no memory
_MANY = 32  # address spaces that may have ended unseen, before it is looked
_AT_ONCE = 16  # events of one task before the others have their turn


class Server:
    """All tasks of one restored container."""

    def __init__(self, channel: Channel, record: events.Record) -> None:
        self.channel = channel
        self.record = record
        self.files = Files()
        self.spaces: dict[int, Pieces] = {}
        self.later: dict[int, Pieces] = {}
        self.asked: set[tuple[int, int]] = (
            set()
        )  # pages that were asked for: pid, place in the file
        self.hot: dict[int, list[Run]] = {}
        self.tasks: dict[int, Task] = {}
        self.gone: dict[int, Task] = {}  # after a restart: ended before it, kept for the replay
        self.begun = False  # everything is restored
        self.filling = False  # ahead of the faults
        self.guarded = True
        self.copied = 0
        self.faults = 0
        self.forks = 0
        self._short = False
        self._many = _MANY
        self._mark: list[int] = []  # held open until the end
        self._criu: list[int] = []
        self._epoll = select.epoll()
        self._epoll.register(channel, select.EPOLLIN)
        self._turns: deque[int] = deque()
        self._by_uffd: dict[int, Task] = {}

    def run(self) -> None:
        """Serve until every task has everything."""
        while not (self.begun and not self.tasks):
            for fd, _ in self._epoll.poll(self._patience()):
                if fd == self.channel.fileno():
                    self._obey()
                elif fd in self._by_uffd:
                    self._listen(self._by_uffd[fd])
            for task in list(self.tasks.values()):
                if task.waits:
                    self._try(task, task.again)
            if self.filling:
                self._fill()
            elif self.begun:
                self._end_whole()
        self._say({"did": "filled", "bytes": self.copied, "faults": self.faults,
                   "forks": self.forks})  # fmt: skip
        self._see_off()

    def _see_off(self) -> None:
        """Stay until CRIU has done its work: without a guard its connection has no other holder, and CRIU
        kills what it restored when its last word finds nobody."""
        for fd in self._criu:
            while os.read(fd, 64):
                pass

    def _patience(self) -> float | None:
        """Seconds to wait for an event; None for ever."""
        if self._short:
            return _PAUSE
        if self.filling and any(task.pieces or not task.later for task in self.tasks.values()):
            return 0
        return _PAUSE if any(task.waits for task in self.tasks.values()) else None

    # -- the guard ----------------------------------------------------------------------------------

    def _obey(self) -> None:
        message = self.channel.receive()
        if message is None:
            # The guard has ended: what was begun is finished without one. Where it had not got so far,
            # CRIU has ended too, and so do the tasks.
            self._epoll.unregister(self.channel)
            self.guarded = False
            self._begin()
            return
        document, fds = message
        do = document["do"]
        if do == "space":
            self._add_space(document, fds)
        elif do == "task":
            self._add_task(document, fds)
        elif do == "resume":
            self._resume()
        elif do == "hot":
            self.hot[int(document["pid"])] = _runs(fds[0])
        elif do == "later":
            self._put_off(int(document["pid"]), _runs(fds[0]))
        elif do == "arrived":
            self._arrived(int(document["pid"]), _runs(fds[0]))
        elif do == "fill":
            self._begin()
        elif do == "touch":
            self._begin(fill=False)
        elif do == "mark":
            self._mark = fds
        elif do == "criu":
            self._criu = fds

    def _add_space(self, document: dict[str, Any], fds: list[int]) -> None:
        count = len(document["files"])
        with Fd(fds[count]) as table:
            pieces = channels.from_table(table)
        tables = iter(fds[count + 1 :])
        for number, fd, punch, known in zip(
            document["files"], fds[:count], document["punch"], document["holes"], strict=True
        ):
            mine = [piece for piece in pieces if piece.file == number]
            holes = _runs(next(tables)) if known else None
            self.files.add(number, fd, mine, punch=punch, holes=holes)
        self.spaces[int(document["pid"])] = Pieces(pieces)

    def _put_off(self, pid: int, runs: list[Run]) -> None:
        pieces = self.spaces[pid]
        later = [piece for run in runs for piece in pieces.cut(*run)]
        self.files.expect(later)
        self.later[pid] = Pieces(later)

    def _arrived(self, pid: int, runs: list[Run]) -> None:
        later = self.later.get(pid)
        if later is not None:
            for start, end in runs:
                self.spaces[pid].put(later.cut(start, end))
        for task in list(self.tasks.values()):
            if task.pid == pid:
                self._try(task, lambda task=task: task.arrived(runs))
        for task in self.gone.values():
            task.arrived(runs)

    def _begin(self, *, fill: bool = True) -> None:
        self.begun = True
        self.filling = self.filling or fill
        for task in self.tasks.values():
            task.ahead = True
            if fill:
                task.hot.extend(self.hot.get(task.pid, ()))

    def _add_task(self, document: dict[str, Any], fds: list[int]) -> None:
        serial, pid = int(document["serial"]), int(document["pid"])
        pieces = self.spaces.get(pid, Pieces()).copy()
        later = self.later.get(pid, Pieces()).copy()
        if fds:
            self._adopt(Task(serial, pid, fds[0], pieces, later, self.files))
        else:
            self.gone[serial] = Task(serial, pid, -1, pieces, later, self.files)

    def _adopt(self, task: Task) -> None:
        os.set_inheritable(task.uffd, False)
        task.ahead = self.begun
        self.tasks[task.serial] = task
        self._by_uffd[task.uffd] = task
        self._turns.append(task.serial)
        self._epoll.register(task.uffd, select.EPOLLIN)

    def _resume(self) -> None:
        """Be where the one before was; what it had copied is refused by the kernel, and skipped."""
        for event in self.record.replay():
            task = self.tasks.get(event.serial) or self.gone.get(event.serial)
            if task is None:
                continue
            if event.kind == events.FORK:
                self.files.keep()
                serial = CHILD + event.slot
                child = self.tasks.get(serial)
                if child is None:
                    child = self.gone[serial] = Task(
                        serial, task.pid, -1, Pieces(), Pieces(), self.files
                    )
                child.pieces, child.later = task.pieces.copy(), task.later.copy()
            else:
                self._changed(task, event)
        for task in list(self.tasks.values()):
            self._try(task, task.wake)

    def _say(self, document: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        if self.guarded:
            try:
                self.channel.send(document, fds)
            except (BrokenPipeError, ConnectionResetError):
                self.guarded = False

    # -- the tasks ----------------------------------------------------------------------------------

    def _listen(self, task: Task) -> None:
        for _ in range(_AT_ONCE):
            event = self.record.read(task.uffd, task.serial)
            if event is None:
                return
            if event.kind == events.PAGEFAULT:
                self._try(task, lambda event=event: self._fault(task, event.second))
            elif event.kind == events.FORK:
                self._forked(task, event)
            else:
                self._changed(task, event)
            if task.serial not in self.tasks:
                return

    def _forked(self, parent: Task, event: events.Event) -> None:
        serial = CHILD + event.slot
        self._say(
            {"did": "fork", "serial": serial, "parent": parent.serial, "pid": parent.pid},
            (event.descriptor,),
        )
        self.files.keep()
        self.forks += 1
        pieces, later = parent.pieces.copy(), parent.later.copy()
        self._adopt(Task(serial, parent.pid, event.descriptor, pieces, later, self.files))
        if not self.filling and len(self.tasks) > self._many:
            # Nothing says that an address space has ended but an answer to a page put into it.
            for task in list(self.tasks.values()):
                self._try(task, task.fill)
            self._short = False
            self._many = 2 * len(self.tasks) + _MANY

    def _fault(self, task: Task, address: int) -> None:
        missing = task.fault(address)
        if missing is not None and (task.pid, missing.offset) not in self.asked:
            self.asked.add((task.pid, missing.offset))
            end = missing.offset + missing.end - missing.start
            self._say({"did": "want", "pid": task.pid, "start": missing.offset, "end": end})

    def _changed(self, task: Task, event: events.Event) -> None:
        task.changed(event.kind, event.first, event.second, event.third)
        if event.kind == events.REMOVE and task.uffd >= 0:
            self._try(task, lambda: _release(task, event))

    def _fill(self) -> None:
        """One part of one task; each in its turn."""
        if not self._turns:
            return
        serial = self._turns[0]
        task = self.tasks.get(serial)
        if task is None:
            self._turns.popleft()
        elif not task.pieces and not task.later:
            self._end(task)
        else:
            self._try(task, task.fill)
            if not task.hot:
                self._turns.rotate(-1)

    def _end_whole(self) -> None:
        """Nobody fills: whoever was given its last page by a fault."""
        for task in list(self.tasks.values()):
            if not task.pieces and not task.later and not task.waits:
                self._end(task)

    def _try(self, task: Task, work: Any) -> None:
        self._short = False
        try:
            work()
        except TaskGone:
            self._end(task)
        except NoMemory:
            self._short = True

    def _end(self, task: Task) -> None:
        if self.tasks.pop(task.serial, None) is None:
            return
        self.copied += task.copied
        self.faults += task.faults
        self._epoll.unregister(task.uffd)
        del self._by_uffd[task.uffd]
        os.close(task.uffd)
        self._say({"did": "done", "serial": task.serial})


def _runs(fd: int) -> list[Run]:
    with Fd(fd) as table:
        return channels.from_runs_table(table)


def _release(task: Task, event: events.Event) -> None:
    """What was given up is zero from now on, which the kernel does by itself."""
    try:
        userfaultfd.unregister(task.uffd, event.first, event.second)
    except OSError as error:
        if error.errno == errno.ENOMEM:  # what the kernel says when the process has gone
            raise TaskGone from None
        if error.errno != errno.EINVAL:  # EINVAL: it was unmapped meanwhile
            raise


def serve(end: Channel, record: events.Record) -> None:
    """In a forked child: be the page handler. Never returns.

    Every descriptor but the channel is given back: the child must not hold the agent's link or its locks.
    """
    try:
        gc.freeze()  # what the parent had open is not ours to close when it is collected
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.setsid()
        _keep_only(end.fileno())
        try:
            Server(end, record).run()
        except Exception as error:  # noqa: BLE001  the guard hears it
            end.send({"did": "lost", "reason": f"{type(error).__name__}: {error}"})
            os._exit(1)
        os._exit(0)
    finally:
        os._exit(1)


def _keep_only(fd: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        if number != fd:
            os.dup2(null, number)
    process.close_range(3, fd - 1) if fd > 3 else None
    process.close_range(fd + 1)
