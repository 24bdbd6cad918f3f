"""A migration between two hosts without a kernel: who runs the container after every fault."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ocimig.errors import Interrupted, OcimigError
from ocimig.migrate import (
    agent,
    commit,
    engine,
    freeze,
    journal,
    phases,
    precopy,
    recover,
    settling,
)
from ocimig.migrate.errors import (
    DestinationRuns,
    MigrationBusy,
    MigrationFailed,
    MigrationInDoubt,
    MigrationUnsettled,
    NoSuchMigration,
    PreflightRefused,
    SourceLeftovers,
)
from ocimig.migrate.progress import Event
from ocimig_testkit.migration import (
    OPTIONS,
    TARGET,
    FakeDestination,
    FakeSource,
    Link,
    World,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two hosts; the container runs on the near one."""
    return World(tmp_path)


def move(world: World, link: Link, **more: Any) -> Any:
    """Migrate c1."""
    try:
        return engine.migrate(
            world.near, "c1", TARGET, OPTIONS, hands=FakeSource(world), connecting=link, **more
        )
    finally:
        link.settle()


def records(world: World) -> tuple[list[str], list[str]]:
    """What both journals say."""
    found = []
    for store in (world.near, world.far):
        entries = journal.every(store)
        found.append([record["record"] for entry in entries for record in entry.records])
    return found[0], found[1]


