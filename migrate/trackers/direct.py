"""Reads past the page cache (O_DIRECT): a device writes to memory, and no page table shows it.

The kernel makes the page writable when the read begins, which is seen; the data comes later. A look
that falls in between reports the page, protects it, and would let it be read too early. Processes that
do so are paused for the look: one that stands still is in no such read. Where nothing can be paused we
wait after the look until the threads that slept in a read then are out of it.
"""

import os
import time
from collections.abc import Iterable

_LIMIT = 2.0  # seconds: a read that takes longer is on a disk in trouble
_STEP = 0.0002
_RUNS = 16  # times a thread ran since: it was out of that read, though we always met it in another


def used(pid: int) -> bool:
    """Whether the process has a file open with O_DIRECT."""
    try:
        names = os.listdir(f"/proc/{pid}/fdinfo")
    except OSError:
        return False
    return any(_flags(pid, name) & os.O_DIRECT for name in names)


def settle(pids: Iterable[int]) -> list[int]:
    """Wait until each thread that is in uninterruptible sleep now has left it once; those that do not."""
    waiting = {key: runs for pid in pids for key, runs in _asleep(pid)}
    end = time.monotonic() + _LIMIT
    while waiting and time.monotonic() < end:
        time.sleep(_STEP)
        waiting = {
            (pid, tid): runs
            for (pid, tid), runs in waiting.items()
            if _state(pid, tid) == "D" and _ran(pid, tid) < runs + _RUNS
        }
    return sorted({pid for pid, _ in waiting})


def _asleep(pid: int) -> list[tuple[tuple[int, int], int]]:
    try:
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []
    return [((pid, tid), _ran(pid, tid)) for tid in threads if _state(pid, tid) == "D"]


def _state(pid: int, tid: int) -> str:
    text = _read(f"/proc/{pid}/task/{tid}/stat")
    return text.rpartition(")")[2][1:2]


def _ran(pid: int, tid: int) -> int:
    """How many times the thread was put on a processor."""
    fields = _read(f"/proc/{pid}/task/{tid}/schedstat").split()
    return int(fields[2]) if len(fields) > 2 else 0


def _flags(pid: int, name: str) -> int:
    for line in _read(f"/proc/{pid}/fdinfo/{name}").splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8)
    return 0


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(4096).decode("utf-8", "replace")
    except OSError:
        return ""
