"""Whoever keeps a page handler alive: holds a second copy of everything it has. Never copies a page.

A userfaultfd that nobody holds open is gone, and with it every page that had not come: the container would
read zeros. So the guard has each one first and hands on copies; when the handler dies it starts another,
and where that is not possible it says `lost`, whose task it is to end the container.
"""

import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from ocimig import log
from ocimig.files import Fd
from ocimig.migrate.lazy import channel as channels
from ocimig.migrate.lazy import events, mark, server
from ocimig.migrate.lazy.channel import Channel
from ocimig.migrate.lazy.pieces import Piece, Pieces
from ocimig.migrate.memory.runs import Run

_FINISHED = 0x52535446  # criu/uffd.c: LAZY_PAGES_RESTORE_FINISHED
_RESTARTS = 5
_PID = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Source:
    """A file that pages of one address space lie in; with `punch` they are given back as they are used."""

    fd: int
    pieces: Sequence[tuple[int, int, int]]  # start, end (addresses), offset in the file
    punch: bool = False
    holes: Sequence[Run] | None = None  # where it has no data; None: whoever needs that looks


@dataclass(slots=True)
class _Task:
    pid: int
    uffd: int  # -1 when it has everything, or has ended


@dataclass(slots=True)
class Outcome:
    """What became of it. Bytes, faults answered, address spaces forked meanwhile, handlers that died."""

    bytes: int = 0
    faults: int = 0
    forks: int = 0
    restarts: int = 0
    reason: str = ""  # why memory was lost, or empty
    ended: threading.Event = field(default_factory=threading.Event)


