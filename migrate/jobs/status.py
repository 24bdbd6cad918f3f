"""How the jobs of this host are doing, from what their runs left. Never runs one."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, tzinfo
from typing import Any

from ocimig.migrate.jobs import state
from ocimig.migrate.jobs.errors import JobStateUnreadable
from ocimig.migrate.jobs.state import JobState
from ocimig.migrate.jobs.words import duration

KILLED = "killed"


@dataclass(frozen=True, slots=True)
class Status:
    """One job. `status` is `running`, `never`, how the last run ended, or `killed` when it did not end."""

    job: str
    status: str
    state: JobState

    def to_dict(self) -> dict[str, Any]:
        """For --format json: the state, with the derived status first."""
        return {"job": self.job, "status": self.status, **asdict(self.state)}


def look(name: str, directory: str) -> Status:
    """The status of a job now. A state that cannot be read is the status."""
    busy = state.running(name, directory)
    try:
        found = state.load(name, directory)
    except JobStateUnreadable as error:
        return Status(name, "unreadable", JobState(reason=str(error)))
    if busy:
        return Status(name, state.RUNNING, found)
    return Status(name, KILLED if found.result == state.RUNNING else found.result, found)


def table(found: Iterable[Status], zone: tzinfo, now: float) -> list[str]:
    """Lines for people; times in that zone."""
    rows = [("JOB", "STATUS", "LAST SUCCESS", "AGO", "TOOK", "CONTAINERS")]
    for each in found:
        kept = each.state
        good = [one for one in kept.containers.values() if not one.error]
        when, ago = "never", "-"
        if kept.last_success:
            when = datetime.fromtimestamp(kept.last_success, zone).strftime("%Y-%m-%d %H:%M")
            ago = duration(max(0.0, now - kept.last_success))
        took = duration(kept.seconds) if kept.ended else "-"
        rows.append((each.job, each.status, when, ago, took, f"{len(good)}/{len(kept.containers)}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def details(found: Status) -> list[str]:
    """The rest of one job: why, its containers, its checks."""
    lines = [f"reason: {found.state.reason}"] if found.state.reason else []
    for name, each in sorted(found.state.containers.items()):
        if each.error:
            lines.append(f"{name}: failed: {each.error}")
        else:
            frozen = f"{each.frozen_seconds * 1000:.0f} ms"
            lines.append(f"{name}: {each.snapshot}, stood still for {frozen}")
    return lines
