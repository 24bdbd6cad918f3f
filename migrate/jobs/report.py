"""How a run of a job ended: the verdict over it, the state that it leaves, the words for people. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ocimig.migrate.jobs.backups import Outcome
from ocimig.migrate.jobs.state import (
    FAILED,
    PARTIAL,
    SUCCESS,
    WARNINGS,
    ContainerState,
    JobState,
)
from ocimig.migrate.jobs.words import duration
from ocimig.migrate.report import size

_OWN_CODES = (
    10,
    11,
    12,
    13,
    15,
)  # of an error that ended a run: the others mean something of migrations
SOME, NONE = 3, 1


@dataclass(frozen=True, slots=True)
class Report:
    """One run. Times in seconds, UTC; sizes in bytes.

    `selected` are the containers that were to be saved; none when the run ended before that was known.
    `errors` are failures of the run itself, `fatal` the code of the one that ended it early (or 0),
    `problems` what checks found in the repository, `checked` the checks that found nothing.
    """

    job: str
    started: float
    seconds: float = 0.0
    outcomes: tuple[Outcome, ...] = ()
    selected: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    fatal: int = 0
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    freed: int = 0
    checked: Mapping[str, float] = field(default_factory=dict)
    prune_pending: bool = False

    @property
    def result(self) -> str:
        """In one word: success, warnings (all is saved), partial (some is), failed."""
        failed = [outcome for outcome in self.outcomes if outcome.error]
        saved = len(self.outcomes) - len(failed)
        if self.fatal or self.problems or not saved:
            return FAILED
        if failed or self.errors:
            return PARTIAL
        return WARNINGS if self.remarks() else SUCCESS

    @property
    def code(self) -> int:
        """The exit code of the command."""
        if self.result == FAILED:
            return self.fatal if self.fatal in _OWN_CODES else NONE
        return 0 if self.result == SUCCESS else SOME

    @property
    def reason(self) -> str:
        """Why it did not end well, in one line; empty when it did."""
        failed = [f"{each.name}: {each.error}" for each in self.outcomes if each.error]
        return "; ".join([*self.errors, *failed, *self.problems])

    def remarks(self) -> tuple[str, ...]:
        """Every warning, of the run and of its containers."""
        own = [f"{each.name}: {text}" for each in self.outcomes for text in each.warnings]
        return (*self.warnings, *own)

    def lines(self) -> list[str]:
        """What a person reads at the end."""
        lines = [_line(outcome) for outcome in self.outcomes]
        lines += [f"warning: {text}" for text in self.remarks()]
        lines += [f"error: {text}" for text in self.errors]
        lines += [f"repository: {text}" for text in self.problems]
        if self.forgotten:
            lines.append(f"forgot {len(self.forgotten)} snapshots, freed {size(self.freed)}")
        return [*lines, f"{self.job}: {self.result} in {duration(self.seconds)}"]

    def to_dict(self) -> dict[str, Any]:
        """For --format json."""
        return {
            "job": self.job,
            "result": self.result,
            "code": self.code,
            "started": self.started,
            "seconds": round(self.seconds, 3),
            "containers": [
                {
                    "name": each.name,
                    "snapshot": each.snapshot,
                    "error": each.error,
                    "seconds": each.seconds,
                    "frozen_seconds": each.frozen_seconds,
                    "bytes_read": each.bytes_read,
                    "bytes_stored": each.bytes_stored,
                    "warnings": list(each.warnings),
                }
                for each in self.outcomes
            ],
            "errors": list(self.errors),
            "problems": list(self.problems),
            "warnings": list(self.warnings),
            "forgotten": list(self.forgotten),
            "bytes_freed": self.freed,
        }


def advance(state: JobState, report: Report) -> JobState:
    """The state after a run: what it says now, and what it keeps of the runs before."""
    ended = report.started + report.seconds
    good = report.result in (SUCCESS, WARNINGS)
    # What the job no longer saves is no longer its concern: its numbers would grow old and alarm.
    containers = {
        name: each
        for name, each in state.containers.items()
        if not report.selected or name in report.selected
    }
    for each in report.outcomes:
        containers[each.name] = _advance(containers.get(each.name, ContainerState()), each, ended)
    return replace(
        state,
        started=report.started,
        ended=ended,
        seconds=report.seconds,
        last_success=ended if good else state.last_success,
        result=report.result,
        code=report.code,
        reason=report.reason,
        failures=state.failures + (not good),
        prune_pending=report.prune_pending,
        checks={**state.checks, **report.checked},
        containers=containers,
    )


def _advance(state: ContainerState, outcome: Outcome, ended: float) -> ContainerState:
    if outcome.error:
        failures = state.failures + 1
        return replace(state, last_run=ended, error=outcome.error, failures=failures)
    return ContainerState(
        last_run=ended,
        last_success=ended,
        snapshot=outcome.snapshot,
        seconds=float(outcome.seconds),
        frozen_seconds=float(outcome.frozen_seconds),
        bytes_read=outcome.bytes_read,
        bytes_stored=outcome.bytes_stored,
        failures=state.failures,
    )


def worst(codes: Sequence[int]) -> int:
    """The exit code of several runs: the first that is neither 0 nor 3, else 3, else 0."""
    bad = [code for code in codes if code not in (0, SOME)]
    return bad[0] if bad else max(codes, default=0)


def _line(outcome: Outcome) -> str:
    if outcome.error:
        return f"{outcome.name}: failed: {outcome.error}"
    return (
        f"{outcome.name}: saved as {outcome.snapshot}, {size(outcome.bytes_read)} read, "
        f"{size(outcome.bytes_stored)} stored, stood still for {outcome.frozen_seconds * 1000:.0f} ms"
    )
