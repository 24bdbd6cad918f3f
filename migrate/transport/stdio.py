"""A pair of descriptors as a channel: what `ocimig agent` talks on. Starts nothing."""

import errno
import fcntl
import os
import select
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ocimig.migrate.errors import LinkLost

PIPE_SIZE = 1 << 20  # the kernel's default is 64 KiB


class StdioChannel:
    """Our own standard streams, for a program that is itself the far side."""

    def __init__(self, stdin: int = 0, stdout: int = 1, *, host: str = "the caller") -> None:
        self.host = host
        self._stdin = stdin
        self._stdout = stdout
        self._interrupted = ""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self._wake)  # not in close(): a reader may wait for it
        for fd in (stdin, stdout):
            os.set_blocking(fd, False)
            enlarge(fd)

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """See Channel."""
        with lost_link(self.host, self._why):
            self._check()
            return read_some(self._stdin, size, timeout, self._wake)

    def read_into(self, into: memoryview, timeout: float | None = None) -> int:
        """See Filling."""
        with lost_link(self.host, self._why):
            self._check()
            return read_into(self._stdin, into, timeout, self._wake)

    def write(self, data: bytes | memoryview, timeout: float | None = None) -> None:
        """See Channel."""
        with lost_link(self.host, self._why):
            self._check()
            write_whole(self._stdout, data, timeout, self._wake)

    def interrupt(self, reason: str) -> None:
        """From any thread: every read and write, one that waits too, is LinkLost from here on."""
        self._interrupted = reason
        os.eventfd_write(self._wake, 1)

    def _check(self) -> None:
        if self._interrupted:
            raise OSError(errno.ECANCELED, self._interrupted)

    def _why(self) -> str:
        return self._interrupted

    def close_write(self) -> None:
        """See Channel. The number stays taken, so that nothing else becomes standard output."""
        _to_null(self._stdout, os.O_WRONLY)

    def wait(self, timeout: float | None = None) -> int:
        """See Channel. There is no program to wait for: it is the one that started us."""
        return 0

    def stderr_tail(self) -> str:
        """See Channel. Ours goes to the caller's."""
        return ""

    def close(self) -> None:
        """See Channel."""
        _to_null(self._stdin, os.O_RDONLY)
        self.close_write()


def _to_null(fd: int, flags: int) -> None:
    null = os.open("/dev/null", flags | os.O_CLOEXEC)
    os.dup2(null, fd)
    os.close(null)


def enlarge(fd: int) -> None:
    """Make a pipe hold more, so that its two ends wake each other less often."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:  # no pipe, or over /proc/sys/fs/pipe-user-pages-soft: slower, nothing else
        pass


@contextmanager
def lost_link(host: str, why: Callable[[], str] = str) -> Iterator[None]:
    """Turn what the kernel says about a stream into LinkLost; `why` may know better words."""
    try:
        yield
    except TimeoutError as error:
        # without that number it is ours: nothing moved for as long as the caller would wait
        if error.errno != errno.ETIMEDOUT:
            raise
        raise LinkLost(host=host, reason=error.strerror) from None
    except OSError as error:
        reason = "it was closed here" if error.errno == errno.EBADF else error.strerror
        raise LinkLost(host=host, reason=why() or reason) from None
    except ValueError:  # a closed file object has no number
        raise LinkLost(host=host, reason="it was closed here") from None


def read_some(fd: int, size: int, timeout: float | None, wake: int = -1) -> bytes:
    """read(2) on a non-blocking descriptor: waits for at least one byte, or b"" at the end.

    Raises OSError ECANCELED when `wake` can be read while it waits.
    """
    while True:
        try:
            return os.read(fd, size)
        except BlockingIOError:
            _await(fd, select.POLLIN, timeout, wake)
        except ConnectionResetError:  # a socket whose other end closed with our data unread
            return b""


def read_into(fd: int, into: memoryview, timeout: float | None, wake: int = -1) -> int:
    """read_some() to a place of the caller's: how many bytes came."""
    while True:
        try:
            return os.readv(fd, [into])
        except BlockingIOError:
            _await(fd, select.POLLIN, timeout, wake)
        except ConnectionResetError:
            return 0


def write_whole(fd: int, data: bytes | memoryview, timeout: float | None, wake: int = -1) -> None:
    """write(2) on a non-blocking descriptor until all of it is gone; `wake` as in read_some()."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            _await(fd, select.POLLOUT, timeout, wake)


def _await(fd: int, event: int, timeout: float | None, wake: int) -> None:
    """Wait until `fd` can be read or written."""
    poll = select.poll()
    poll.register(fd, event)
    if wake >= 0:
        poll.register(wake, select.POLLIN)
    ready = poll.poll(None if timeout is None else timeout * 1000)
    if not ready:
        raise TimeoutError("no progress")
    if any(number == wake for number, _ in ready):
        raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
