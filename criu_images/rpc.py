"""One session with `criu swrk`: a request, CRIU's questions on the way, one answer. Knows no container.

    we                                    criu (a child of ours, `criu swrk 3`)
    ── criu_req{type, opts}            ─→
    ←─ criu_resp{NOTIFY, script, pid}  ──   any number of times, some with a descriptor (SCM_RIGHTS)
    ── criu_req{NOTIFY, success, opts} ─→   CRIU stands still until this comes
    ←─ criu_resp{type, success, …}     ──   the end

One protobuf message is one datagram (SOCK_SEQPACKET). A callback that raises answers "no": CRIU then
undoes what it did, and the exception is raised here once CRIU has finished undoing it.
"""

import array
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from ocimig.criu_images import binary, criulog
from ocimig.criu_images.errors import CriuDied, CriuFailed, CriuMissing, CriuStuck
from ocimig.files import Fd

LOG_LIMIT = 256 << 20  # a truncated pages image once made CRIU write 4.6 GB and never return
STALL_SECONDS = 900.0  # neither the log nor an image grew, and CRIU asked nothing
_TICK = 0.2
_SOCKET = 3  # the number of the socket in CRIU; descriptors handed over follow it


@dataclass(frozen=True, slots=True)
class Notice:
    """CRIU stands at a named point and waits. `fd` is ours to close (or -1)."""

    script: str
    pid: int = 0
    fd: int = -1


@dataclass(frozen=True, slots=True)
class Answer:
    """What a callback may add to its yes: objects that CRIU shall take as external."""

    external: Sequence[str] = ()


Callback = Callable[[Notice], Answer | None]


@dataclass(slots=True)
class Watch:
    """When CRIU counts as stuck: what it writes and how much of it."""

    log: str = ""
    images: str = ""
    log_limit: int = LOG_LIMIT
    stall: float = STALL_SECONDS
    seen: tuple[int, int] = (-1, -1)
    since: float = field(default_factory=time.monotonic)
    stop: Callable[[], str] = lambda: ""  # a reason of the caller's

    def reason(self) -> str:
        """Why CRIU should be killed now, or an empty string."""
        if words := self.stop():
            return words
        size = _size(self.log)
        if size > self.log_limit:
            return f"its log grew beyond {self.log_limit >> 20} MiB"
        seen = (size, _size(self.images))
        now = time.monotonic()
        if seen != self.seen:
            self.seen, self.since = seen, now
        elif now - self.since > self.stall:
            return f"it wrote nothing for {self.stall:.0f} seconds"
        return ""

    def restart(self) -> None:
        """The time that a callback took is not CRIU's."""
        self.since = time.monotonic()


def _size(path: str) -> int:
    """Bytes in a file, or in the files of a directory; -1 when there is nothing."""
    if not path:
        return -1
    try:
        if not os.path.isdir(path):
            return os.stat(path).st_size
        with os.scandir(path) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
    except OSError:
        return -1


