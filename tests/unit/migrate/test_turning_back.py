"""What fails while a container stands still: it runs again at once, whatever the far side has to remove."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate import agent, engine, group, journal, move
from ocimig.migrate.errors import MigrationFailed
from ocimig.migrate.journal import Journal
from ocimig.migrate.move import Move
from ocimig.runtime.store import Store
from ocimig_testkit.migration import OPTIONS, TARGET, FakeDestination, FakeSource, Link, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two hosts; the container runs on the near one."""
    return World(tmp_path)


def migrate(world: World, link: Link) -> None:
    """Migrate c1, which fails."""
    try:
        with pytest.raises(MigrationFailed, match="c1 runs here"):
            engine.migrate(
                world.near, "c1", TARGET, OPTIONS, hands=FakeSource(world), connecting=link
            )
    finally:
        link.settle()


def test_the_far_side_says_that_it_failed_before_it_removes_anything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree of a million files takes its time to remove, and the container stood still meanwhile."""
    runs = threading.Event()
    late: list[bool] = []
    let_run, discard = FakeSource.let_run, FakeDestination.discard

    def let_run_and_say_so(hands: FakeSource, store: Store, entry: Journal) -> bool:
        lives = let_run(hands, store, entry)
        runs.set()
        return lives

    def discard_when_it_runs(hands: FakeDestination, store: Store, entry: Journal) -> None:
        late.append(not runs.wait(3))
        discard(hands, store, entry)

    monkeypatch.setattr(FakeSource, "let_run", let_run_and_say_so)
    monkeypatch.setattr(FakeDestination, "discard", discard_when_it_runs)
    world.failing["restore"] = OSError(12, "Cannot allocate memory")
    migrate(world, Link(world, monkeypatch))
    assert late == [False]
    assert world.running() == ["here"]
    assert not world.both
    assert [entry.phase for entry in journal.every(world.far)] == ["ABORTED"]


def test_it_runs_here_before_the_far_side_is_told_to_give_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full here, after it was built there: nobody has to answer before it is thawed."""
    sent: list[list[str]] = []
    give_up, write = Move._give_up, Journal.write

    def given_up(self: Move, reason: str) -> None:
        sent.append(world.running())
        give_up(self, reason)

    def full(self: Journal, record: str, **given: Any) -> None:
        if record == "COMMIT-INTENT":
            raise OSError(28, "No space left on device")
        write(self, record, **given)

    monkeypatch.setattr(Move, "_give_up", given_up)
    monkeypatch.setattr(Journal, "write", full)
    migrate(world, Link(world, monkeypatch))
    assert sent == [["here"]]
    assert not world.both
    assert [entry.phase for entry in journal.every(world.far)] == ["ABORTED"]


def test_who_only_gives_signs_of_life_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All frames together have the time that one had: a far side that never ends holds up nobody."""
    monkeypatch.setattr(move, "GOODBYE", 0.5)
    over = threading.Event()
    undo = agent.Agent._undo

    def slow(self: agent.Agent, reason: str) -> None:
        with self.wire.beating(0.05):
            over.wait(4)
        undo(self, reason)

    write = Journal.write

    def full(self: Journal, record: str, **given: Any) -> None:
        if record == "PREPARED" and self.side == "source":
            raise OSError(28, "No space left on device")
        write(self, record, **given)

    monkeypatch.setattr(agent.Agent, "_undo", slow)
    monkeypatch.setattr(Journal, "write", full)
    give_up, took = Move._give_up, []

    def given_up(self: Move, reason: str) -> None:
        began = time.monotonic()
        give_up(self, reason)
        took.append(time.monotonic() - began)
        over.set()

    monkeypatch.setattr(Move, "_give_up", given_up)
    migrate(world, Link(world, monkeypatch))
    assert 0.4 < took[0] < 2.5
    assert world.running() == ["here"]


def test_what_is_given_up_when_it_is_prepared_turns_its_group_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent was stopped between its word and the answer: no other of the group may be let go then."""
    entry = journal.create(
        world.far, "1-a", "destination", id="c1", epoch=1, images="", group="2-b",
        agent=os.getpid(), agent_start=0,
    )  # fmt: skip
    register = group.Register(world.far, "2-b")
    register.form(["1-a", "1-c"])
    for record in ("SHIPPED", "PREPARED"):
        entry.write(record)
    wire: Any = type("Nobody", (), {"side": ""})()
    turned = agent.Agent(wire, world.far, FakeDestination(world))
    turned.journal = entry
    turned._undo("it got a signal")
    assert (register.word, entry.phase) == ("ABORTED", "ABORTED")
