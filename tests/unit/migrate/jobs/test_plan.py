"""What a run will do and what a dry run says of it; when a check is due. All of it pure."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocimig.errors import SystemFailure
from ocimig.migrate.jobs.errors import NothingToSave
from ocimig.migrate.jobs.job import Check, Job
from ocimig.migrate.jobs.plan import due, plan
from ocimig.migrate.jobs.preview import preview
from ocimig.migrate.retention import Policy
from ocimig_testkit.backups import HOST, START, Kept, Stand, make_world

WEEK = 604800.0
WEEKLY = Check("repository", WEEK)


@pytest.mark.parametrize(
    ("last", "now", "expected"),
    [
        ({}, START, True),
        ({"data": START}, START, True),
        ({"repository": START}, START, False),
        ({"repository": START}, START + WEEK - 1, False),
        ({"repository": START}, START + WEEK, True),
        ({"repository": START}, START - 1, True),  # the clock was set back
    ],
)
def test_when_a_check_is_due(last: dict[str, float], now: float, expected: bool) -> None:
    """Never done, long ago, or in a future that nobody can explain."""
    assert bool(due([WEEKLY], last, now)) == expected


def test_always_is_always() -> None:
    """A frequency of nothing is due at the very moment it was done."""
    assert due([Check("data")], {"data": START}, START)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1e10), st.floats(0, 1e10), st.floats(0, 1e8))
def test_a_check_done_now_is_due_again_within_its_frequency(
    last: float, now: float, frequency: float
) -> None:
    """Whatever the clock does, it is never put off by more than that."""
    check = Check("data", frequency)
    assert due([check], {"data": last}, max(last, now) + frequency + 1)
    if not due([check], {"data": last}, now):
        assert last <= now


def _steps(job: Job, *, pending: bool = False) -> list[str]:
    planned = plan(job, ["web", "db"], {"repository": START}, START, prune_pending=pending)
    return [step.describe() for step in planned.steps]


def test_the_order_of_things() -> None:
    """Saved first: whatever comes later, the backup is there."""
    job = Job("j", "", "r", checks=(WEEKLY, Check("data", 0, 0.05), Check("restore")))
    ends = [
        "check the repository and 5% of its data",
        "read the newest snapshots as a restore would",
    ]
    assert _steps(job) == ["save web", "save db", *ends]
    kept = Job("j", "", "r", policy=Policy(last=1))
    assert _steps(kept) == ["save web", "save db", "forget old snapshots", "remove unused data"]
    assert _steps(Job("j", "", "r"), pending=True)[2:] == ["remove unused data"]


def test_a_dry_run_tells_everything_and_does_nothing(stand: Stand) -> None:
    """Hooks, steps, checks, and what the policy would remove, each with its reason."""
    stand.repository.kept = [
        Kept("old", "web", START - 2, {"host": HOST}),
        Kept("new", "web", START - 1, {"host": HOST}),
    ]
    job = stand.job(
        'keep_last = 1\ntimezone = "UTC"\ncommands = [{before = "job", run = "touch $LOG"}, '
        '{before = "action", when = "create", run = "echo sftp://u:pw@h"}, {after = "job", run = "c"},'
        '{after = "error", run = "d"}, {before = "container", run = "e"}]\n'
    )
    assert preview(job, stand.world) == [
        f"run touch {stand.log}",
        "run echo sftp://***@h",
        "run e",
        "save web",
        "forget old snapshots",
        "remove unused data",
        "check the repository",
        "run c",
        "on an error, run d",
        "check repository: every 4 weeks 2 days, due",
        "keep 1 last",
        "keep new of web, 2023-11-14 22:13: last snapshot",
        "remove old of web, 2023-11-14 22:13: enough newer ones: last snapshot",
    ]
    assert stand.repository.asked == ["snapshots"]
    assert not stand.log.exists()
    assert not stand.states.exists()


def test_a_dry_run_without_a_repository_tells_the_rest(stand: Stand) -> None:
    """The disk may not be there before a hook mounts it."""

    def refuse(job: Job, passphrase: str) -> None:
        raise SystemFailure(what="open", reason="not mounted")

    world = make_world(stand.states, stand.repository, open=refuse)
    assert preview(stand.job("keep_last = 1\n"), world)[-1] == (
        "cannot tell what would be forgotten: open: not mounted"
    )
    with pytest.raises(NothingToSave):
        preview(stand.job('containers = []\nlabels = ["a=b"]\n'), world)
