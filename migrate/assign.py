"""Which container goes to which host. Pure: knows only what was found out, asks nobody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ocimig.migrate.inside import REFUSE, Finding
from ocimig.migrate.preflight import MEMORY_SHARE, RESERVE

NO_ROOM = 15
NO_HOST = 14


@dataclass(frozen=True, slots=True)
class Room:
    """What a host has left, in bytes."""

    host: str
    memory: int

    def after(self, memory: int) -> "Room":
        """The same host with that much more on it."""
        return replace(self, memory=self.memory - need(memory))


@dataclass(frozen=True, slots=True)
class Fit:
    """One container on one host: what preflight says, and how much its disk there has left."""

    findings: tuple[Finding, ...] = ()
    disk: int = 0

    @property
    def refused(self) -> Finding | None:
        """The first thing that stands in the way."""
        return next((each for each in self.findings if each.severity == REFUSE), None)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A container that shall leave. `memory` and `files` in bytes; `fits` by the name of the host."""

    id: str
    memory: int
    files: int
    fits: Mapping[str, Fit] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where one goes and why; without a host, why nowhere, and the exit code of that."""

    id: str
    host: str
    reason: str
    fix: str = ""
    code: int = 0


def need(memory: int) -> int:
    """Bytes that have to be free for a container of that size."""
    return int(memory * MEMORY_SHARE)


def assign(containers: Sequence[Candidate], rooms: Sequence[Room]) -> list[Assignment]:
    """The largest first, each to the host that has most memory left of those that take it.

    What was given to a host counts against its memory and its disk for those that come after. The
    first of two equal hosts wins, so that the same facts give the same plan.
    """
    left = {room.host: room for room in rooms}
    filled = dict.fromkeys(left, 0)
    found = []
    for each in sorted(containers, key=lambda one: (-one.memory, one.id)):
        open_to = [room for room in left.values() if not _against(each, room, filled[room.host])]
        if not open_to:
            found.append(_nowhere(each, list(left.values()), filled))
            continue
        best = max(open_to, key=lambda room: room.memory)
        left[best.host] = best.after(each.memory)
        filled[best.host] += each.files
        others = len(left) > 1
        reason = f"{best.memory >> 20} MiB free" + (
            ", most of those that take it" if others else ""
        )
        found.append(Assignment(each.id, best.host, reason))
    return found


def _against(container: Candidate, room: Room, filled: int) -> Finding | None:
    """Why it cannot go there; None when it can."""
    fit = container.fits.get(room.host)
    if fit is None:
        return Finding(REFUSE, "unknown", "nobody asked that host", "try again", NO_HOST)
    if fit.refused is not None:
        return fit.refused
    if room.memory < need(container.memory) + RESERVE:
        text = f"{room.memory >> 20} MiB of memory would be left there for {container.memory >> 20} MiB"
        return Finding(REFUSE, "memory", text, "name one more host with --to", NO_ROOM)
    if fit.disk - filled < container.files + RESERVE:
        text = f"{max(0, fit.disk - filled) >> 20} MiB of disk would be left there"
        return Finding(REFUSE, "disk-space", text, "name one more host with --to", NO_ROOM)
    return None


def _nowhere(container: Candidate, rooms: Sequence[Room], filled: Mapping[str, int]) -> Assignment:
    against = [(room.host, _against(container, room, filled[room.host])) for room in rooms]
    said = {host: finding for host, finding in against if finding is not None}
    if not said:
        return Assignment(container.id, "", "no host is left", "name another with --to", NO_HOST)
    first = next(iter(said.values()))
    if len({finding.text for finding in said.values()}) == 1:
        reason = first.text  # it is the container, not the hosts
    else:
        reason = "; ".join(f"{host}: {finding.text}" for host, finding in said.items())
    return Assignment(container.id, "", reason, first.fix, first.code)
