"""Which snapshots stay: the examples of restic's manual, and what must hold for every history."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocimig.migrate import retention
from ocimig.migrate.retention import EmptyPolicy, Policy, Span

NOW = datetime(2026, 11, 23, 20, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@dataclass(frozen=True)
class Made:
    """A snapshot."""

    id: str
    time: float
    container: str = "web"
    labels: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


def _at(*moments: datetime) -> list[Made]:
    return [Made(moment.isoformat(), moment.timestamp()) for moment in moments]


def _kept(snapshots: list[Made], policy: Policy, now: datetime = NOW) -> set[str]:
    verdicts = retention.judge(snapshots, policy, zone=UTC, now=now.timestamp())
    return {verdict.snapshot.id for verdict in verdicts if verdict.keep}


def _reasons(snapshots: list[Made], policy: Policy) -> list[str]:
    verdicts = retention.judge(snapshots, policy, zone=UTC, now=NOW.timestamp())
    return ["; ".join(verdict.reasons) for verdict in verdicts]


SUNDAYS = _at(*(datetime(2019, 9, 1, 11, tzinfo=UTC) + timedelta(weeks=n) for n in range(12)))
CENTURY = _at(*(datetime(2019, 12, 31, 12, tzinfo=UTC) - timedelta(days=n) for n in range(36525)))


@pytest.mark.parametrize(
    ("policy", "days"),
    [
        (Policy(daily=4), ["10-27", "11-03", "11-10", "11-17"]),
        (Policy(last=2), ["11-10", "11-17"]),
        (Policy(weekly=3), ["11-03", "11-10", "11-17"]),
        (Policy(monthly=2), ["10-27", "11-17"]),
        # The counts are not used up: the oldest stays too.
        (Policy(monthly=4), ["09-01", "09-29", "10-27", "11-17"]),
        (Policy(yearly=1), ["11-17"]),
        (Policy(yearly=2), ["09-01", "11-17"]),
        (Policy(within=Span.parse("14d")), ["11-10", "11-17"]),
        (Policy(within=Span.parse("14d1h")), ["11-03", "11-10", "11-17"]),
        (Policy(within_monthly=Span.parse("1m")), ["10-27", "11-17"]),
    ],
    ids=lambda value: value.describe() if isinstance(value, Policy) else "",
)
def test_twelve_sundays(policy: Policy, days: list[str]) -> None:
    """The example of restic's manual, keep-daily 4, and its neighbours."""
    assert sorted(_kept(SUNDAYS, policy)) == [f"2019-{day}T11:00:00+00:00" for day in days]


def test_a_snapshot_a_day_for_a_hundred_years() -> None:
    """The other example of the manual: 7 days, 4 more weeks, 12 or 11 months, 75 or 74 years."""
    kept = _kept(CENTURY, Policy(daily=7, weekly=5, monthly=12, yearly=75))
    # 2019-12-31 is a Tuesday, the last of its day, month and year, and of a week that goes on.
    weeks = {"2019-12-22", "2019-12-15", "2019-12-08"}
    months = {f"2019-{month:02}" for month in range(1, 12)}
    days = {name[:10] for name in kept}
    assert {f"2019-12-{day}" for day in range(25, 32)} | weeks <= days
    assert months <= {name[:7] for name in kept}
    assert {name[:4] for name in kept} == {str(year) for year in range(1945, 2020)}
    assert len(kept) == 7 + 3 + 11 + 74


def test_spread_over_time_by_durations() -> None:
    """keep-within-daily 7d, -weekly 1m, -monthly 1y, -yearly 75y: nothing depends on how many there are."""
    policy = Policy(
        within_daily=Span.parse("7d"),
        within_weekly=Span.parse("1m"),
        within_monthly=Span.parse("1y"),
        within_yearly=Span.parse("75y"),
    )
    days = sorted(name[:10] for name in _kept(CENTURY, policy))
    assert days[-8:] == ["2019-12-22", *(f"2019-12-{day}" for day in range(25, 32))]
    assert (
        days[0] == "1945-12-31"
    )  # 75 years and no more, and the oldest there is lies further back
    assert "2018-12-31" in days
    assert "2018-11-30" not in days


