"""How fast a container writes: counted, and turned into what a migration would be."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocimig.migrate import dirty_rate, journal
from ocimig.migrate.backup.create import BackupOptions, create
from ocimig.migrate.errors import MigrationBusy
from ocimig.migrate.forecast import Writes, forecast, writes_of
from ocimig.migrate.memory.runs import PAGE, Run
from ocimig.migrate.rounds import ABORT, FREEZE, RoundPolicy
from ocimig.migrate.trackers import Dirty
from ocimig.runtime import state
from ocimig.runtime.store import Store

GIB = (1 << 30) // PAGE


class Follower:
    """A tracker of a process that writes the same ten pages, and one more each time."""

    name = "pretended"

    def __init__(self) -> None:
        self.notes = ["this one is pretended"]
        self.looks = 0

    def look(self, tasks: Mapping[int, int], *, final: bool = False) -> list[Dirty]:
        """See Tracker."""
        assert not final
        ((pid, inside),) = tasks.items()
        self.looks += 1
        everything = [(0, 100 * PAGE)]
        if self.looks == 1:
            return [Dirty(f"p{inside}", pid, everything, everything, fresh=True)]
        new = (20 + self.looks) * PAGE
        return [Dirty(f"p{inside}", pid, [(0, 10 * PAGE), (new, new + PAGE)], everything)]

    def sent(self, space: str, runs: Sequence[Run], data: memoryview) -> None:
        """See Tracker."""

    def close(self) -> None:
        """See Tracker."""


def test_the_rate_is_pages_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven pages a look, four looks a second; different ones are counted once."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda nap: clock.__setitem__(0, clock[0] + nap))
    found = dirty_rate.watch("c1", Follower(), lambda: {1: 7}, 2.0)
    assert found.seconds == pytest.approx(2.0)
    assert found.rate == pytest.approx(44 * PAGE)
    assert found.peak == pytest.approx(44 * PAGE)
    assert found.distinct == 18 * PAGE
    assert found.resident == 100 * PAGE
    assert [(each.pid, each.written) for each in found.processes] == [(7, 44 * PAGE)]
    text = "\n".join(found.lines())
    assert text.startswith("c1: 176.0 KiB written a second (44 pages), measured for 2000 ms")
    assert "this one is pretended" in text
    assert found.to_dict()["dirty_bytes_per_second"] == 44 * PAGE


def test_looking_that_takes_long_is_done_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that reads all memory at each look takes a quarter of the time at most."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda nap: clock.__setitem__(0, clock[0] + nap))
    follower = Follower()
    look = follower.look

    def slow(tasks: Mapping[int, int], *, final: bool = False) -> list[Dirty]:
        clock[0] += 1.0
        return look(tasks, final=final)

    monkeypatch.setattr(follower, "look", slow)
    dirty_rate.watch("c1", follower, lambda: {1: 7}, 20.0)
    assert follower.looks <= 6


@settings(max_examples=80, deadline=None)
@given(st.floats(400, 1e6), st.floats(400, 1e6))
def test_the_working_set_is_found_again(rate: float, most: float) -> None:
    """From counts in a short and in a long time follows what any other time would bring."""
    truth = Writes(rate, most)
    each, union = truth.after(0.25), truth.after(4.0)
    found = writes_of(0.25, each, 4.0, union)
    for seconds in (0.25, 1.0, 4.0):
        expected = truth.after(seconds)
        assert found.after(seconds) == pytest.approx(expected, rel=0.05, abs=0.05 * union)


def test_few_writes_need_two_rounds() -> None:
    """1 GiB, 1000 pages a second, 400 MiB/s: everything once, then what was written meanwhile."""
    seen = forecast(RoundPolicy(), GIB, Writes(1000.0, 0.0), 400 << 20, 0.06)
    assert seen.action == FREEZE
    assert 2 <= seen.rounds <= 3
    assert 1 << 30 <= seen.sent_bytes < 1.03 * (1 << 30)
    assert seen.blackout < 0.07
    assert 2.5 < seen.seconds < 2.7


def test_a_small_working_set_is_no_obstacle() -> None:
    """It writes fast, but the same 64 MiB over and over: never more than that is left."""
    seen = forecast(RoundPolicy(max_downtime=0.3), GIB, Writes(1e6, 16384.0), 400 << 20, 0.06)
    assert seen.blackout == pytest.approx(0.06 + 0.16, rel=0.02)


def test_what_never_fits_says_so() -> None:
    """Faster than the link, all over its memory, and the person would rather stay."""
    policy = RoundPolicy(on_timeout=ABORT)
    seen = forecast(policy, GIB, Writes(200_000.0, 0.0), 400 << 20, 0.06)
    assert seen.action == ABORT
    assert "no fewer dirty pages" in seen.reason
    slowed = forecast(RoundPolicy(auto_converge=True), GIB, Writes(200_000.0, 0.0), 400 << 20, 0.06)
    assert (slowed.action, slowed.throttle > 0.3) == (FREEZE, True)
    assert slowed.blackout <= 0.3


def test_without_rounds_everything_goes_in_the_freeze() -> None:
    """--max-rounds 0."""
    seen = forecast(RoundPolicy(max_rounds=0), GIB, Writes(10.0, 0.0), 1 << 30, 0.06)
    assert seen.rounds == 0
    assert seen.blackout == pytest.approx(1.06)


@pytest.mark.parametrize(
    "follow",
    [
        lambda store: dirty_rate.measure(store, "c1"),
        lambda store: create(store, "c1", None, BackupOptions()),  # type: ignore[arg-type]
    ],
    ids=["measure", "back up"],
)
def test_one_command_at_a_time_follows_the_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: Callable[[Store], object]
) -> None:
    """Each takes the marks away that the other needs, and a page would arrive as it was before."""
    store = Store(str(tmp_path))
    monkeypatch.setattr(Store, "load", lambda *_: None)
    monkeypatch.setattr(state, "status", lambda *_: state.RUNNING)
    with journal.claim_container(store, "c1"), pytest.raises(MigrationBusy, match="backed up"):
        follow(store)
