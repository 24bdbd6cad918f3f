"""A program of the administrator's, bounded in time; nothing of its process group outlives it."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TAIL = 65536  # bytes of what it prints, so much of the end is kept
_NOT_PASSED_ON = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")  # are for us, not for it


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended: its exit status, or minus the signal. `late` when it was ended after its time.

    `output` is the end of what it printed; `whole` tells whether that is all.
    """

    code: int
    output: bytes
    late: bool
    whole: bool


def run(
    argv: Sequence[str], environment: Mapping[str, str], timeout: float, *, errors_too: bool
) -> Ended:
    """Run it in our environment and `environment`, for at most `timeout` seconds.

    Standard error is kept with the output when `errors_too`, else it goes where ours goes. Raises
    OSError when it cannot be started.
    """
    own = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(reader, False)
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer if errors_too else None,
                env={**own, **environment},
                process_group=0,
            )
        finally:
            os.close(writer)
        try:
            tail, late = _wait(process.pid, reader, timeout)
        finally:
            # Before it is reaped: until then its number, and so its group's, is nobody else's.
            _kill_group(process.pid)
            code = process.wait()
        tail += _some(reader)
    finally:
        os.close(reader)
    return Ended(code, tail[-TAIL:], late, whole=len(tail) <= TAIL)


def _wait(pid: int, reader: int, timeout: float) -> tuple[bytes, bool]:
    """Until it ends or the time is over: what it printed last, and whether it was too late.

    The process counts, not the end of its output: a daemon that left its group may hold the pipe.
    """
    end = time.monotonic() + max(timeout, 0)
    tail = b""
    pidfd = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.register(reader, select.POLLIN)
        while True:
            left = end - time.monotonic()
            if left <= 0:
                return tail, True
            events = dict(poller.poll(min(left, 3600) * 1000))
            if reader in events:
                chunk = _some(reader)
                # One more than is kept: then it shows that something was left out.
                tail = (tail + chunk)[-TAIL - 1 :]
                if not chunk:
                    poller.unregister(reader)
            if pidfd in events:
                return tail, False
    finally:
        os.close(pidfd)


def _some(reader: int) -> bytes:
    try:
        return os.read(reader, TAIL)
    except BlockingIOError:
        return b""


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
