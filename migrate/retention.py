"""Which snapshots stay and which go: restic's words, restic's results. Pure; never removes anything.

Times are seconds since 1970 in UTC; hours, days, weeks, months and years are those of the time zone
that the caller names. The rules (docs/jobs.md explains them to administrators):

- Snapshots are judged in groups of one container on one host, newest first.
- A count keeps the newest snapshot of each of the last N hours (days, …) that have one at all. While
  some of the count is left over at the end, the oldest snapshot stays too.
- A duration reaches back from the newest snapshot that is not in the future.
- One rule that wants a snapshot is enough. A policy that would leave nothing of a group is refused
  for that group.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Protocol

from ocimig.errors import OcimigError

UNLIMITED = -1
HOST = "host"  # the label of a snapshot that names the machine it was made on


class Snapshot(Protocol):
    """What a policy asks of a snapshot; `time` is in seconds, UTC."""

    @property
    def id(self) -> str:
        """Its name in the repository."""

    @property
    def container(self) -> str:
        """The container it was made of."""

    @property
    def time(self) -> float:
        """When it was made: seconds since 1970, UTC."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Facts about it; the label `host` names the machine."""

    @property
    def tags(self) -> tuple[str, ...]:
        """What people call it."""


class EmptyPolicy(OcimigError):
    """A policy without a rule would remove every snapshot there is."""

    message = "the policy keeps nothing: no snapshot is removed"
    hint = "name at least one of keep_last, keep_hourly … keep_yearly, keep_within…, keep_tags"
    code = 2


@dataclass(frozen=True, slots=True)
class Span:
    """How far back a rule reaches, in restic's units; a month is a month of the calendar."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    @classmethod
    def parse(cls, text: str) -> "Span":
        """As in 1y5m7d2h; an empty text is no span. Raises ValueError with the reason."""
        found = dict.fromkeys("ymdh", 0)
        if not re.fullmatch(r"(?:[0-9]{1,9}[ymdh])*", text):
            raise ValueError(
                f"{text!r} is no duration of years, months, days, hours: as in 1y5m7d2h"
            )
        for number, unit in re.findall(r"([0-9]+)([ymdh])", text):
            found[unit] = int(number)
        return cls(found["y"], found["m"], found["d"], found["h"])

    def __str__(self) -> str:
        parts = ((self.years, "y"), (self.months, "m"), (self.days, "d"), (self.hours, "h"))
        return "".join(f"{number}{unit}" for number, unit in parts if number)

    def __bool__(self) -> bool:
        return bool(self.years or self.months or self.days or self.hours)

    def before(self, moment: float, zone: tzinfo) -> float:
        """The moment so long before `moment`; the beginning of time where the calendar ends.

        A day that the month does not have runs over into the next month, as Go's calendar does: one
        month before 31 October is 1 October.
        """
        local = datetime.fromtimestamp(moment, zone)
        months = (local.year - self.years) * 12 + local.month - 1 - self.months
        try:
            first = date(months // 12, months % 12 + 1, 1)
            day = first + timedelta(days=local.day - 1 - self.days)
            earlier = datetime.combine(day, local.timetz())
            return (earlier.astimezone(UTC) - timedelta(hours=self.hours)).timestamp()
        except (ValueError, OverflowError):
            return float("-inf")


@dataclass(frozen=True, slots=True)
class Policy:
    """What to keep. Counts: 0 is no rule, -1 keeps all; `tags` are lists of tags that go together."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Span = Span()
    within_hourly: Span = Span()
    within_daily: Span = Span()
    within_weekly: Span = Span()
    within_monthly: Span = Span()
    within_yearly: Span = Span()
    tags: tuple[tuple[str, ...], ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))

    def describe(self) -> str:
        """The policy in words."""
        counts = [
            f"{'all' if count == UNLIMITED else count} {name}"
            for name in ("last", *_PERIODS)
            if (count := getattr(self, name))
        ]
        spans = [
            f"{name} within {span}"
            for name in _PERIODS
            if (span := getattr(self, f"within_{name}"))
        ]
        words = [*counts, *spans]
        if self.within:
            words.append(f"all within {self.within}")
        words += [f"those tagged {_tagged(tags)}" for tags in self.tags]
        return f"keep {', '.join(words)}" if words else "keep nothing"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one snapshot, and why in words."""

    snapshot: Snapshot
    keep: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one group, newest first. `refused` says why nothing is removed after all."""

    container: str
    host: str
    verdicts: tuple[Verdict, ...]
    refused: str = ""

    def kept(self) -> tuple[Snapshot, ...]:
        """The snapshots that stay."""
        return tuple(verdict.snapshot for verdict in self.verdicts if verdict.keep)

    def removed(self) -> tuple[Snapshot, ...]:
        """The snapshots that go."""
        return tuple(verdict.snapshot for verdict in self.verdicts if not verdict.keep)