class Session:
    """A `criu swrk` process. `start` it, `call` it once, `close` it."""

    def __init__(self, program: str = "") -> None:
        self.program = program or binary.find()
        self.rpc: ModuleType = binary.messages(self.program)
        self.pid = 0
        self.last_response: Any = None
        self._socket: socket.socket | None = None
        self._said: int = -1  # CRIU's own standard error: what it says before it has a log

    def start(
        self,
        *,
        hand_over: Sequence[int] = (),
        stage: Callable[[], None] | None = None,
        stdin: int = -1,
        own_group: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Fork and execute CRIU. `hand_over` become its descriptors 4, 5, …

        `environment` is what it gets beside PATH; without it what binary.preload() says. `stage` runs in
        the child before the program is executed (mount namespace, cgroup namespace); what it raises is
        raised here.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._said = os.memfd_create("criu-stderr")
        reader, writer = os.pipe()
        with theirs, Fd(reader):
            self.pid = os.fork()
            if not self.pid:
                _become(
                    self.program, theirs.fileno(), hand_over, stage, stdin, self._said, writer,
                    own_group, binary.preload() if environment is None else environment,
                )  # fmt: skip
            os.close(writer)
            self._socket = ours
            failed = b""
            while part := os.read(reader, 65536):
                failed += part
        if failed:
            self.close()
            raise CriuMissing(reason=f"{self.program}: {failed.decode(errors='replace')}")

    @staticmethod
    def handed(index: int) -> int:
        """The number in CRIU of the descriptor at `index` of `hand_over`."""
        return _SOCKET + 1 + index

    def request(self, kind: str) -> Any:
        """An empty request: kind is "DUMP", "RESTORE", "FEATURE_CHECK", "VERSION"…"""
        message = self.rpc.criu_req()
        message.type = getattr(self.rpc, kind)
        return message

    def call(
        self,
        request: Any,
        *,
        notify: Mapping[str, Callback] | None = None,
        watch: Watch | None = None,
    ) -> Any:
        """Send, answer CRIU's questions, return its answer. Raises CriuFailed, or what a callback raised."""
        step = self.rpc.criu_req_type.Name(request.type).lower().replace("_", " ")
        watch = watch or Watch()
        self._send(request, step, watch)
        refused: BaseException | None = None
        while True:
            response, fd = self._receive(step, watch)
            if response.type != self.rpc.NOTIFY:
                break
            with Fd(fd):
                notice = Notice(response.notify.script, response.notify.pid, fd)
                refused = self._answer(notice, notify or {}, refused, step, watch)
            watch.restart()
        self.last_response = response
        if refused is not None:
            raise refused
        if not response.success:
            raise self._failure(response, step, watch)
        return response

    def _answer(
        self,
        notice: Notice,
        notify: Mapping[str, Callback],
        refused: BaseException | None,
        step: str,
        watch: Watch,
    ) -> BaseException | None:
        reply = self.request("NOTIFY")
        reply.notify_success = True
        callback = notify.get(notice.script)
        # Once something was refused CRIU is undoing: it still asks (network-unlock), and is still answered.
        if callback is not None:
            try:
                answer = callback(notice)
            except BaseException as error:  # noqa: BLE001  kept, and raised when CRIU has undone its work
                refused = refused or error
                reply.notify_success = False
            else:
                if answer is not None and answer.external:
                    # images_dir_fd is a required field; CRIU reads nothing but `external` here
                    reply.opts.images_dir_fd = -1
                    reply.opts.external.extend(answer.external)
        self._send(reply, step, watch)
        return refused

    def _failure(self, response: Any, step: str, watch: Watch) -> CriuFailed:
        found = criulog.explain(watch.log, response.cr_errmsg or "")
        cause = found.words or os.strerror(response.cr_errno or 1)
        return CriuFailed(
            step=step, cause=cause, remedy=found.remedy, log=watch.log, number=response.cr_errno
        )

    def _send(self, message: Any, step: str, watch: Watch) -> None:
        assert self._socket is not None
        try:
            self._socket.send(message.SerializeToString())
        except (BrokenPipeError, ConnectionResetError):
            raise self._died(step, watch) from None

    def _receive(self, step: str, watch: Watch) -> tuple[Any, int]:
        assert self._socket is not None
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        while not poller.poll(_TICK * 1000):
            reason = watch.reason()
            if reason:
                self.kill()
                raise CriuStuck(step=step, reason=reason, log=watch.log)
        try:
            size = self._socket.recv_into(bytearray(1), 1, socket.MSG_PEEK | socket.MSG_TRUNC)
            if not size:
                raise self._died(step, watch)
            data, extra, _, _ = self._socket.recvmsg(
                size, socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            raise self._died(step, watch) from None
        message = self.rpc.criu_resp()
        message.ParseFromString(data)
        return message, _only_descriptor(extra)

    def _died(self, step: str, watch: Watch) -> CriuDied | CriuFailed:
        how = self.close()
        found = criulog.explain(watch.log, "")
        if found.words and found.known:
            return CriuFailed(step=step, cause=found.words, remedy=found.remedy, log=watch.log)
        said = self.said()
        return CriuDied(
            step=step, how=f"{how}{': ' + said if said else ''}", log=watch.log or "none"
        )

    def said(self) -> str:
        """The last line CRIU wrote to its standard error."""
        if self._said < 0:
            return ""
        lines = os.pread(self._said, 4096, 0).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def kill(self) -> None:
        """SIGKILL CRIU and reap it."""
        if self.pid:
            os.kill(self.pid, 9)  # our child, not yet waited for: the number cannot be another's
        self.close()

    def close(self) -> str:
        """End the conversation, wait for CRIU (kill it when it stays), say how it ended."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if not self.pid:
            return "gone"
        pid, self.pid = self.pid, 0
        status = _wait(pid, 10.0)
        if status is None:
            os.kill(pid, 9)
            status = os.waitpid(pid, 0)[1]
        code = os.waitstatus_to_exitcode(status)
        return f"killed by signal {-code}" if code < 0 else f"exit status {code}"

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self._said >= 0:
            os.close(self._said)
            self._said = -1


def _wait(pid: int, seconds: float) -> int | None:
    with Fd(os.pidfd_open(pid)) as pidfd:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        if not poller.poll(seconds * 1000):
            return None
    return os.waitpid(pid, 0)[1]


def _only_descriptor(ancillary: list[tuple[int, int, bytes]]) -> int:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    for extra in found[1:]:
        os.close(extra)
    return found[0] if found else -1


def _become(
    program: str,
    channel: int,
    hand_over: Sequence[int],
    stage: Callable[[], None] | None,
    stdin: int,
    stderr: int,
    report: int,
    own_group: bool,
    extra: Mapping[str, str],
) -> None:
    """In the child: arrange descriptors and execute CRIU. Never returns."""
    try:
        if own_group:
            os.setpgid(0, 0)  # Ctrl-C is for us: we tell CRIU in its own words
        if stage is not None:
            stage()
        quiet = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        wanted = [quiet if stdin < 0 else stdin, quiet, stderr, channel, *hand_over]
        # First above all targets, then down: no target overwrites a source.
        floor = len(wanted) + 16
        high = [_above(fd, floor) for fd in wanted]
        report = _above(report, floor)
        for target, fd in enumerate(high):
            os.dup2(fd, target, inheritable=True)
        os.set_inheritable(report, False)
        os.closerange(len(wanted), report)
        os.closerange(report + 1, 1 << 16)
        for number in range(1, 65):
            _default(number)
        # A configuration file (/etc/criu/*.conf, $CRIU_CONFIG_FILE) would override what we ask for
        # without a word; CRIU reads none with this option.
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        environment.update(extra)
        os.execve(program, [program, "--no-default-config", "swrk", str(_SOCKET)], environment)
    except BaseException as error:  # noqa: BLE001  the parent raises it
        os.write(report, str(error).encode()[:4000] or b"failed")
    finally:
        os._exit(127)


def _above(fd: int, floor: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, floor)


def _default(number: int) -> None:
    try:
        signal.signal(number, signal.SIG_DFL)
    except (OSError, ValueError, RuntimeError):
        pass  # SIGKILL, SIGSTOP and the two of the C library
