"""Terminals of containers: hand one to the caller, or stand between one and ours. Never makes one.

our terminal (raw)  --stdin-->  Relay  --master-->  pty  -->  the process (cooked, its own rules)
                    <-stdout--         <-master---
"""

import fcntl
import os
import select

from ocimig.runtime import sockets
from ocimig.runtime.errors import SocketFailed
from ocimig.runtime.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self
else:
    import _signal  # signal without its enums, which cost 4 ms

TIOCGWINSZ = 0x5413
TIOCSWINSZ = 0x5414
_CHUNK = 4096  # a pipe that poll(2) calls writable takes so much without blocking
_MOST_WAITING = 65536
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL  # which poll(2) reports unasked
_READABLE = select.POLLIN | _GONE
_WRITABLE = select.POLLOUT | _GONE


def send_fd(socket_path: str, fd: int, name: str, *, what: str = "console") -> None:
    """Send a descriptor to the socket a caller named, with `name` as the message."""
    try:
        sock = sockets.connect(socket_path)
        try:
            sockets.send(sock, name.encode() or b"\0", [fd])
        finally:
            sock.close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SocketFailed(what=what, path=socket_path, reason=reason) from None


class Signals:
    """Signals as something to poll: within the `with` block they arrive as numbers and kill nobody.

    Stop signals of the terminal driver keep their meaning; SIGCHLD is not taken.
    """

    __slots__ = ("_previous", "_wakeup", "reader", "writer")

    def __init__(self) -> None:
        self._previous: list[tuple[int, Any]] = []
        self.reader = self.writer = self._wakeup = -1

    def __enter__(self) -> "Self":
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = _signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        for number in _taken():
            self._previous.append((number, _signal.signal(number, _nothing)))
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        trace: "TracebackType | None",
    ) -> None:
        for number, handler in self._previous:
            _signal.signal(number, _signal.SIG_DFL if handler is None else handler)
        _signal.set_wakeup_fd(self._wakeup)
        os.close(self.reader)
        os.close(self.writer)

    def fileno(self) -> int:
        """Readable when a signal came."""
        return self.reader

    def read(self) -> "list[int]":
        """The signals since the last call, in order."""
        try:
            return list(os.read(self.reader, 4096))
        except BlockingIOError:
            return []


def _taken() -> "list[int]":
    left = {"SIGKILL", "SIGSTOP", "SIGCHLD", "SIGCLD", "SIGURG", "SIGPIPE", "SIGTTIN", "SIGTTOU"}
    faults = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP", "SIGABRT", "SIGIOT"}
    # every number, for most real-time signals have no name; 32 and 33 are the C library's own
    numbers = {*range(1, 32), *range(process.SIGNALS["SIGRTMIN"], process.SIGNALS["SIGRTMAX"] + 1)}
    return sorted(numbers - {process.SIGNALS[name] for name in left | faults})


def _nothing(number: int, frame: object) -> None:
    """The number went to the wakeup descriptor."""


class Relay:
    """Copies between our terminal and the master of a process's pty.

    Entering makes the terminal raw, leaving restores it, whatever happened in between. Without a
    terminal at stdin it copies all the same, and the end of input becomes the end of input there.
    """

    __slots__ = ("_saved", "master", "stdin", "stdout")

    def __init__(self, master: int, stdin: int = 0, stdout: int = 1) -> None:
        self.master = master
        self.stdin = stdin
        self.stdout = stdout
        self._saved: list[Any] | None = None

    def __enter__(self) -> "Self":
        self.resize()
        if os.isatty(self.stdin):
            import termios

            self._saved = termios.tcgetattr(self.stdin)
            termios.tcsetattr(self.stdin, termios.TCSADRAIN, _raw(self._saved))
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        trace: "TracebackType | None",
    ) -> None:
        if self._saved is None:
            return
        import termios

        try:
            termios.tcsetattr(self.stdin, termios.TCSADRAIN, self._saved)
        except termios.error:  # the terminal is gone: nothing is left to restore
            pass

    def is_raw(self) -> bool:
        """Whether stdin is a terminal that we have made raw."""
        return self._saved is not None

    def resize(self) -> None:
        """Give the pty the size of our terminal, where we have one."""
        for fd in (self.stdin, self.stdout):
            try:
                size = fcntl.ioctl(fd, TIOCGWINSZ, b"\0" * 8)
            except OSError:
                continue
            if size[:4] != b"\0\0\0\0":
                fcntl.ioctl(self.master, TIOCSWINSZ, size)
                return

    def run(
        self,
        pidfd: int = -1,
        signals: "Signals | None" = None,
        forward: "Callable[[int], None] | None" = None,
    ) -> None:
        """Copy until the pty closes, our terminal goes away, or the process of `pidfd` has ended
        and its output is read.

        SIGWINCH resizes; every other signal goes to `forward`.
        """
        if signals is None:
            with Signals() as own:
                _Copy(self, pidfd, own, forward).run()
            return
        _Copy(self, pidfd, signals, forward).run()


