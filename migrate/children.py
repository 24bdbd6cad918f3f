"""How a migration in a process of its own ended, as a value that travels. Never starts or waits for one."""

import os

from ocimig.errors import OcimigError
from ocimig.migrate import journal, phases
from ocimig.migrate.errors import GroupTurnedBack, PreflightRefused
from ocimig.migrate.outcomes import IN_DOUBT, Outcome, word
from ocimig.migrate.report import Report
from ocimig.runtime.store import Store


def reported(report: Report, host: str) -> Outcome:
    """One that came to its end."""
    return Outcome(
        report.id, host, report.outcome, seconds=report.seconds, blackout=report.blackout,
        bytes=sum(report.bytes.values()),
    )  # fmt: skip


def failed(id: str, host: str, error: OcimigError | OSError) -> Outcome:
    """One that said why it did not."""
    if not isinstance(error, OcimigError):
        return Outcome(id, host, "failed", 1, str(error))
    outcome = word(error.code)
    if isinstance(error, PreflightRefused):
        outcome = "refused"
    elif isinstance(error, GroupTurnedBack):
        outcome = "stays"
    return Outcome(id, host, outcome, error.code, str(error), error.advice)


def died(store: Store, id: str, host: str, status: int) -> Outcome:
    """One whose process was killed (`status` of waitpid): its journal says what that means."""
    how = f"its process ended with status {os.waitstatus_to_exitcode(status)}"
    earlier = journal.unsettled(store, id)
    if earlier is not None and phases.committed(earlier.phase):
        return Outcome(id, host, "in doubt", IN_DOUBT, how, f"ocimig migrate --resume {id}")
    return Outcome(id, host, "failed", 20, how, "ocimig recover, then again")
