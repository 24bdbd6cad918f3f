"""Have running processes make a userfaultfd for us, and get it. Never decides what it watches.

The work is done by `ocimig-init arm` (runtime/init/arm.c), outside, from sealed memory. It borrows one
thread of each process for two system calls; the process is stopped meanwhile, some tenths of a
millisecond, and notices nothing.
"""

import _socket
import os
import select
import struct

from ocimig.runtime import launch, sync
from ocimig.runtime.linux import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ARMED = 6  # MSG_ARMED of runtime/init/init.h
_ANSWER = struct.Struct("=iiI52s")  # struct answer of runtime/init/arm.c
_PATIENCE = 10  # seconds for one process; it takes less than 0.7 even where a process does not stop


class Armed:
    """What became of one process: `fd`, ours to close, or the reason why there is none."""

    __slots__ = ("errno", "fd", "pid", "reason", "stopped")

    def __init__(self, pid: int, fd: int, errno: int, reason: str, stopped: float) -> None:
        self.pid = pid
        self.fd = fd  # -1 without
        self.errno = errno
        self.reason = reason
        self.stopped = stopped  # seconds


def arm(pids: "Iterable[int]") -> "dict[int, Armed]":
    """A userfaultfd in each of these processes, before UFFDIO_API; what has ended is left out.

    Raises NoInit when the program is not compiled; what goes wrong with a process is in its answer.
    """
    wanted = [(pid, it.start_time) for pid in pids if (it := proc.stat(pid)) is not None]
    return _run(wanted) if wanted else {}


def works() -> str:
    """Try it on a process of our own: "" when it works, else why not."""
    answer = _run([(0, 0)]).get(0)
    if answer is None:
        return "the helper did not answer"
    if answer.fd < 0:
        return answer.reason
    os.close(answer.fd)
    return ""


def _run(wanted: "list[tuple[int, int]]") -> "dict[int, Armed]":
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    child = 0
    found: dict[int, Armed] = {}
    try:
        program = launch.sealed_program()
        try:
            os.set_inheritable(theirs.fileno(), True)
            argv = ["ocimig-init", "arm", str(theirs.fileno())]
            argv += [f"{pid}:{start}" for pid, start in wanted]
            child = os.posix_spawn(f"/proc/self/fd/{program}", argv, {})
        finally:
            theirs.close()
            os.close(program)
        _listen(ours, found, len(wanted))
    except BaseException:
        for answer in found.values():
            if answer.fd >= 0:
                os.close(answer.fd)
        raise
    finally:
        ours.close()
        # Never killed: it may hold a process's registers. One that still waits ends by itself.
        if child:
            os.waitpid(child, 0 if len(found) == len(wanted) else os.WNOHANG)
    return found


def _listen(socket: "_socket.socket", found: "dict[int, Armed]", count: int) -> None:
    poller = select.poll()
    poller.register(socket.fileno(), select.POLLIN)
    messages = sync.Line(socket).messages()
    while len(found) < count and poller.poll(_PATIENCE * 1000):
        message = next(messages, None)
        if message is None:
            return
        if message.kind == _ARMED:
            pid, number, stopped, what = _ANSWER.unpack(message.body)
            reason = what.split(b"\0")[0].decode("utf-8", "replace")
            if number:
                reason = f"{reason}: {launch.words(number)}"
            fd = message.fds[0] if message.fds else -1
            found[pid] = Armed(pid, fd, number, reason, stopped / 1e6)
