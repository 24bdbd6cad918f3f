"""Which snapshots a job may remove: its own containers', of this host, and never what it just made."""

import os
import zoneinfo
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, tzinfo

from ocimig.migrate import retention
from ocimig.migrate.jobs.job import Job
from ocimig.migrate.retention import HOST, Decision, Snapshot

_HERE = "/etc/localtime"


@dataclass(frozen=True, slots=True)
class Forgetting:
    """What goes, and what people should know of it."""

    ids: tuple[str, ...]
    warnings: tuple[str, ...]
    decisions: tuple[Decision, ...]


def decide(
    job: Job,
    snapshots: Iterable[Snapshot],
    *,
    containers: Collection[str],
    fresh: Collection[str],
    host: str,
    zone: tzinfo,
    now: float,
) -> Forgetting:
    """Apply the job's policy to the snapshots of these containers. Pure; raises EmptyPolicy.

    A repository may be shared: other containers and hosts are left alone, and so are containers that
    were not saved this time. `fresh` are the ids that this run made: were the clock set back, or had
    it been ahead, a policy could remove the very backup that was just made.
    """
    mine = [
        snapshot
        for snapshot in snapshots
        if snapshot.container in containers and snapshot.labels.get(HOST, host) in ("", host)
    ]
    decisions = retention.forget(mine, job.policy, zone=zone, now=now)
    ids, warnings = [], []
    for decision in decisions:
        if decision.refused:
            warnings.append(f"{decision.container}: nothing is forgotten: {decision.refused}")
        for snapshot in decision.removed():
            if snapshot.id not in fresh:
                ids.append(snapshot.id)
                continue
            warnings.append(
                f"{decision.container}: the policy would remove {snapshot.id}, which was just made: "
                "older ones have a later time; was the clock set?"
            )
    return Forgetting(tuple(ids), tuple(warnings), tuple(decisions))


def newest(snapshots: Iterable[Snapshot], containers: Collection[str], host: str) -> list[str]:
    """The ids of the newest snapshot of each of these containers of this host."""
    latest: dict[str, Snapshot] = {}
    for snapshot in sorted(snapshots, key=lambda each: each.time):
        if snapshot.container in containers and snapshot.labels.get(HOST, host) in ("", host):
            latest[snapshot.container] = snapshot
    return [latest[container].id for container in sorted(latest)]


def zone(job: Job) -> tzinfo:
    """The time zone whose days count: the job's, else this host's, else UTC."""
    name = job.timezone or os.environ.get("TZ", "")
    try:
        if name:
            return zoneinfo.ZoneInfo(name)
        with open(_HERE, "rb") as file:
            return zoneinfo.ZoneInfo.from_file(file)
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        return UTC
