"""The process that a copy leaves behind as long as some of its memory is only in the images.

It restores the copy, says how that went, and stays: it has the page handler (migrate/lazy), which puts memory
into the copy where it is touched. It ends when all is there or the copy has ended; who wants to save the copy
has it fill in everything first. When it is killed, the handler fills in everything and ends; when the handler
is killed, another takes its place; where none can, the copy is ended, and keeper.log in its state says why.
"""

import os
import resource
import select
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from ocimig import jsonio, log
from ocimig.errors import OcimigError
from ocimig.files import Fd
from ocimig.migrate.clone.errors import NotCloned
from ocimig.migrate.lazy.handler import PageHandler
from ocimig.runtime.cgroups import layout

LOG = "keeper.log"
_NEVER = -1000  # of the kernel, when it looks for somebody to kill
_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)
_TICK = 50  # milliseconds
Said = Callable[[dict[str, Any]], None]


def apart(work: Callable[[Said], None]) -> dict[str, Any]:
    """Run `work` in a process of its own, until it says how it went; the process stays as long as it works.

    Raises NotCloned with what it raised. When we are interrupted, it is, and undoes what it has begun.
    """
    reader, writer = os.pipe()
    # An interruption between any two steps from here on would leave it to itself: it is looked for.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTIONS)
    pid = os.fork()
    if not pid:
        os.close(reader)
        _be(work, writer, before)
    os.close(writer)
    try:
        with open(reader, "rb") as answer:
            if _interrupted(reader):
                os.kill(pid, signal.SIGTERM)  # our child, not yet waited for
                os.waitpid(pid, 0)
            said = answer.read()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # and what came is raised
    if not said:
        _, status = os.waitpid(pid, 0)
        raise NotCloned(reason=f"its process ended ({status})", remedy="", code=1)
    document: dict[str, Any] = jsonio.loads(said)
    if "reason" in document:
        os.waitpid(pid, 0)
        raise NotCloned(**document)
    return document


def _interrupted(reader: int) -> bool:
    """Wait until there is something to read; whether somebody wants us to stop before."""
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    # One that is ignored waits here as any other does that is blocked.
    heard = {each for each in _INTERRUPTIONS if signal.getsignal(each) != signal.SIG_IGN}
    while not poller.poll(_TICK):
        if signal.sigpending() & heard:
            return True
    return False


def _be(
    work: Callable[[Said], None], writer: int, unblocked: "set[signal.Signals | int]"
) -> NoReturn:
    """The process itself."""
    left = [writer]

    def say(document: dict[str, Any]) -> None:
        while left:
            fd = left.pop()
            with suppress(BrokenPipeError):  # who was interrupted does not listen any more
                os.write(fd, jsonio.dumps(document).encode())
            os.close(fd)

    try:
        os.setsid()  # Ctrl-C is for whoever started us, who tells us
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        work(say)
    except OcimigError as error:
        say({"reason": str(error), "remedy": error.advice, "code": error.code})
    except BaseException as error:  # noqa: BLE001  a child that unwinds further would be a second parent
        say({"reason": f"{type(error).__name__}: {error}", "remedy": "", "code": 1})
        log.error(f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def settle_in() -> None:
    """Be nobody's to end but the copy's: with a service, a session or a full cgroup of whoever started us
    both we and the handler would end at once, and the copy would read zeros. What is not allowed is left."""
    here = layout.read()
    for hierarchy in [*here.v1, *([here.unified] if here.unified else [])]:
        with suppress(OSError), open(f"{hierarchy.mountpoint}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(_NEVER))
    with suppress(OSError, ValueError):  # each process that the copy forks is one more
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def keep(pages: PageHandler, pid: int, directory: str, listener: socket.socket) -> None:
    """Return when the copy has all of its memory, or has ended. `pid` is its first process, our child;
    `listener` is hurry's."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Fd(os.open(os.devnull, os.O_RDWR)) as null:
        os.dup2(null, 0)
        os.dup2(null, 1)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with Fd(os.open(os.path.join(directory, LOG), flags, 0o600)) as file:
        os.dup2(file, 2)
    os.chdir("/")
    watch = threading.Thread(target=_watch, args=(pages, pid, listener), daemon=True)
    watch.start()
    pages.filled()


def _watch(pages: PageHandler, pid: int, listener: socket.socket) -> None:
    """Until the copy ends."""
    with Fd(os.pidfd_open(pid)) as pidfd:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.register(listener, select.POLLIN)
        while pidfd not in dict(poller.poll()):
            listener.accept()[0].close()
            pages.fill()
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
    pages.close()  # nobody waits for a page any more
