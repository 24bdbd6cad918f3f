"""Processes that CRIU cannot bring to a stop, and letting go of those that it has stopped. Never kills CRIU.

A thread that waits in vfork(2), as posix_spawn(3) does too, does not stop for ptrace(2) until its child
has started its program, and the child, stopped by CRIU a moment before, never does: CRIU waits as long
as it is patient. The way out is to end CRIU and to begin again.
"""

import os
from collections.abc import Iterable

from ocimig.migrate import netlock
from ocimig.runtime import cgroups
from ocimig.runtime.linux import kcmp, proc
from ocimig.runtime.state import ContainerState

TRIES = 12  # a program that does nothing but start others is met in vfork one time in ten


def hopeless(pids: Iterable[int]) -> str:
    """Who waits for a child that is stopped, in words; empty when nobody does."""
    for pid in pids:
        child = proc.stat(pid)
        if child is None or child.state not in "tT" or not kcmp.same_memory(pid, child.ppid):
            continue
        if "D" in _states(child.ppid):
            return f"process {child.ppid} ({child.comm}) waits in vfork(2) for process {pid}"
    return ""


def _states(pid: int) -> set[str]:
    found = set()
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:
                found.add(file.read().rpartition(b")")[2].split()[0].decode())
    except OSError:  # it ended
        pass
    return found


def let_go(state: ContainerState, *, paused: bool) -> None:
    """CRIU died: the kernel let the processes go, but not their sockets, nor a v1 freezer."""
    group = cgroups.from_facts(state.cgroups) if state.cgroups else None
    netlock.clear_repair(group.pids() if group is not None else [state.pid])
    if group is not None and group.frozen() and not paused:
        group.thaw()
