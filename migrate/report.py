"""What a migration was: its phases and their times, its bytes, its blackout. Never prints."""

from dataclasses import dataclass, field
from typing import Any

from ocimig.migrate.phases import PHASES
from ocimig.migrate.preflight import Finding
from ocimig.migrate.progress import Progress


@dataclass(frozen=True, slots=True)
class Span:
    """A step: when it began, how long it took, where."""

    name: str
    begin: float
    seconds: float
    side: str = "here"


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

    def to_dict(self) -> dict[str, Any]:
        """For --json. Names stay; new ones may come."""
        return {
            "id": self.id,
            "migration": self.migration,
            "target": self.target,
            "outcome": self.outcome,
            "seconds": round(self.seconds, 6),
            "blackout_seconds": round(self.blackout, 6),
            "phases": [{"name": name, "seconds": round(took, 6)} for name, took in self.phases],
            "steps": [
                {
                    "name": span.name,
                    "side": span.side,
                    "begin": round(span.begin, 6),
                    "seconds": round(span.seconds, 6),
                }
                for span in self.spans
            ],
            "bytes": self.bytes,
            "findings": [finding.to_dict() for finding in self.findings],
            "leftovers": list(self.leftovers),
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """The report as a person reads it."""
        said = [f"{self.id}: {self.outcome}" + (f" ({self.target})" if self.target else "")]
        said += [f"  {name:<10} {_time(took):>10}" for name, took in self.phases]
        if self.blackout:
            said.append(f"  {'blackout':<10} {_time(self.blackout):>10}")
            said += [f"    {span.side:<6} {span.name:<28} {_time(span.seconds):>10}"
                     for span in self.spans if span.seconds >= 0.0005]  # fmt: skip
        said += [f"  {name:<28} {size(count):>10}" for name, count in self.bytes.items()]
        said += [
            f"  {finding.severity}: {finding.text}; {finding.fix}" for finding in self.findings
        ]
        said += [f"  note: {note}" for note in self.notes]
        said += [f"  left over here: {thing}" for thing in self.leftovers]
        return said


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def size(count: int) -> str:
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
    ends = [begin for _, begin in reached[1:]] + [progress.now()]
    return tuple((name, end - begin) for (name, begin), end in zip(reached, ends, strict=True))


def spans_of(progress: Progress, there: list[dict[str, Any]]) -> tuple[Span, ...]:
    """Our steps and the far side's, which come with times of its own clock."""
    ours = [Span(*span) for span in progress.spans]
    theirs = [
        Span(str(span["name"]), float(span["begin"]), float(span["seconds"]), "there")
        for span in there
    ]
    return (*ours, *theirs)
