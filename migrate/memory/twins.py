"""Pages that two processes share since fork(2), found by their physical addresses. Never reads a page.

A private page that parent and child both map is one neither has written since: the first to write gets a
page of its own. So where the far side has the parent's page as it is now, it can copy the child's.
"""

import os
from array import array

from ocimig.migrate.memory.runs import PAGE, Run

_PRESENT = 1 << 63
_FRAME = (1 << 55) - 1  # the number of the page frame; zeros for those who may not know it
_KNOWN = _PRESENT | _FRAME
_MOST = 1 << 18  # entries of /proc/PID/pagemap that are read at once


def shared(pid: int, other: int, runs: list[Run]) -> list[Run]:
    """What of these runs is the same memory in both processes, at the same addresses.

    Needs CAP_SYS_ADMIN to find anything; a process that is gone shares nothing.
    """
    found: list[Run] = []
    try:
        with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as one:
            with open(f"/proc/{other}/pagemap", "rb", buffering=0) as two:
                for start, end in runs:
                    for low in range(start, end, _MOST * PAGE):
                        high = min(end, low + _MOST * PAGE)
                        _compare(one.fileno(), two.fileno(), low, high, found)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
    return found


def _compare(one: int, two: int, low: int, high: int, found: list[Run]) -> None:
    size, at = (high - low) // PAGE * 8, low // PAGE * 8
    ours, theirs = os.pread(one, size, at), os.pread(two, size, at)
    address = low
    for mine, its in zip(array("Q", ours), array("Q", theirs), strict=False):
        if not (mine ^ its) & _KNOWN and mine & _PRESENT and mine & _FRAME:
            if found and found[-1][1] == address:
                found[-1] = (found[-1][0], address + PAGE)
            else:
                found.append((address, address + PAGE))
        address += PAGE