def test_every_verdict_has_its_reason() -> None:
    """Who wonders why a snapshot went reads it."""
    assert _reasons(SUNDAYS[:3], Policy(last=1, monthly=5)) == [
        "last snapshot; monthly snapshot",
        "enough newer ones: last snapshot; a newer one is the monthly snapshot",
        "oldest monthly snapshot",
    ]
    assert _reasons(SUNDAYS[:2], Policy(within=Span(days=1))) == ["within 1d", "not within 1d"]


def test_tags_are_lists_of_what_must_come_together() -> None:
    """As keep-tag of restic: one list is enough, '' is a snapshot without any."""
    first, second, third = (
        Made(str(n), n, tags=tags) for n, tags in enumerate([("a", "b"), ("a",), ()])
    )
    all_three = [first, second, third]
    assert _kept(all_three, Policy(tags=(("a", "b"),))) == {"0"}
    assert _kept(all_three, Policy(tags=(("b",), ("a",)))) == {"0", "1"}
    assert _kept(all_three, Policy(tags=(("",),))) == {"2"}
    assert _reasons([second], Policy(tags=(("b",),))) == ["lacks tags b"]


def test_days_are_those_of_the_time_zone() -> None:
    """23:30 and 00:30 in Berlin are two days there and one in UTC."""
    snapshots = _at(
        datetime(2026, 7, 1, 23, 30, tzinfo=BERLIN), datetime(2026, 7, 2, 0, 30, tzinfo=BERLIN)
    )

    def kept(zone: ZoneInfo) -> int:
        verdicts = retention.judge(snapshots, Policy(daily=1), zone=zone, now=NOW.timestamp())
        return sum(verdict.keep for verdict in verdicts)

    assert kept(BERLIN) == 1
    three = [*snapshots, *_at(datetime(2026, 6, 1, tzinfo=UTC))]
    for zone, expected in ((BERLIN, 2), (ZoneInfo("UTC"), 2)):
        verdicts = retention.judge(three, Policy(daily=2), zone=zone, now=NOW.timestamp())
        days = [verdict.snapshot.id for verdict in verdicts if verdict.keep]
        assert len(days) == expected
        assert ("2026-07-01T23:30:00+02:00" in days) == (zone is BERLIN)


@pytest.mark.parametrize(
    ("span", "moment", "before"),
    [
        ("1m", "2026-10-31T12:00:00", "2026-10-01T12:00:00"),  # there is no 31 September
        ("1y", "2024-02-29T12:00:00", "2023-03-01T12:00:00"),
        ("1y2m3d4h", "2026-03-10T03:00:00", "2025-01-06T23:00:00"),
        ("13m", "2026-01-15T00:00:00", "2024-12-15T00:00:00"),
        ("1d", "2026-03-30T02:30:00", "2026-03-29T02:30:00"),  # an hour that Berlin did not have
    ],
)
def test_a_span_is_counted_on_the_calendar(span: str, moment: str, before: str) -> None:
    """Years, months and days on the calendar of the zone, hours on the clock: as restic counts."""
    start = datetime.fromisoformat(moment).replace(tzinfo=BERLIN)
    wanted = datetime.fromisoformat(before).replace(tzinfo=BERLIN)
    assert Span.parse(span).before(start.timestamp(), BERLIN) == wanted.timestamp()


def test_more_years_than_the_calendar_has_keep_all() -> None:
    """9999y is how people write for ever."""
    assert len(_kept(SUNDAYS, Policy(within=Span.parse("9999y")))) == len(SUNDAYS)


