"""What a run of a job will do, decided before anything is done. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ocimig.migrate.jobs.job import (
    ACTION,
    ACTIONS,
    AFTER,
    BEFORE,
    CHECK,
    CONTAINER,
    CREATE,
    DATA,
    ERROR,
    FORGET,
    JOB,
    PRUNE,
    RESTORE,
    Check,
    Hook,
    Job,
)
from ocimig.migrate.jobs.words import duration


@dataclass(frozen=True, slots=True)
class Step:
    """One action of a run: create for one container, forget, prune, or one check."""

    action: str
    container: str = ""
    check: Check | None = None

    def describe(self) -> str:
        """The step in words."""
        if self.action == CREATE:
            return f"save {self.container}"
        if self.check is None:
            return {FORGET: "forget old snapshots", PRUNE: "remove unused data"}[self.action]
        if self.check.name == RESTORE:
            return "read the newest snapshots as a restore would"
        part = f" and {self.check.part:.0%} of its data" if self.check.name == DATA else ""
        return f"check the repository{part}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one run, in order, and the hooks that may run around them."""

    steps: tuple[Step, ...]
    hooks: tuple[Hook, ...]

    def of(self, action: str) -> tuple[Step, ...]:
        """The steps of one action."""
        return tuple(step for step in self.steps if step.action == action)

    def around(self, side: str, level: str, action: str = "") -> tuple[Hook, ...]:
        """The hooks on that side of that level; without an `action`, those that name one of this run's.

        A run that failed before it knew what to do is meant by all of them.
        """
        actions = {action} if action else {step.action for step in self.steps} or set(ACTIONS)
        return tuple(
            hook
            for hook in self.hooks
            if (hook.side, hook.level) == (side, level) and actions & set(hook.when)
        )

    def _around_container(self, side: str, step: Step) -> list[str]:
        hooks = self.around(side, CONTAINER, CREATE) if step.action == CREATE else ()
        return [f"run {line}" for hook in hooks for line in hook.run]

    def describe(self) -> list[str]:
        """One line a thing that will be done, as --dry-run shows it."""
        lines = [f"run {line}" for hook in self.around(BEFORE, JOB) for line in hook.run]
        for action in ACTIONS:
            steps = self.of(action)
            if not steps:
                continue
            before, after = self.around(BEFORE, ACTION, action), self.around(AFTER, ACTION, action)
            lines += [f"run {line}" for hook in before for line in hook.run]
            for step in steps:
                lines += self._around_container(BEFORE, step)
                lines.append(step.describe())
                lines += self._around_container(AFTER, step)
            lines += [f"run {line}" for hook in after for line in hook.run]
        lines += [f"run {line}" for hook in self.around(AFTER, JOB) for line in hook.run]
        errors = self.around(AFTER, ERROR)
        return lines + [f"on an error, run {line}" for hook in errors for line in hook.run]


def due(checks: Sequence[Check], last: Mapping[str, float], now: float) -> tuple[Check, ...]:
    """The checks whose time has come. `last` is when each was done, `now` too in seconds, UTC.

    One that was never done is due, and so is one of the future: then the clock was wrong, and nobody
    knows how long ago it was.
    """
    return tuple(
        check
        for check in checks
        if check.name not in last or not 0 <= now - last[check.name] < check.frequency
    )


def plan(
    job: Job,
    containers: Sequence[str],
    last: Mapping[str, float],
    now: float,
    *,
    prune_pending: bool = False,
) -> Plan:
    """What a run does now: save each container, forget, prune, check.

    `prune_pending` says that an earlier run forgot and did not come to prune. Without a policy
    nothing is forgotten.
    """
    steps = [Step(CREATE, container=name) for name in containers]
    if job.policy:
        steps.append(Step(FORGET))
    if job.policy or prune_pending:
        steps.append(Step(PRUNE))
    steps += [Step(CHECK, check=check) for check in due(job.checks, last, now)]
    return Plan(tuple(steps), job.hooks)


def explain_checks(checks: Sequence[Check], last: Mapping[str, float], now: float) -> list[str]:
    """A line for each check: due or not, and how often it is meant to be done."""
    waiting = {check.name for check in due(checks, last, now)}
    lines = []
    for check in checks:
        often = f"every {duration(check.frequency)}" if check.frequency else "every run"
        state = "due" if check.name in waiting else "not due"
        lines.append(f"check {check.name}: {often}, {state}")
    return lines
