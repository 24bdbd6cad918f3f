"""`ocimig agent` as a process: its descriptors and its signals. What it says is in `agent`."""

import os
import signal

from ocimig import log
from ocimig.errors import Interrupted
from ocimig.migrate.agent import Agent
from ocimig.migrate.destination import RealDestination
from ocimig.migrate.transport.stdio import StdioChannel
from ocimig.migrate.wire import Wire
from ocimig.runtime.store import Store


def serve(stdin: int, stdout: int, root: str) -> None:
    """`ocimig agent`: stdout carries frames only; what anything else prints goes to stderr."""
    # The link's end is seen by reading it; a signal must not take the agent away in between.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, _terminated)
    channels = [os.dup(stdin), os.dup(stdout)]
    for fd in channels:
        os.set_inheritable(fd, False)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, stdin)
    os.dup2(2, stdout)
    os.close(null)
    log.debug("the agent listens")
    Agent(Wire(StdioChannel(*channels)), Store(root), RealDestination()).serve()


def _terminated(number: int, _frame: object) -> None:
    raise Interrupted(state=f"the agent got signal {number}")