def test_a_container_moves(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both journals hold every record of the protocol in order, and one copy runs, there."""
    events: list[Event] = []
    report = move(world, Link(world, monkeypatch), observer=events.append)
    assert world.running() == ["there"]
    assert not world.both
    here, there = records(world)
    assert here == ["STARTED", "PRECOPY", "FREEZE", "PREPARED", "COMMIT-INTENT", "ACKED", "DONE"]
    assert there == ["RESERVED", "SHIPPED", "PREPARED", "GO", "RUNNING"]
    assert report.outcome == "moved"
    assert [name for name, _ in report.phases] == [row.name for row in phases.PHASES]
    assert [event.text for event in events if event.kind == "phase"] == [
        row.name for row in phases.PHASES
    ]
    assert report.bytes["images"] == 6009
    assert world.log.index("hold") < world.log.index("resume") < world.log.index("kill")


def test_a_dry_run_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both hosts are looked at; no journal is begun."""
    link = Link(world, monkeypatch)
    options = engine.MigrateOptions(dry_run=True)
    report = engine.migrate(
        world.near, "c1", TARGET, options, hands=FakeSource(world), connecting=link
    )
    assert report.outcome == "possible"
    assert records(world) == ([], [])
    assert world.log == []


def test_what_preflight_refuses_is_not_begun(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The taken name is found before anything is touched, with its own exit code."""
    world.facts["far"] = {"taken": "container"}
    with pytest.raises(PreflightRefused, match="c1 is taken") as caught:
        move(world, Link(world, monkeypatch))
    assert caught.value.code == 11
    assert records(world) == ([], [])


def test_a_signal_just_after_the_journal_was_begun_ends_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between the first durable word and the first step rolls back: nothing is left unsettled."""
    create = journal.create

    def create_and_interrupt(*given: Any, **facts: Any) -> journal.Journal:
        made = create(*given, **facts)
        os.kill(os.getpid(), signal.SIGTERM)
        return made

    monkeypatch.setattr(journal, "create", create_and_interrupt)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(Interrupted, match="c1 runs here"):
            move(world, Link(world, monkeypatch))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert records(world) == (["STARTED", "ABORTED"], [])
    assert world.running() == ["here"]


def count(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How many writes and reads an undisturbed migration has."""
    link = Link(world, monkeypatch)
    move(world, link)
    assert link.channel is not None
    return link.channel.written, link.channel.seen


def check_one_owner(world: World, link: Link) -> None:
    """One copy runs, or it is held and --resume settles it."""
    link.settle()
    entry = journal.unsettled(world.near, "c1")
    if entry is not None:
        assert phases.committed(entry.phase)
        link.later = True
        recover.resume(world.near, "c1", OPTIONS, hands=FakeSource(world), connecting=link)
        link.settle()
    assert not world.both
    assert len(world.running()) == 1, world.log
    assert journal.unsettled(world.near, "c1") is None
    assert all(entry.ended for entry in journal.every(world.far))


@pytest.mark.parametrize("later", [True, False], ids=["reachable", "unreachable"])
@pytest.mark.parametrize("direction", ["writes", "reads"])
def test_a_cut_at_any_frame_leaves_one_owner(
    direction: str, later: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is cut before every write and every read; at no time two copies run."""
    monkeypatch.setattr(settling, "ASK_AGAIN", 0.02)
    monkeypatch.setattr(agent, "LINGER", 0.2)
    for room in (commit, freeze, precopy):
        monkeypatch.setattr(room, "SILENCE", 3.0)
    (tmp_path / "whole").mkdir()
    writes, reads = count(World(tmp_path / "whole"), monkeypatch)
    cases = writes if direction == "writes" else reads
    assert cases > 5
    doubts = 0
    for number in range(cases + 3):  # two frames may have come in one read
        directory = tmp_path / f"{number}"
        directory.mkdir()
        world = World(directory)
        link = Link(world, monkeypatch, later=later)
        setattr(link, direction, number)
        try:
            move(world, link)
        except MigrationInDoubt:
            doubts += 1
            assert world.here == "frozen"
        except OcimigError:
            assert world.here != "frozen"
        check_one_owner(world, link)
    assert later or doubts  # cut off for good between GO and ACK: held, and settled afterwards


@pytest.mark.parametrize(
    "what", ["reserve", "files", "warm", "restore", "restored", "dump", "hold"]
)
def test_a_failure_before_the_commit_rolls_back(
    what: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever fails, the container runs here and nothing is left there."""
    world.failing[what] = OSError(28, "no space left on device")
    with pytest.raises(MigrationFailed, match="runs here") as caught:
        move(world, Link(world, monkeypatch))
    assert caught.value.code in (15, 20)
    assert world.running() == ["here"]
    assert world.there != "running"
    check_one_owner(world, Link(world, monkeypatch))


@pytest.mark.parametrize("what", ["release", "resume"])
def test_tasks_that_die_after_go_come_back_here(
    what: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GO was given, the copy there died: the destination says so and the source runs again."""
    world.failing[what] = OSError(5, "input/output error")
    with pytest.raises(MigrationFailed, match="FAILED"):
        move(world, Link(world, monkeypatch))
    assert world.running() == ["here"]
    assert not world.both
    assert records(world)[1][-1] == "FAILED"


def test_a_copy_that_ran_and_lost_memory_does_not_come_back_by_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page handler there is gone for good after GO: it may have answered clients. Held, for a person."""
    monkeypatch.setattr(settling, "ASK_AGAIN", 0.02)
    original = FakeDestination.restore

    def restore(self: FakeDestination, *arguments: Any) -> int:
        original(self, *arguments)
        world.do("handler died", there="none")
        monkeypatch.setattr(FakeDestination, "lost", lambda _: "the page handler died")
        raise OSError(5, "input/output error")

    monkeypatch.setattr(FakeDestination, "restore", restore)
    with pytest.raises(MigrationInDoubt, match="page handler died"):
        move(world, Link(world, monkeypatch))
    assert world.running() == []
    assert world.here == "frozen"
    assert records(world)[1][-1] == "LOST"


def test_what_a_dead_agent_left_running_is_adopted(world: World) -> None:
    """After GO its process runs: it is the migration's end, and what the agent had still to do is done."""
    entry = journal.create(world.far, journal.new_id(), "destination", id="c1", epoch=1, images="")
    for record in ("SHIPPED", "PREPARED", "GO"):
        entry.write(record, pid=4242)
    world.here, world.there = "frozen", "running"
    assert settling.settle_there(world.far, entry, FakeDestination(world))
    assert entry.phase == "RUNNING"
    assert world.log == ["adopt"]


def test_a_container_in_doubt_cannot_be_migrated_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second command names the first one's migration; --abort cannot take back what runs there."""
    monkeypatch.setattr(settling, "ASK_AGAIN", 0.02)
    options = engine.MigrateOptions(patience=1.0, doubt=0.1)
    link = Link(world, monkeypatch, later=False)
    _lose_running(link, monkeypatch)
    with pytest.raises(MigrationInDoubt):
        engine.migrate(world.near, "c1", TARGET, options, hands=FakeSource(world), connecting=link)
    link.settle()
    with pytest.raises(MigrationUnsettled):
        move(world, Link(world, monkeypatch))
    link.later = True
    with pytest.raises(DestinationRuns):
        recover.abort(world.near, "c1", options, hands=FakeSource(world), connecting=link)
    report = recover.resume(world.near, "c1", options, hands=FakeSource(world), connecting=link)
    link.settle()
    assert report.outcome == "moved"
    assert world.running() == ["there"]
    with pytest.raises(NoSuchMigration):
        recover.resume(world.near, "c1", options, hands=FakeSource(world), connecting=link)


def _lose_running(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the link when it is let run there, so that nobody here hears that it does."""
    original = FakeDestination.release

    def release(self: FakeDestination) -> None:
        assert link.channel is not None
        link.channel.reads = link.channel.seen
        original(self)

    monkeypatch.setattr(FakeDestination, "release", release)


def test_an_operator_may_declare_the_destination_dead(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held until the words are typed; then it runs here and the journal says why."""
    monkeypatch.setattr(settling, "ASK_AGAIN", 0.02)
    options = engine.MigrateOptions(patience=1.0, doubt=0.1)
    link = Link(world, monkeypatch, later=False)
    _lose_running(link, monkeypatch)
    with pytest.raises(MigrationInDoubt):
        engine.migrate(world.near, "c1", TARGET, options, hands=FakeSource(world), connecting=link)
    link.settle()
    with pytest.raises(MigrationInDoubt):
        recover.resume(world.near, "c1", options, hands=FakeSource(world), connecting=link)
    world.there = "none"  # the host burned down
    sure = engine.MigrateOptions(assume_destination_dead=True)
    report = recover.resume(world.near, "c1", sure, hands=FakeSource(world), connecting=link)
    assert "assumed dead" in report.outcome
    assert world.running() == ["here"]


def test_resume_waits_for_a_destination_that_is_about_to_decide(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers GO while its agent still works: the command asks again instead of giving up."""
    monkeypatch.setattr(settling, "ASK_AGAIN", 0.02)
    link = Link(world, monkeypatch, later=False)
    _lose_running(link, monkeypatch)
    with pytest.raises(MigrationInDoubt):
        engine.migrate(world.near, "c1", TARGET, OPTIONS, hands=FakeSource(world), connecting=link)
    link.settle()
    answers = iter(["GO", "GO", "RUNNING"])
    monkeypatch.setattr(settling, "ask", lambda *_: next(answers))
    report = recover.resume(world.near, "c1", OPTIONS, hands=FakeSource(world), connecting=link)
    assert report.outcome == "moved"
    assert next(answers, "none") == "none"
    assert world.running() == ["there"]


def test_two_commands_cannot_migrate_one_container(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one is told at once."""
    with journal.claim_container(world.near, "c1"), pytest.raises(MigrationBusy):
        move(world, Link(world, monkeypatch))
    assert move(world, Link(world, monkeypatch)).outcome == "moved"


def test_a_late_go_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The destination waited, wrote ABORTED, and refuses; the container runs here."""
    options = engine.MigrateOptions(patience=0.2, doubt=2.0)
    original = journal.Journal.write

    def slow(self: journal.Journal, record: str, **facts: Any) -> None:
        original(self, record, **facts)
        if record == "COMMIT-INTENT":
            time.sleep(0.5)

    monkeypatch.setattr(journal.Journal, "write", slow)
    link = Link(world, monkeypatch)
    with pytest.raises(MigrationFailed, match="ABORTED"):
        engine.migrate(world.near, "c1", TARGET, options, hands=FakeSource(world), connecting=link)
    link.settle()
    assert world.running() == ["here"]
    assert not world.both


def test_an_earlier_migration_whose_command_died_is_rolled_back_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal without COMMIT-INTENT is no obstacle: the container was never given away."""
    entry = journal.create(world.near, journal.new_id(), "source", id="c1", epoch=1, images="")
    entry.write("PRECOPY")
    world.here = "frozen"
    assert move(world, Link(world, monkeypatch)).outcome == "moved"
    assert journal.load(entry.path).phase == "ABORTED"


def test_a_source_that_cannot_be_ended_is_left_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs there and is held here: code 22, and --resume ends it."""
    world.failing["kill"] = OSError(16, "device or resource busy")
    link = Link(world, monkeypatch)
    with pytest.raises(SourceLeftovers) as caught:
        move(world, link)
    assert caught.value.code == 22
    assert world.here == "frozen"
    check_one_owner(world, link)
    assert world.running() == ["there"]


@pytest.mark.parametrize("record", ["COMMIT-INTENT", "ACKED", "DONE"])
def test_a_full_disk_at_the_commit_gives_nothing_back(
    record: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that cannot be written after the commit leaves it held; before, it is rolled back."""
    original = journal.Journal.write

    def full(self: journal.Journal, name: str, **facts: Any) -> None:
        if name == record:
            raise OSError(28, "no space left on device")
        original(self, name, **facts)

    link = Link(world, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "write", full)
        with pytest.raises(OcimigError):
            move(world, link)
    assert not world.both
    assert world.here == {"COMMIT-INTENT": "running", "ACKED": "frozen", "DONE": "gone"}[record]
    check_one_owner(world, link)
