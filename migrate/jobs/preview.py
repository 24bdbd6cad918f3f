"""What a run would do, without doing any of it: --dry-run. Reads the repository, changes nothing."""

from datetime import datetime

from ocimig.errors import OcimigError
from ocimig.migrate.jobs import forgetting, secret, state
from ocimig.migrate.jobs.errors import NothingToSave
from ocimig.migrate.jobs.job import Job, select
from ocimig.migrate.jobs.plan import explain_checks, plan
from ocimig.migrate.jobs.run import World


def preview(job: Job, world: World) -> list[str]:
    """A line for each thing, in order. Raises NothingToSave and what reading the state raises.

    What would be forgotten is told of the snapshots that are there now; a run makes new ones first.
    """
    containers = select(job, world.annotations())
    if not containers:
        raise NothingToSave(job=job.name, wanted=job.wanted())
    now = world.clock()
    earlier = state.load(job.name, world.state_directory)
    planned = plan(job, containers, earlier.checks, now, prune_pending=earlier.prune_pending)
    hide = secret.redaction(job)
    lines = [hide.clean(line) for line in planned.describe()]
    lines += explain_checks(job.checks, earlier.checks, now)
    if job.policy:
        lines.append(job.policy.describe())
        lines += _forgotten(job, world, containers, now)
    return lines


def _forgotten(job: Job, world: World, containers: tuple[str, ...], now: float) -> list[str]:
    passphrase = ""
    try:
        passphrase = secret.passphrase(job)
        with world.open(job, passphrase) as repository:
            snapshots = repository.snapshots()
    except (OcimigError, OSError) as error:
        reason = secret.redaction(job, passphrase).clean(str(error))
        return [f"cannot tell what would be forgotten: {reason}"]
    zone = forgetting.zone(job)
    decided = forgetting.decide(
        job, snapshots, containers=containers, fresh=(), host=world.host, zone=zone, now=now
    )
    lines = list(decided.warnings)
    for decision in decided.decisions:
        for verdict in decision.verdicts:
            when = datetime.fromtimestamp(verdict.snapshot.time, zone).strftime("%Y-%m-%d %H:%M")
            word = "keep" if verdict.keep else "remove"
            why = ", ".join(verdict.reasons)
            lines.append(f"{word} {verdict.snapshot.id} of {decision.container}, {when}: {why}")
    return lines
