"""A process that we wait for: signals go to it, its terminal is ours, its exit code becomes ours."""

import os
import select

from ocimig.runtime import console
from ocimig.runtime.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


class Foreground:
    """Use as `with Foreground(...) as front:`, make the process inside, then attach() and wait().

    arm() comes just before the process runs: from then on a signal is the process's, not ours.

    With `subreaper` the orphans of a container without a pid namespace become our children, so that
    they are reaped here.
    """

    __slots__ = ("armed", "master", "pid", "pidfd", "signals", "terminal")

    def __init__(self, terminal: bool, *, subreaper: bool) -> None:
        self.armed = False
        self.terminal = terminal
        self.pid = 0
        self.pidfd = -1
        self.master = -1
        self.signals = console.Signals()
        if subreaper:
            process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)

    def __enter__(self) -> "Self":
        return self

    def arm(self) -> None:
        """Keep signals for the process; they wait for wait()."""
        self.signals.__enter__()
        self.armed = True

    def __exit__(self, *_: object) -> None:
        if self.armed:
            self.signals.__exit__(None, None, None)
            self.armed = False
        for fd in (self.pidfd, self.master):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.master = -1

    def attach(self, pid: int, master: int) -> None:
        """Take the process, our child, and the master of its terminal, which is closed at the end."""
        self.pid = pid
        self.master = master
        self.pidfd = os.pidfd_open(pid)
        if not self.armed:
            self.arm()

    def wait(self) -> int:
        """Wait until the process ends; its exit code, 128+N when signal N ended it."""
        if self.terminal and self.master >= 0:
            with console.Relay(self.master) as relay:
                relay.run(self.pidfd, self.signals, self._forward)
            os.close(self.master)  # where the process still runs, its terminal is hung up
            self.master = -1
        self._wait()
        _, status = os.waitpid(self.pid, 0)
        self._reap_orphans()
        code = os.waitstatus_to_exitcode(status)
        return 128 - code if code < 0 else code

    def _wait(self) -> None:
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        poller.register(self.signals.fileno(), select.POLLIN)
        while self.pidfd not in dict(poller.poll()):
            for number in self.signals.read():
                self._forward(number)

    def _forward(self, number: int) -> None:
        try:
            process.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass  # it has just ended

    def _reap_orphans(self) -> None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