def forget(
    snapshots: Iterable[Snapshot],
    policy: Policy,
    *,
    zone: tzinfo,
    now: float,
    remove_all: bool = False,
) -> list[Decision]:
    """Judge every group by itself. `now` is in seconds, UTC. Raises EmptyPolicy.

    With `remove_all` a policy that has rules may leave nothing of a group.
    """
    if not policy:
        raise EmptyPolicy
    groups: dict[tuple[str, str], list[Snapshot]] = {}
    for snapshot in snapshots:
        key = (snapshot.container, snapshot.labels.get(HOST, ""))
        groups.setdefault(key, []).append(snapshot)
    return [
        _decide(container, host, members, policy, zone, now, remove_all)
        for (container, host), members in sorted(groups.items(), key=lambda item: item[0])
    ]


def _decide(
    container: str,
    host: str,
    members: Sequence[Snapshot],
    policy: Policy,
    zone: tzinfo,
    now: float,
    remove_all: bool,
) -> Decision:
    verdicts = judge(members, policy, zone=zone, now=now)
    if remove_all or any(verdict.keep for verdict in verdicts):
        return Decision(container, host, verdicts)
    refused = "no rule keeps one of them, and a group is not emptied unless told"
    kept = tuple(Verdict(each.snapshot, True, (refused,)) for each in verdicts)
    return Decision(container, host, kept, refused)


def judge(
    snapshots: Sequence[Snapshot], policy: Policy, *, zone: tzinfo, now: float
) -> tuple[Verdict, ...]:
    """The verdicts over one group, newest first. Raises EmptyPolicy; may keep none."""
    if not policy:
        raise EmptyPolicy
    ordered = sorted(snapshots, key=lambda snapshot: -snapshot.time)
    past = [snapshot.time for snapshot in ordered if snapshot.time < now]
    rules = _rules(policy, zone, past[0] if past else None)
    verdicts = []
    for number, snapshot in enumerate(ordered):
        local = datetime.fromtimestamp(snapshot.time, zone)
        oldest = number == len(ordered) - 1
        reasons = [f"has tags {_tagged(tags)}" for tags in policy.tags if _has(snapshot, tags)]
        against = [f"lacks tags {_tagged(tags)}" for tags in policy.tags]
        for rule in rules:
            wanted, reason = rule.wants(snapshot.time, local, number, oldest=oldest)
            (reasons if wanted else against).append(reason)
        verdicts.append(Verdict(snapshot, bool(reasons), tuple(reasons or against)))
    return tuple(verdicts)


_Period = Callable[[datetime, int], object]
_PERIODS: dict[str, _Period] = {
    "hourly": lambda local, _: (local.date(), local.hour),
    "daily": lambda local, _: local.date(),
    "weekly": lambda local, _: local.isocalendar()[:2],
    "monthly": lambda local, _: (local.year, local.month),
    "yearly": lambda local, _: local.year,
}


class _Rule:
    """One rule on its way through a group: what is left of its count, and the period it saw last."""

    def __init__(
        self, name: str, period: _Period, left: int, *, since: float = float("-inf"), span: str = ""
    ) -> None:
        self.name = name
        self.period = period
        self.left = left
        self.since = since  # snapshots of this moment and earlier are out of reach
        self.span = span
        self.seen: object = None

    def wants(
        self, moment: float, local: datetime, number: int, *, oldest: bool
    ) -> tuple[bool, str]:
        """Whether this rule keeps the snapshot, and why or why not."""
        word = f"within {self.span}" if self.span else "snapshot"
        word = word if self.name == "within" else f"{self.name} {word}"
        if moment <= self.since:
            return False, f"not {word}"
        if not self.left:
            return False, f"enough newer ones: {word}"
        value = self.period(local, number)
        again = value == self.seen
        if again and not oldest:
            return False, f"a newer one is the {word}"
        self.seen = value
        if self.left > 0:
            self.left -= 1
        return True, f"oldest {word}" if again else word


def _rules(policy: Policy, zone: tzinfo, latest: float | None) -> list[_Rule]:
    def each(_: datetime, number: int) -> int:
        return number

    def reach(span: Span) -> float:
        # Without a snapshot in the past nothing says where to count from: all are kept.
        return float("-inf") if latest is None else span.before(latest, zone)

    rules = []
    if policy.within:
        since = reach(policy.within)
        rules.append(_Rule("within", each, UNLIMITED, since=since, span=str(policy.within)))
    for name, period in {"last": each, **_PERIODS}.items():
        count = getattr(policy, name)
        if count:
            rules.append(_Rule(name, period, count))
    for name, period in _PERIODS.items():
        span = getattr(policy, f"within_{name}")
        if span:
            rules.append(_Rule(name, period, UNLIMITED, since=reach(span), span=str(span)))
    return rules


def _has(snapshot: Snapshot, tags: tuple[str, ...]) -> bool:
    """Whether it has all of them; the empty tag stands for no tag at all, as in restic."""
    return ("" in tags and not snapshot.tags) or all(tag in snapshot.tags for tag in tags)


def _tagged(tags: tuple[str, ...]) -> str:
    return ",".join(tags) or "''"
