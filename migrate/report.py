"""What a migration was: its phases and their times, its bytes, its blackout part by part. Never prints."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ocimig.migrate.phases import PHASES
from ocimig.migrate.preflight import Finding
from ocimig.migrate.progress import Progress
from ocimig.migrate.rounds import PAGE, RoundStats

if TYPE_CHECKING:
    from ocimig.migrate.dirty_rate import DirtyRate
    from ocimig.migrate.forecast import Forecast

FREEZE, DUMP, DELTA, WIRE, FILES, RESTORE, NETWORK = PARTS = (
    "freeze", "dump", "delta", "wire", "files", "restore", "network"
)  # fmt: skip

# What each step of the blackout is counted as. Steps that only wait for the far side, and those that are
# not here, count as WIRE where nothing else goes on.
PART_OF = {
    "stop the processes": FREEZE,
    "freeze": FREEZE,
    "lock the network": NETWORK,
    "look at descriptors and mounts": DUMP,
    "criu dumps": DUMP,
    "freeze and dump": DUMP,
    "documents": DUMP,
    "look at memory": DUMP,
    "last pages": DELTA,
    "files while frozen": FILES,
    "files, pass 2": FILES,
    "files, pass 3": FILES,
    "restore": RESTORE,
    "released": RESTORE,
    "network attached": NETWORK,
}


@dataclass(frozen=True, slots=True)
class Span:
    """A step: when it began on the source's clock, how long it took, where."""

    name: str
    begin: float
    seconds: float
    side: str = "here"

    @property
    def end(self) -> float:
        """When it was over."""
        return self.begin + self.seconds

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "name": self.name,
            "side": self.side,
            "begin": round(self.begin, 6),
            "seconds": round(self.seconds, 6),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The end of a migration, or of a dry run."""

    id: str
    migration: str
    target: str
    outcome: str  # "moved", "possible", "resumed here", "finished", "aborted"
    seconds: float = 0.0
    blackout: float = 0.0
    phases: tuple[tuple[str, float], ...] = ()
    spans: tuple[Span, ...] = ()
    bytes: dict[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    leftovers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    predicted: float = 0.0  # seconds of blackout, as foreseen when it was frozen
    parts: dict[str, float] = field(default_factory=dict)  # of PARTS; they add up to the blackout
    rounds: tuple[RoundStats, ...] = ()
    reason: str = ""  # why it was frozen when it was
    frozen_at: float = 0.0  # seconds since the migration began, as in the spans
    rate: "DirtyRate | None" = None  # of a dry run
    forecast: "Forecast | None" = None

    def to_dict(self) -> dict[str, Any]:
        """For --json. Names stay; new ones may come."""
        return {
            "id": self.id,
            "migration": self.migration,
            "target": self.target,
            "outcome": self.outcome,
            "seconds": round(self.seconds, 6),
            "blackout_seconds": round(self.blackout, 6),
            "predicted_blackout_seconds": round(self.predicted, 6),
            "blackout_parts": {name: round(took, 6) for name, took in self.parts.items()},
            "phases": [{"name": name, "seconds": round(took, 6)} for name, took in self.phases],
            "rounds": [_round(each) for each in self.rounds],
            "reason": self.reason,
            "dirty_rate": self.rate.to_dict() if self.rate is not None else None,
            "forecast": self.forecast.to_dict() if self.forecast is not None else None,
            "steps": [span.to_dict() for span in self.spans],
            "bytes": self.bytes,
            "findings": [finding.to_dict() for finding in self.findings],
            "leftovers": list(self.leftovers),
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """The report as a person reads it."""
        said = [f"{self.id}: {self.outcome}" + (f" ({self.target})" if self.target else "")]
        said += [f"  {name:<10} {duration(took):>10}" for name, took in self.phases]
        said += self._memory() + self.foreseen()
        if self.blackout:
            foreseen = f"   (predicted {duration(self.predicted)})" if self.predicted else ""
            said.append(f"  {'blackout':<10} {duration(self.blackout):>10}{foreseen}")
            parts = self.parts.items()
            said += [
                f"    {name:<8} {duration(took):>10}" for name, took in parts if took >= 0.0005
            ]
        said += [f"  {name:<28} {size(count):>10}" for name, count in self.bytes.items()]
        said += [
            f"  {finding.severity}: {finding.text}; {finding.fix}" for finding in self.findings
        ]
        said += [f"  note: {note}" for note in self.notes]
        said += [f"  left over here: {thing}" for thing in self.leftovers]
        return said

    def foreseen(self) -> list[str]:
        """What a dry run measured and what would be."""
        said = [f"  {line}" for line in self.rate.lines()] if self.rate is not None else []
        if (seen := self.forecast) is not None:
            said.append(
                f"  foreseen: {seen.rounds} rounds, {size(seen.sent_bytes)} of memory in "
                f"{duration(seen.seconds)}, then {duration(seen.blackout)} of blackout"
            )
            said.append(f"    {seen.action}: {seen.reason}")
        return said

    def _memory(self) -> list[str]:
        said = [
            f"  round {each.number:<4} {duration(each.seconds):>10}   "
            f"{size((each.pages - each.skipped_pages) * PAGE)} went, "
            f"{size(each.dirty_pages * PAGE)} written meanwhile"
            + (f", slowed down by {each.throttle:.0%}" if each.throttle else "")
            for each in self.rounds
        ]
        if self.rounds and self.reason:
            said.append(f"  frozen then: {self.reason}")
        return said


def build(
    progress: Progress,
    *,
    id: str,
    migration: str,
    target: str,
    outcome: str,
    frozen_at: float = 0.0,
    running_at: float = 0.0,
    bytes: dict[str, int] | None = None,
    findings: Sequence[Finding] = (),
    notes: Sequence[str] = (),
    rate: "DirtyRate | None" = None,
    forecast: "Forecast | None" = None,
) -> Report:
    """The report of what `progress` saw; times are seconds since the migration began."""
    spans = spans_of(progress, ())
    last = progress.decision
    return Report(
        id=id,
        migration=migration,
        target=target,
        outcome=outcome,
        seconds=progress.now(),
        blackout=max(0.0, running_at - frozen_at),
        phases=phase_times(progress),
        spans=spans,
        bytes=bytes or {},
        findings=tuple(findings),
        notes=tuple(notes),
        predicted=progress.predicted,
        frozen_at=frozen_at,
        parts=breakdown(spans, frozen_at, running_at),
        rounds=tuple(progress.rounds),
        reason=last.reason if last is not None else "",
        rate=rate,
        forecast=forecast,
    )


def breakdown(spans: Sequence[Span], begin: float, end: float) -> dict[str, float]:
    """How much of the time from `begin` to `end` each part took. Adds up to all of it.

    At each moment the step counts that began last, of both sides; where none of them is known, the
    time went by waiting for the wire.
    """
    found = dict.fromkeys(PARTS, 0.0)
    if end <= begin:
        return {}
    known = [span for span in spans if span.name in PART_OF]
    edges = {begin, end}
    for span in known:
        edges.update(edge for edge in (span.begin, span.end) if begin < edge < end)
    ordered = sorted(edges)
    for left, right in pairwise(ordered):
        over = [span for span in known if span.begin <= left and span.end >= right]
        part = PART_OF[max(over, key=_latest).name] if over else WIRE
        found[part] += right - left
    return found


def _latest(span: Span) -> tuple[float, float]:
    return span.begin, -span.seconds


def duration(seconds: float) -> str:
    """A time as a person reads it."""
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def size(count: float) -> str:
    """Bytes in IEC units."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def phase_times(progress: Progress) -> tuple[tuple[str, float], ...]:
    """How long each phase that was reached took."""
    reached = [(row.name, progress.marks[row.name]) for row in PHASES if row.name in progress.marks]
    ends = [*(begin for _, begin in reached[1:]), progress.now()][: len(reached)]
    return tuple((name, end - begin) for (name, begin), end in zip(reached, ends, strict=True))


def spans_of(progress: Progress, there: Sequence[dict[str, Any]]) -> tuple[Span, ...]:
    """Our steps and the far side's, all on our clock; `there` as a reply's `steps`, not heard yet."""
    if there:
        progress.heard({"steps": there})
    offset = progress.offset if progress.far else 0.0
    ours = [Span(*span) for span in progress.spans]
    theirs = [Span(name, begin + offset, took, "there") for name, begin, took in progress.far]
    return (*ours, *theirs)


def _round(each: RoundStats) -> dict[str, Any]:
    return {
        "number": each.number,
        "pages": each.pages,
        "skipped_pages": each.skipped_pages,
        "sent_bytes": each.sent_bytes,
        "seconds": round(each.seconds, 6),
        "dirty_pages": each.dirty_pages,
        "throttle": each.throttle,
    }