class _Copy:
    """One run of a Relay: what waits to be written, and which ends are still open."""

    __slots__ = (
        "forward",
        "hung_up",
        "input_open",
        "pidfd",
        "relay",
        "signals",
        "stdout_open",
        "typed",
        "waiting",
    )

    def __init__(
        self,
        relay: Relay,
        pidfd: int,
        signals: Signals,
        forward: "Callable[[int], None] | None",
    ) -> None:
        self.relay = relay
        self.pidfd = pidfd
        self.signals = signals
        self.forward = forward
        self.typed = b""  # from stdin, not yet taken by the pty
        self.waiting = b""  # from the pty, not yet taken by stdout
        self.input_open = self.stdout_open = True
        self.hung_up = False

    def run(self) -> None:
        master, pidfd = self.relay.master, self.pidfd
        blocking = os.get_blocking(master)
        os.set_blocking(master, False)  # else a process that does not read what is typed blocks us
        try:
            open_ = True
            while open_:
                events = self._poll()
                self._signals(events)
                self._from_stdin(events)
                self._to_master(events)
                self._to_stdout(events)
                open_ = self._from_master(events) and not self.hung_up
                if pidfd in events and pidfd >= 0 and master not in events:
                    break
            while self.waiting and self.stdout_open:
                self._to_stdout(self._poll())
        finally:
            os.set_blocking(master, blocking)

    def _poll(self) -> "dict[int, int]":
        """Wait for what there is to do now: descriptor -> events."""
        relay = self.relay
        wanted = {self.signals.fileno(): select.POLLIN}
        if self.pidfd >= 0 and not self.waiting:
            wanted[self.pidfd] = select.POLLIN
        wanted[relay.master] = select.POLLOUT if self.typed else 0
        if len(self.waiting) < _MOST_WAITING:
            wanted[relay.master] |= select.POLLIN
        if self.input_open and not self.typed:
            wanted[relay.stdin] = select.POLLIN
        if self.waiting and self.stdout_open:  # which may be the same descriptor as stdin
            wanted[relay.stdout] = wanted.get(relay.stdout, 0) | select.POLLOUT
        poller = select.poll()
        for fd, events in wanted.items():
            poller.register(fd, events)
        return dict(poller.poll())

    def _signals(self, events: "dict[int, int]") -> None:
        if self.signals.fileno() not in events:
            return
        for number in self.signals.read():
            if number == process.SIGWINCH:
                self.relay.resize()
            elif self.forward is not None:
                self.forward(number)

    def _from_stdin(self, events: "dict[int, int]") -> None:
        if not self.input_open or not events.get(self.relay.stdin, 0) & _READABLE:
            return
        try:
            data = os.read(self.relay.stdin, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # our terminal was closed
            data = b""
        if data:
            self.typed += data
            return
        self.input_open = False
        if self.relay.is_raw():  # the person is gone: a raw terminal ends in no other way
            self.hung_up = True
            return
        self.typed += _end_of_input(self.relay.master)

    def _to_master(self, events: "dict[int, int]") -> None:
        if self.typed and events.get(self.relay.master, 0) & select.POLLOUT:
            try:
                self.typed = self.typed[os.write(self.relay.master, self.typed) :]
            except BlockingIOError:
                pass
            except OSError:  # nobody is at the other end any more
                self.typed = b""

    def _from_master(self, events: "dict[int, int]") -> bool:
        """Read once; False when the pty has closed."""
        if not events.get(self.relay.master, 0) & _READABLE:
            return True
        try:
            data = os.read(self.relay.master, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:  # EIO: the last process has closed its side
            return False
        if self.stdout_open:
            self.waiting += data
        return bool(data)

    def _to_stdout(self, events: "dict[int, int]") -> None:
        if not self.waiting or not events.get(self.relay.stdout, 0) & _WRITABLE:
            return
        try:
            self.waiting = self.waiting[os.write(self.relay.stdout, self.waiting[:_CHUNK]) :]
        except BlockingIOError:
            pass
        except OSError:  # who read us is gone; the process goes on and writes to nobody
            self.stdout_open, self.waiting = False, b""


def _end_of_input(master: int) -> bytes:
    """What to type where our input ends: ^D on a line of its own, if the process reads lines."""
    import termios

    try:
        attributes = termios.tcgetattr(master)
    except termios.error:
        return b""
    if not attributes[3] & termios.ICANON:
        return b""
    end = attributes[6][termios.VEOF]
    assert isinstance(end, bytes)
    return end * 2  # after an unfinished line the first only sends that line


def _raw(attributes: "list[Any]") -> "list[Any]":
    """cfmakeraw(3) on a copy."""
    import termios as t

    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = attributes
    iflag &= ~(
        t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON
    )  # fmt: skip
    oflag &= ~t.OPOST
    lflag &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
    cflag = cflag & ~(t.CSIZE | t.PARENB) | t.CS8
    cc = list(cc)
    cc[t.VMIN], cc[t.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, cc]
