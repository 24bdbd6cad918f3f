"""Post-copy without a kernel: what was frozen ends here only when all of its memory is there."""

from pathlib import Path
from typing import Any

import pytest

from ocimig.errors import OcimigError
from ocimig.migrate import agent, commit, engine, freeze, journal, precopy, recover, settling
from ocimig.migrate.errors import MigrationFailed, MigrationInDoubt, RanWithoutMemory
from ocimig.migrate.memory.runs import PAGE
from ocimig.migrate.progress import Event
from ocimig.migrate.rounds import RoundPolicy
from ocimig_testkit.migration import TARGET, FakeSource, Link, World

OPTIONS = engine.MigrateOptions(
    patience=2.0, doubt=0.3, reconnect=0.1, policy=RoundPolicy(max_rounds=0, post_copy=True)
)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two hosts; the container runs on the near one."""
    monkeypatch.setattr(settling, "ASK_AGAIN", 0.02)
    monkeypatch.setattr(agent, "LINGER", 0.2)
    for room in (commit, freeze, precopy):
        monkeypatch.setattr(room, "SILENCE", 3.0)
    return with_memory(tmp_path)


def with_memory(directory: Path) -> World:
    """Its memory travels by itself."""
    made = World(directory)
    made.memory = True
    return made


def move(world: World, link: Link, **more: Any) -> Any:
    """Migrate c1."""
    try:
        return engine.migrate(
            world.near, "c1", TARGET, OPTIONS, hands=FakeSource(world), connecting=link, **more
        )
    finally:
        link.settle()


def far(world: World) -> list[str]:
    """What the destination wrote down."""
    return [record["record"] for entry in journal.every(world.far) for record in entry.records]


def check(world: World, link: Link) -> str:
    """One copy runs, or none and it is held here, and one command by a person lets it run: the end there."""
    link.settle()
    link.later = True
    entry = journal.unsettled(world.near, "c1")
    if entry is not None:
        lost = False
        try:
            recover.resume(world.near, "c1", OPTIONS, hands=FakeSource(world), connecting=link)
        except RanWithoutMemory:
            lost = True
        if lost:
            link.settle()
            assert (world.here, world.running()) == ("frozen", [])
            sure = engine.MigrateOptions(assume_destination_dead=True)
            recover.resume(world.near, "c1", sure, hands=FakeSource(world), connecting=link)
            assert world.running() == ["here"]
            assert far(world)[-1] == "LOST"
    link.settle()
    assert not world.both
    assert len(world.running()) == 1, world.log
    assert journal.unsettled(world.near, "c1") is None
    assert all(entry.ended for entry in journal.every(world.far))
    return far(world)[-1] if far(world) else ""


def test_it_runs_there_before_its_memory_came_and_ends_here_after(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page arrives as it was; what it was is killed when it is there; the risk was said before."""
    events: list[Event] = []
    report = move(world, Link(world, monkeypatch), observer=events.append)
    assert report.outcome == "moved"
    assert world.running() == ["there"]
    assert not world.both
    assert world.came == b"\x5a" * PAGE
    assert world.log.index("resume") < world.log.index("released without memory")
    assert world.log.index("released without memory") < world.log.index("kill")
    assert far(world)[-2:] == ["GO", "RUNNING"]
    assert report.bytes["memory that followed"] >= PAGE
    steps = {span.name: span for span in report.spans}
    assert report.frozen_at + report.blackout <= steps["memory follows"].end
    warnings = [event for event in events if event.kind == "warning"]
    assert ["held here" in event.text for event in warnings] == [True]
    assert warnings[0].phase == "PRECOPY"


def test_a_container_that_fits_is_moved_without_risk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--post-copy is for what does not fit: a round that ends with little left needs none of it."""
    world.writes = 0
    policy = RoundPolicy(post_copy=True)
    options = engine.MigrateOptions(patience=2.0, policy=policy)
    link = Link(world, monkeypatch)
    engine.migrate(world.near, "c1", TARGET, options, hands=FakeSource(world), connecting=link)
    link.settle()
    assert world.running() == ["there"]
    assert "released without memory" not in world.log
    assert link.stream is None


@pytest.mark.parametrize("where", ["writes", "reads", "stream_writes", "stream_reads"])
def test_a_cut_at_any_frame_leaves_one_owner_or_holds_it_here(
    where: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either link is cut before every write and every read: never two copies; none only where that is said."""
    whole = Link(world, monkeypatch)
    move(world, whole)
    cut = whole.stream if where.startswith("stream") else whole.channel
    assert cut is not None
    cases = cut.written if where.endswith("writes") else cut.seen
    assert cases > 3
    ends = set()
    for number in range(cases + 2):
        directory = tmp_path / f"{number}"
        directory.mkdir()
        world = with_memory(directory)
        link = Link(world, monkeypatch)
        setattr(link, where, number)
        try:
            move(world, link)
        except MigrationInDoubt:
            assert world.here == "frozen"
        except OcimigError:
            assert world.here != "frozen"
        ends.add(check(world, link))
    assert "RUNNING" in ends


def test_memory_that_cannot_follow_any_more_ends_it_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream ends when it runs: exit 21 with both reasons, held, and not resumed without a person."""
    link = Link(world, monkeypatch)
    cut_when_released(link, monkeypatch)
    with pytest.raises(RanWithoutMemory, match="ended there without all of its memory") as caught:
        move(world, link)
    assert "--assume-destination-dead c1" in caught.value.advice
    assert world.log[-1] == "discard"
    assert check(world, link) == "LOST"


def cut_when_released(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of its memory leaves before it runs; then the stream breaks."""
    from ocimig.migrate.lazy import push

    def cannot(self: Any) -> None:
        import time

        while "resume" not in link.world.log:
            time.sleep(0.001)
        raise OSError(5, "input/output error")

    monkeypatch.setattr(push.Push, "_send_next", cannot)


def test_an_agent_that_dies_while_memory_follows_leaves_it_to_a_person(world: World) -> None:
    """After its GO nobody can bring what had not come: whoever asks ends what is left of it."""
    entry = journal.create(world.far, journal.new_id(), "destination", id="c1", epoch=1, images="")
    for record in ("SHIPPED", "PREPARED"):
        entry.write(record)
    entry.write("GO", follows=True)
    world.here, world.there = "frozen", "running"
    from ocimig.migrate import settling
    from ocimig_testkit.migration import FakeDestination

    assert settling.settle_there(world.far, entry, FakeDestination(world))
    assert entry.phase == "LOST"
    assert world.running() == []


def test_a_page_that_cannot_be_read_before_the_commit_rolls_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails before COMMIT-INTENT costs nothing, also on the second link."""
    from ocimig.migrate.lazy import push

    def cannot(self: Any) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(push.Push, "_send_next", cannot)
    original = journal.Journal.write

    def slowly(self: journal.Journal, record: str, **facts: Any) -> None:
        if record == "PREPARED" and self.side == "destination":
            import time

            time.sleep(0.2)
        original(self, record, **facts)

    monkeypatch.setattr(journal.Journal, "write", slowly)
    link = Link(world, monkeypatch)
    with pytest.raises(MigrationFailed, match="runs here"):
        move(world, link)
    assert check(world, link) == "ABORTED"
