"""Lists of address ranges and their arithmetic. Pure; never knows whose memory they are.

A run is (start, end): byte addresses, end exclusive, both multiples of the page size. A list of runs is
sorted, and its runs neither overlap nor touch. Every function here is linear in the lists it is given
(merge() sorts first, which is linear for the few sorted stretches it meets in practice).
"""

import os
from collections.abc import Iterable

PAGE = os.sysconf("SC_PAGE_SIZE")

Run = tuple[int, int]


def total(runs: Iterable[Run]) -> int:
    """How many bytes the runs cover."""
    return sum(end - start for start, end in runs)


def merge(runs: Iterable[Run]) -> list[Run]:
    """A list of runs from ranges in any order, which may overlap; empty ones vanish."""
    merged: list[Run] = []
    first = last = -1
    for start, end in sorted(runs):
        if start >= end:
            continue
        if start <= last:
            if end > last:
                last = end
            continue
        if last > first:
            merged.append((first, last))
        first, last = start, end
    if last > first:
        merged.append((first, last))
    return merged


def union(a: list[Run], b: list[Run]) -> list[Run]:
    """What is in either."""
    if not a or not b:
        return list(a or b)
    return merge(a + b)


def intersect(a: list[Run], b: list[Run]) -> list[Run]:
    """What is in both."""
    both: list[Run] = []
    others = iter(b)
    low, high = next(others, _NONE)
    for start, end in a:
        while low < end:
            if high > start:
                both.append((max(start, low), min(end, high)))
            if high > end:
                break
            low, high = next(others, _NONE)
    return both


def subtract(a: list[Run], b: list[Run]) -> list[Run]:
    """What is in `a` and not in `b`."""
    if not b:
        return list(a)
    left: list[Run] = []
    others = iter(b)
    low, high = next(others, _NONE)
    for start, end in a:
        begin = start
        while low < end:
            if low > begin:
                left.append((begin, low))
            if high > begin:
                begin = high
            if high > end:
                break
            low, high = next(others, _NONE)
        if begin < end:
            left.append((begin, end))
    return left


def check(runs: Iterable[Run]) -> None:
    """Raise ValueError unless this is a list of runs as described above."""
    before = -1
    for start, end in runs:
        if start % PAGE or end % PAGE:
            raise ValueError(f"{start:#x}-{end:#x} does not begin and end at pages")
        if start <= before or end <= start:
            raise ValueError(f"{start:#x}-{end:#x} is empty, out of order or touches another")
        before = end


_FAR = 1 << 65  # beyond every address
_NONE = (_FAR, _FAR)