class Guard:
    """The handler's process, CRIU's connection to it, and a thread that watches both."""

    def __init__(
        self,
        listener: socket.socket,
        lost: Callable[[str], None],
        want: Callable[[int, Run], None] | None,
    ) -> None:
        self.outcome = Outcome()
        self._want = want
        self.tasks: dict[int, _Task] = {}
        self.pid = 0
        self._pidfd = -1
        self._lost = lost
        self._listener: socket.socket | None = listener
        self._criu: socket.socket | None = None
        self._record = events.Record()
        self._sources: dict[int, list[Source]] = {}
        self._hot: dict[int, list[Run]] = {}
        self._later: dict[int, Pieces] = {}
        self._failure = ""
        self._restored = False
        self._filled = False
        self._ahead = True  # of the faults, when it is restored
        self._told = ""  # what the handler was told to do then
        self._mark = -1
        self._lock = threading.Lock()
        self._channel: Channel | None = None
        self._over = False
        self._served = False  # until then CRIU is not let in: unknown pages are zeros
        self._waken, self._waker = os.pipe()
        self._fork()
        self._thread = threading.Thread(target=self._watch, name="page guard", daemon=True)
        self._thread.start()

    # -- what the agent says --------------------------------------------------------------------------

    def serve(
        self,
        spaces: Mapping[int, Sequence[Source]],
        hot: Mapping[int, Sequence[Run]],
        later: Mapping[int, Sequence[Run]],
    ) -> None:
        """Where the memory of each process lies. The descriptors stay the caller's."""
        with self._lock:
            self._later |= {
                pid: Pieces(Piece(start, end, 0, start) for start, end in runs)
                for pid, runs in later.items()
            }
            self._hot |= {pid: list(runs) for pid, runs in hot.items()}
            for pid, sources in spaces.items():
                kept = [replace(each, fd=os.dup(each.fd)) for each in sources]
                self._sources[pid] = kept
        os.write(self._waker, b"s")  # the rest takes time that CRIU's start can be used for

    def arrived(self, pid: int, runs: Sequence[Run]) -> None:
        """These places of the file are there now."""
        with self._lock:
            if pid in self._later:
                for start, end in runs:
                    self._later[pid].cut(start, end)
                self._tell_runs("arrived", pid, runs)

    def fail(self, reason: str) -> None:
        """What is to come later will never come."""
        with self._lock:
            self._failure = reason
        os.write(self._waker, b"f")

    def mark(self, directory: str) -> None:
        """Say in the container's state directory that it is being filled."""
        with self._lock:
            if self._mark < 0:
                self._mark = mark.take(directory)
                self._tell({"do": "mark"}, [self._mark])

    def fill(self, *, ahead: bool = True) -> None:
        """Everything is restored: fill ahead of the faults, hot runs first; or only where there is one."""
        self._ahead = ahead
        self._restored = True
        os.write(self._waker, b"w")

    def close(self) -> None:
        """End the handler. Whoever still waits for a page gets zeros: nobody may."""
        os.write(self._waker, b"x")
        self._thread.join()
        for fd in (self._waken, self._waker):
            os.close(fd)

    # -- the handler ----------------------------------------------------------------------------------

    def _fork(self) -> None:
        ours, theirs = channels.pair()
        pid = os.fork()
        if not pid:
            server.serve(theirs, self._record)
        theirs.close()
        self.pid, self._pidfd = pid, os.pidfd_open(pid)
        self._channel = ours

    def _tell(self, document: dict[str, Any], fds: Sequence[int] = ()) -> None:
        if self._channel is not None:
            with suppress(BrokenPipeError, ConnectionResetError):  # its end is seen by the thread
                self._channel.send(document, list(fds))

    def _tell_space(self, pid: int) -> None:
        sources = self._sources[pid]
        pieces = [
            Piece(start, end, pid << 8 | index, offset)
            for index, source in enumerate(sources)
            for start, end, offset in source.pieces
        ]
        known = [source.holes for source in sources if source.holes is not None]
        with ExitStack() as opened:
            tables = [opened.enter_context(Fd(channels.table(pieces)))]
            tables += [opened.enter_context(Fd(channels.runs_table(holes))) for holes in known]
            self._tell(
                {
                    "do": "space",
                    "pid": pid,
                    "files": [pid << 8 | index for index in range(len(sources))],
                    "punch": [source.punch for source in sources],
                    "holes": [source.holes is not None for source in sources],
                },
                [*(source.fd for source in sources), *tables],
            )
        if pid in self._hot:
            self._tell_runs("hot", pid, self._hot[pid])
        if pid in self._later:
            later = [(piece.start, piece.end) for piece in self._later[pid]]
            self._tell_runs("later", pid, later)

    def _tell_runs(self, do: str, pid: int, runs: Sequence[Run]) -> None:
        with Fd(channels.runs_table(runs)) as table:
            self._tell({"do": do, "pid": pid}, [table])

    def _restart(self) -> None:
        """Another handler in the place of one that died."""
        self.outcome.restarts += 1
        log.warning("the page handler died; another takes over")
        with self._lock:
            self._fork()
            for pid in self._sources:
                self._tell_space(pid)
            for serial, task in self.tasks.items():
                fds = [task.uffd] if task.uffd >= 0 else []
                self._tell({"do": "task", "serial": serial, "pid": task.pid}, fds)
            self._tell({"do": "resume"})
            if self._criu is not None:
                self._tell({"do": "criu"}, [self._criu.fileno()])
            if self._mark >= 0:
                self._tell({"do": "mark"}, [self._mark])
            if self._told:
                self._tell({"do": self._told})

    # -- the thread -----------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            while not self._over:
                self._wait()
        except Exception as error:  # noqa: BLE001  whatever it was: the memory is not safe any more
            self._lose(f"{type(error).__name__}: {error}")
        try:
            self._end()
        finally:
            self.outcome.ended.set()  # whoever waits for it waits for nothing else
        for each in (self._listener, self._criu):
            if each is not None:
                each.close()

    def _wait(self) -> None:
        # first of all: what is ready after it counts
        wanted = "fill" if self._ahead else "touch"
        begin = self._restored and self._served and self._told not in ("fill", wanted)
        poller = select.poll()
        listener = self._listener if self._served else None
        for each in (self._waken, self._channel, listener, self._criu):
            if each is not None:
                poller.register(each, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(0 if begin else None)}
        # CRIU first: what it sent before it said that all is restored is heard before that counts.
        if self._criu is not None and self._criu.fileno() in ready:
            self._receive_task()
        elif listener is not None and listener.fileno() in ready:
            self._criu, _ = listener.accept()
            listener.close()
            self._listener = None
            with self._lock:
                self._tell({"do": "criu"}, [self._criu.fileno()])
        elif begin:
            with self._lock:
                self._told = wanted
                self._tell({"do": wanted})
        elif self._channel is not None and self._channel.fileno() in ready:
            self._hear()
        elif self._waken in ready:
            said = os.read(self._waken, 64)
            self._over = b"x" in said
            if b"s" in said:
                with self._lock:
                    for pid in self._sources:
                        self._tell_space(pid)
                    self._served = True
            if self._failure and any(self._later.values()):
                self._lose(self._failure)

    def _receive_task(self) -> None:
        """The protocol of criu/uffd.c: a pid, negative for a zombie, then a descriptor with one byte."""
        assert self._criu is not None
        word = self._criu.recv(_PID.size, socket.MSG_WAITALL)
        if len(word) < _PID.size or _PID.unpack(word)[0] == _FINISHED:
            self._criu.close()
            self._criu = None
            self._finish()
            return
        (pid,) = _PID.unpack(word)
        if pid < 0:
            return
        data, fds, _, _ = socket.recv_fds(self._criu, 1, 1, socket.MSG_CMSG_CLOEXEC)
        if not data or not fds:
            raise ValueError(f"CRIU sent no userfaultfd for process {pid}")
        with self._lock:
            serial = len(self.tasks) + 1
            self.tasks[serial] = _Task(pid, fds[0])
            self._tell({"do": "task", "serial": serial, "pid": pid}, fds)

    def _hear(self) -> None:
        assert self._channel is not None
        try:
            message = self._channel.receive()
        except ConnectionResetError:
            message = None
        if message is None:
            self._died()
            return
        document, fds = message
        did = document["did"]
        if did == "fork":
            serial = int(document["serial"])
            self.tasks[serial] = _Task(int(document["pid"]), fds[0])
        elif did == "want":
            assert self._want is not None
            self._want(int(document["pid"]), (int(document["start"]), int(document["end"])))
        elif did == "done":
            self._forget(int(document["serial"]))
        elif did == "filled" and any(task.uffd >= 0 for task in self.tasks.values()):
            raise ValueError("the page handler ended before all memory had come")
        elif did == "filled":
            self.outcome.bytes += int(document["bytes"])
            self.outcome.faults += int(document["faults"])
            self.outcome.forks += int(document["forks"])
            self._filled = True
            with self._lock:
                self._give_back()
            self.outcome.ended.set()
            self._finish()
        else:
            log.warning(f"page handler: {document['reason']}")

    def _finish(self) -> None:
        """Nobody is needed any more when all is there and CRIU has had its last word. Until then two hold its
        connection, for one of us may be killed: CRIU takes a closed one for a failure."""
        if self._filled and self._criu is None:
            self._end()
            self._over = True

    def _died(self) -> None:
        assert self._channel is not None
        self._channel.close()
        self._channel = None
        self._reap()
        if self._filled:
            return
        children = {
            server.CHILD + event.slot
            for event in self._record.replay()
            if event.kind == events.FORK
        }
        if self.outcome.restarts >= _RESTARTS:
            self._lose("the page handler died again and again")
        elif not self._record.whole or not children <= set(self.tasks):
            self._lose("the page handler died and what it knew is lost")
        else:
            self._restart()

    def _lose(self, reason: str) -> None:
        """Memory that cannot come any more: the container ends before it reads zeros."""
        self.outcome.reason = reason
        self._over = True
        try:
            self._lost(reason)
        except Exception as error:  # noqa: BLE001  whoever owns the container has to see the reason
            log.error(f"a container that lost memory could not be ended: {error}")

    def _reap(self) -> None:
        """Wait for the handler; whoever waits for all children of ours may have been first."""
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        self.pid = 0

    def _forget(self, serial: int) -> None:
        task = self.tasks[serial]
        if task.uffd >= 0:
            os.close(task.uffd)
            task.uffd = -1

    def _end(self) -> None:
        """Give back everything but CRIU's connection; a second call does nothing."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            if self.pid:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                self._reap()
            self._give_back()
        self.outcome.ended.set()

    def _give_back(self) -> None:
        for serial in self.tasks:
            self._forget(serial)
        fds = [source.fd for sources in self._sources.values() for source in sources]
        for fd in [*fds, self._mark]:
            if fd >= 0:
                os.close(fd)
        self._sources.clear()
        self._mark = -1