@pytest.mark.parametrize("text", ["1w", "7", "d", "1d ", "-1d", "1.5d", "1D", "٣d"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    """restic knows no weeks either."""
    with pytest.raises(ValueError, match="no duration"):
        Span.parse(text)


@pytest.mark.parametrize("policy", [Policy(), Policy(tags=()), Policy(within=Span())])
def test_an_empty_policy_removes_nothing(policy: Policy) -> None:
    """It would remove everything."""
    with pytest.raises(EmptyPolicy):
        retention.forget(SUNDAYS, policy, zone=UTC, now=NOW.timestamp())
    with pytest.raises(EmptyPolicy):
        retention.judge(SUNDAYS, policy, zone=UTC, now=NOW.timestamp())


def test_containers_and_hosts_are_judged_by_themselves() -> None:
    """The newest of each stays, however old it is beside the others."""
    mixed = [
        Made("a", 1, "db", {"host": "h1"}),
        Made("b", 2, "db", {"host": "h1"}),
        Made("c", 3, "db", {"host": "h2"}),
        Made("d", 4, "web"),
    ]
    decisions = retention.forget(mixed, Policy(last=1), zone=UTC, now=NOW.timestamp())
    found = {(each.container, each.host): [one.id for one in each.kept()] for each in decisions}
    assert found == {("db", "h1"): ["b"], ("db", "h2"): ["c"], ("web", ""): ["d"]}
    assert [one.id for each in decisions for one in each.removed()] == ["a"]


def test_a_group_is_never_emptied_unless_told() -> None:
    """A tag that nobody gave would remove them all."""
    policy = Policy(tags=(("keep",),))
    (decision,) = retention.forget(SUNDAYS, policy, zone=UTC, now=NOW.timestamp())
    assert "unless told" in decision.refused
    assert len(decision.kept()) == len(SUNDAYS)
    (told,) = retention.forget(
        SUNDAYS, policy, zone=UTC, now=NOW.timestamp(), remove_all=True
    )  # fmt: skip
    assert (told.refused, told.kept()) == ("", ())


def test_the_future_moves_no_window() -> None:
    """One snapshot of a clock that went wrong must not make the others look old."""
    past = _at(NOW - timedelta(days=2), NOW - timedelta(days=1))
    future = _at(NOW + timedelta(days=400))
    assert len(_kept(past + future, Policy(within=Span(days=7)))) == 3
    assert len(_kept(future, Policy(within=Span(days=7)))) == 1


moments = st.integers(min_value=0, max_value=int(NOW.timestamp()) + 10**7)
snapshots_of_any_kind = st.lists(
    st.builds(
        lambda n, moment, tags: Made(f"{n}", float(moment), tags=tags),
        st.integers(),
        moments,
        st.sampled_from([(), ("a",), ("a", "b")]),
    ),
    unique_by=(lambda made: made.id, lambda made: made.time),
    max_size=30,
)
counts = st.sampled_from([0, 0, 1, 2, 3, 10, -1])
spans = st.sampled_from(
    [Span(), Span(), Span(hours=5), Span(days=40), Span(months=13), Span(years=20)]
)
policies = st.builds(
    Policy, counts, counts, counts, counts, counts, counts, spans, spans, spans, spans, spans, spans,
    st.sampled_from([(), (("a",),), (("",),)]),
).filter(bool)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(snapshots_of_any_kind, policies)
def test_a_policy_applied_to_what_it_kept_keeps_it_all(made: list[Made], policy: Policy) -> None:
    """Or a job that runs twice would lose what the first run meant to keep."""
    kept = _kept(made, policy)
    assert _kept([each for each in made if each.id in kept], policy) == kept


@settings(max_examples=60, deadline=None)
@given(snapshots_of_any_kind.filter(bool), policies)
def test_the_newest_stays_by_any_rule_but_tags(made: list[Made], policy: Policy) -> None:
    """What was saved last is what one wants back."""
    newest = max(made, key=lambda each: each.time)
    if replace(policy, tags=()):
        assert newest.id in _kept(made, policy)


COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


@settings(max_examples=60, deadline=None)
@given(snapshots_of_any_kind, st.sampled_from(COUNTS), st.integers(1, 12), policies)
def test_a_larger_count_keeps_no_less(made: list[Made], name: str, n: int, policy: Policy) -> None:
    """And without a limit it keeps most."""

    def kept(count: int) -> set[str]:
        changed: dict[str, Any] = {name: count}
        return _kept(made, replace(policy, **changed))

    few, more, most = kept(n), kept(n + 1), kept(-1)
    assert few <= more <= most
