"""How containers left a host, each and all together. Pure: values, a table, an exit code."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ocimig.errors import Interrupted
from ocimig.migrate.move import MigrateOptions

# Worst first: which exit code a drain has when its containers ended differently.
SEVERITY = (21, 130, 20, 1, 15, 14, 13, 11, 10, 22, 3, 0)
IN_DOUBT, WARNINGS = 21, 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended for one container. `code` is the exit code that migrate would have had."""

    id: str
    host: str
    outcome: (
        str  # moved, possible, refused, failed, in doubt, leftovers, left, not tried, interrupted
    )
    code: int = 0
    reason: str = ""
    fix: str = ""
    seconds: float = 0.0
    blackout: float = 0.0
    bytes: int = 0
    host_failed: bool = False  # it was the host, not the container

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        found = asdict(self)
        del found["host_failed"]
        found["blackout_seconds"] = round(found.pop("blackout"), 6)
        return {**found, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """`migrate` is for each container; its bandwidth limit is for all of them together."""

    migrate: MigrateOptions
    parallel: int = 1
    dry_run: bool = False
    keep_going: bool = False  # go on although a migration is in doubt


def worst(outcomes: Sequence[Outcome]) -> int:
    """The exit code of all of them."""
    codes = {each.code if each.code in SEVERITY else 20 for each in outcomes}
    return next((code for code in SEVERITY if code in codes), 0)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """A line each, under a heading."""
    rows = [("CONTAINER", "TO", "OUTCOME", "SECONDS", "BLACKOUT", "WHY")]
    for each in outcomes:
        took = f"{each.seconds:.1f}" if each.seconds else "-"
        still = f"{each.blackout * 1000:.0f} ms" if each.blackout else "-"
        why = "; ".join(filter(None, (each.reason, each.fix)))
        rows.append((each.id, each.host or "-", each.outcome, took, still, why))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return [
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]
        ).rstrip()
        for row in rows
    ]


def word(code: int) -> str:
    """How a migration ended that failed with this code."""
    return {IN_DOUBT: "in doubt", 22: "leftovers", Interrupted.code: "interrupted"}.get(
        code, "failed"
    )
