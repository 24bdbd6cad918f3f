"""Start `init`, hand it a plan, and answer it until the process runs or waits. Never decides a step."""

import fcntl
import os
import struct

from ocimig import log
from ocimig.runtime import sync
from ocimig.runtime.errors import InitFailed, NoInit
from ocimig.runtime.linux import process
from ocimig.runtime.steps import Encoder, Source, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PROGRAM = "ocimig-init"


class Launch:
    """One start. Use as `with Launch(...) as launch: launch.run(...)`; leaving closes what was opened."""

    __slots__ = (
        "before",
        "child",
        "fds",
        "handlers",
        "line",
        "outside",
        "owned",
        "pid",
        "received",
        "steps",
    )

    def __init__(
        self,
        steps: "list[Step]",
        *,
        given: "dict[str, int] | None" = None,
        handlers: "dict[int, Callable[[], bytes]] | None" = None,
        outside: "Callable[[int], None] | None" = None,
    ) -> None:
        self.steps = steps
        self.fds = (
            given or {}
        )  # descriptors that steps name by Source("fd", name); not ours to close
        self.handlers = handlers or {}
        self.outside = outside  # puts a process into its cgroup that could not be forked into it
        self.owned: list[int] = []
        self.before = 0  # steps that open what the others need, ahead of them
        self.child = 0  # the first init, in the host's pid namespace; it forks and ends
        self.pid = 0  # the container's process
        self.received: dict[
            int, int
        ] = {}  # code -> descriptor that came (sync.CONSOLE, sync.LISTENER)

    def __enter__(self) -> "Launch":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in [*self.owned, *self.received.values()]:
            os.close(fd)
        self.owned, self.received = [], {}

    def run(
        self,
        *,
        first: int = 3,
        placed: "Callable[[int], None] | None" = None,
        meanwhile: "Callable[[], None] | None" = None,
    ) -> int:
        """Carry out the plan; returns the pid of the process that runs, or waits to be started.

        `first` is the first descriptor that is not the process's; `placed` puts the new process
        where it belongs (its cgroup) before it does anything; `meanwhile` runs while init works on
        the plan. Raises InitFailed, with nothing of
        the process left, when a step does not succeed.
        """
        encoder = Encoder(self.steps)
        self.before = len(encoder.opened)
        program = sealed_program()
        try:
            self.child, line = sync.spawn(program, first)
        finally:
            os.close(program)
        try:
            if placed is not None:
                placed(self.child)
            given = [self._given(source) for source in encoder.given]
            line.send_plan(encoder.plan(), given, len(encoder.opened))
            if meanwhile is not None:
                meanwhile()
            self._listen(line)
        except BaseException:
            line.close()
            self._end()
            raise
        line.close()
        os.waitpid(self.child, 0)
        return self.pid

    def _listen(self, line: sync.Line) -> None:
        # The first init says the pid of its child, but the child may be the first to speak.
        early: list[int] = []
        for message in line.messages():
            if message.kind == sync.SYNC and not self.pid and message.number in sync.BY_THE_CHILD:
                early.append(message.number)
            elif message.kind == sync.SYNC:
                self._answer(line, message.number)
            elif message.kind == sync.PID:
                self.pid, inside = struct.unpack("=ii", message.body)
                if not inside and self.outside is not None:
                    self.outside(self.pid)
                for number in early:
                    self._answer(line, number)
            elif message.kind == sync.FD:
                self.received[message.number] = message.fds[0]
            elif message.kind == sync.WARNING:
                log.warning(message.body.decode("utf-8", "replace"))
            elif message.kind == sync.ERROR:
                raise self._failure(message)
        if not self.pid:
            raise InitFailed(what="init ended before the container's process was made", reason="")

    def _answer(self, line: sync.Line, number: int) -> None:
        handler = self.handlers.get(number)
        line.go(handler() if handler else b"")

    def _failure(self, message: sync.Message) -> InitFailed:
        number, error = struct.unpack_from("=ii", message.body)
        what = message.body[8:].decode("utf-8", "replace")
        number -= self.before
        if 0 <= number < len(self.steps):
            log.debug(f"step {number} failed: {self.steps[number].describe()}")
        return InitFailed(what=what, reason=words(error))

    def _end(self) -> None:
        """Leave nothing: the socket is closed, so init ends by itself unless it is past that."""
        for pid in (self.child, self.pid):
            if pid <= 0:
                continue
            try:
                os.kill(pid, process.SIGKILL)  # our unreaped child: the number is still its own
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass

    def _given(self, source: Source) -> int:
        if source.kind == "fd":
            return self.fds[source.name]
        from ocimig.runtime import idmap

        try:
            self.owned.append(idmap.mapped_tree(source))
        except OSError as error:
            raise InitFailed(what=f"open {source.name}", reason=words(error.errno or 0)) from None
        return self.owned[-1]


def words(number: int) -> str:
    """errno in words, as the C library says it but in lower case; nothing for 0."""
    text = os.strerror(number) if number else ""
    return text[:1].lower() + text[1:]


def sealed_program() -> int:
    """The init program in sealed memory: nothing that runs inside can change it (CVE-2019-5736)."""
    path = os.path.join(os.path.dirname(__file__), "init", PROGRAM)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NoInit(path=path) from None
    try:
        size = os.fstat(fd).st_size
        flags = process.MFD_CLOEXEC | process.MFD_ALLOW_SEALING
        try:
            memory = os.memfd_create(PROGRAM, flags | process.MFD_EXEC)
        except OSError:  # before Linux 6.3
            memory = os.memfd_create(PROGRAM, flags)
        sent = 0
        while sent < size:
            sent += os.sendfile(memory, fd, sent, size - sent)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
        return memory
    finally:
        os.close(fd)


def id_maps(pid: int, linux: "dict[str, Any]") -> None:
    """Write the id maps of a new user namespace, by newuidmap(1) where we may not do it ourselves."""
    for name in ("uid", "gid"):
        rows = linux.get(f"{name}Mappings") or []
        if not rows:
            continue
        lines = [f"{row['containerID']} {row['hostID']} {row['size']}" for row in rows]
        if os.geteuid() and len(rows) > 1:
            _map_by_program(f"new{name}map", pid, lines)
            continue
        if os.geteuid() and name == "gid":
            _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/{name}_map", "\n".join(lines) + "\n")


def clocks(pid: int, offsets: str) -> None:
    """Set the clocks of the time namespace that the children of `pid` will be in."""
    _write(f"/proc/{pid}/timens_offsets", offsets)


def _write(path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise InitFailed(
            what=f"write {text.strip()!r} to {path}", reason=words(error.errno or 0)
        ) from None


def _map_by_program(program: str, pid: int, lines: "list[str]") -> None:
    argv = [program, str(pid), *" ".join(lines).split()]
    try:
        child = os.posix_spawnp(program, argv, os.environ)
    except FileNotFoundError:
        reason = f"{program} is missing: install the package uidmap"
        raise InitFailed(what="map user ids", reason=reason) from None
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise InitFailed(what=" ".join(argv), reason="refused")
