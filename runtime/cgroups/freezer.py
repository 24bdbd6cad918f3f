"""Stops and waits: the freezers of both versions, each with a bound. Never signals."""

import errno
import os
import select
import time

from ocimig.runtime.cgroups import tree
from ocimig.runtime.errors import FreezeFailed

_NAP = 0.0001
_LONGEST_NAP = 0.02
_THAW_EVERY = 50


def freeze_v1(path: str, timeout: float) -> None:
    """FROZEN in freezer.state, or thawed again and FreezeFailed."""
    state = f"{path}/freezer.state"
    deadline = time.monotonic() + timeout
    nap = _NAP
    tries = 0
    try:
        while True:
            tree.write(state, "FROZEN")
            if tree.read(state) == "FROZEN":
                return
            if time.monotonic() > deadline:
                raise FreezeFailed(path=path, seconds=timeout, detail=_stuck(path))
            tries += 1
            if tries % _THAW_EVERY == 0:
                # A process forked at the wrong moment can keep v1 in FREEZING for ever: a thaw lets
                # it finish. v2 has no such state.
                tree.write(state, "THAWED")
            time.sleep(nap)
            nap = min(nap * 2, _LONGEST_NAP)
    except BaseException:
        _thaw(state, "THAWED")
        raise


def freeze_v2(path: str, timeout: float) -> None:
    """`frozen 1` in cgroup.events, or thawed again and FreezeFailed. The kernel wakes us, no polling."""
    freeze = f"{path}/cgroup.freeze"
    deadline = time.monotonic() + timeout
    events = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        tree.write(freeze, "1")
        while b"frozen 1" not in os.pread(events, 4096, 0):
            left = deadline - time.monotonic()
            if left <= 0:
                raise FreezeFailed(path=path, seconds=timeout, detail=_stuck(path))
            poll.poll(min(left, 1.0) * 1000)
    except BaseException:
        _thaw(freeze, "0")
        raise
    finally:
        os.close(events)


def thaw_v1(path: str) -> None:
    """THAWED."""
    _thaw(f"{path}/freezer.state", "THAWED")


def thaw_v2(path: str) -> None:
    """0 in cgroup.freeze."""
    _thaw(f"{path}/cgroup.freeze", "0")


def _thaw(file: str, word: str) -> None:
    try:
        tree.write(file, word)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENODEV}:  # removed: nothing is frozen
            raise


def _stuck(path: str) -> str:
    """Who sits in a system call that cannot be interrupted, for the error."""
    from ocimig.runtime.linux import proc

    names = []
    for pid in tree.pids(path):
        found = proc.stat(pid)
        if found is not None and found.state == "D":
            names.append(f"{pid} ({found.comm})")
    return f": waiting in the kernel: {', '.join(names[:8])}" if names else ""
