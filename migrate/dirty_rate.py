"""How fast a container writes to its memory, measured while it runs. Changes nothing of it."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from ocimig.migrate import journal, trackers, withholding
from ocimig.migrate.forecast import Writes, writes_of
from ocimig.migrate.memory.runs import PAGE, Run, total, union
from ocimig.migrate.report import duration, size
from ocimig.migrate.trackers import Tracker
from ocimig.runtime import cgroups
from ocimig.runtime import state as facts
from ocimig.runtime.errors import NotRunning
from ocimig.runtime.linux import proc
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store

INTERVAL = 0.25  # seconds between two looks, where looking is cheap
_SHARE = 4  # of the time, at most one in so many is spent on looking


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the container."""

    pid: int  # inside
    name: str
    resident: int  # bytes that were there at first
    written: int  # bytes written a second


@dataclass(frozen=True, slots=True)
class DirtyRate:
    """What was measured. Bytes are of whole pages: a byte that is written counts as 4096."""

    id: str
    tracker: str
    seconds: float
    resident: int  # bytes of private memory that were there at first
    rate: float  # bytes a second, each page once an interval
    peak: float  # the same, in the busiest interval
    distinct: int  # bytes that were written at least once in all that time
    writes: Writes
    processes: tuple[Process, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """For --json. Names stay; new ones may come."""
        return {
            "id": self.id,
            "tracker": self.tracker,
            "seconds": round(self.seconds, 3),
            "resident_bytes": self.resident,
            "dirty_bytes_per_second": round(self.rate),
            "peak_bytes_per_second": round(self.peak),
            "distinct_dirty_bytes": self.distinct,
            "processes": [
                {"pid": each.pid, "name": each.name, "resident_bytes": each.resident,
                 "dirty_bytes_per_second": each.written}
                for each in self.processes
            ],
            "notes": list(self.notes),
        }  # fmt: skip

    def lines(self) -> list[str]:
        """As a person reads it."""
        pages = self.rate / PAGE
        said = [
            f"{self.id}: {size(self.rate)} written a second ({pages:,.0f} pages), measured for "
            f"{duration(self.seconds)} ({self.tracker})",
            f"  {'in the busiest moment':<24} {size(self.peak):>10} a second",
            f"  {'different pages':<24} {size(self.distinct):>10}",
            f"  {'memory':<24} {size(self.resident):>10}",
        ]
        if len(self.processes) > 1:
            said += [
                f"  {each.pid:>7} {each.name:<16} {size(each.written):>10} a second of "
                f"{size(each.resident)}"
                for each in self.processes[:10]
            ]
        return said + [f"  note: {note}" for note in self.notes]


def measure(
    store: Store, id: str, seconds: float = 2.0, prefer: str = "", *, claimed: bool = False
) -> DirtyRate:
    """Look at a running container again and again for that long. `claimed` is for a caller that has
    journal.claim_container already. Raises NotRunning, NoTracker, MigrationBusy."""
    state = store.load(id)
    status = facts.status(state, store)
    if status != facts.RUNNING:
        raise NotRunning(id=id, status=status)
    with nullcontext() if claimed else journal.claim_container(store, id):
        tracker = trackers.choose(prefer, pause=lambda: paused(state))
        try:
            return watch(id, tracker, lambda: _tasks(state.pid), seconds)
        finally:
            tracker.close()


def watch(
    id: str, tracker: Tracker, tasks: Callable[[], Mapping[int, int]], seconds: float
) -> DirtyRate:
    """The measurement itself; `tasks` says each time who is to be looked at."""
    first = tracker.look(tasks())
    began = last = time.monotonic()
    resident = {each.space: total(each.runs) for each in first}
    names = {each.space: (each.pid, tasks().get(each.pid, 0)) for each in first}
    seen: dict[str, list[Run]] = {}
    written: dict[str, int] = defaultdict(int)
    samples: list[tuple[float, int]] = []
    nap = INTERVAL
    while (left := began + seconds - last) > 0.01:
        time.sleep(min(nap, left))
        found = tracker.look(tasks())
        now = time.monotonic()
        count = 0
        for each in found:
            names[each.space] = (each.pid, tasks().get(each.pid, 0))
            seen[each.space] = union(seen.get(each.space, []), each.runs)
            written[each.space] += total(each.runs)
            count += total(each.runs)
        samples.append((now - last, count))
        nap = max(INTERVAL, (now - last - nap) * _SHARE)
        last = now
    elapsed = last - began
    every = elapsed / max(len(samples), 1)
    counted = sum(count for _, count in samples)
    distinct = sum(map(total, seen.values()))
    return DirtyRate(
        id=id,
        tracker=tracker.name,
        seconds=elapsed,
        resident=sum(resident.values()),
        rate=counted / elapsed if elapsed else 0.0,
        peak=max((count / took for took, count in samples if took), default=0.0),
        distinct=distinct,
        writes=writes_of(every, counted / PAGE / max(len(samples), 1), elapsed, distinct / PAGE),
        processes=tuple(_processes(names, resident, written, elapsed)),
        notes=tuple(tracker.notes),
    )


def _processes(
    names: Mapping[str, tuple[int, int]],
    resident: Mapping[str, int],
    written: Mapping[str, int],
    elapsed: float,
) -> list[Process]:
    """Those that write most first."""
    found = []
    for space, (pid, inside) in names.items():
        stat = proc.stat(pid)
        rate = round(written.get(space, 0) / elapsed) if elapsed else 0
        name = stat.comm if stat is not None else "(ended)"
        found.append(Process(inside, name, resident.get(space, 0), rate))
    return sorted(found, key=lambda each: (-each.written, -each.resident))


def _tasks(pid: int) -> Mapping[int, int]:
    return withholding.tasks([pid, *proc.descendants(pid)])


@contextmanager
def paused(state: ContainerState) -> Iterator[None]:
    """The container's processes stand still meanwhile, by the freezer of its cgroup."""
    group = cgroups.from_facts(state.cgroups)
    group.freeze()
    try:
        yield
    finally:
        group.thaw()
