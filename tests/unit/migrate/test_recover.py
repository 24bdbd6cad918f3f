"""`recover`, and what a later command finds of a migration, while others work on the same."""

import os
from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate import (
    engine,
    journal,
    netlock,
    network,
    recover,
    recover_lock,
    settling,
    source,
)
from ocimig.migrate.errors import LinkLost, MigrationInDoubt, MigrationUnsettled
from ocimig.migrate.transport import Target
from ocimig.runtime import cgroups
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store
from ocimig_testkit.migration import OPTIONS, FakeSource, World


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty state root."""
    (tmp_path / "root").mkdir()
    return Store(str(tmp_path / "root"))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The containers that were let run, all of which live."""
    names: list[str] = []

    def let_run(_store: Store, id: str) -> bool:
        names.append(id)
        return True

    monkeypatch.setattr(source, "let_run", let_run)
    return names


def leave(store: Store, migration: str, id: str) -> journal.Journal:
    """What a command left that migrates this container away."""
    entry = journal.create(
        store, migration, "source", id=id, epoch=1, target="h2", images="", argv=["ocimig"],
        reach={"host": "h2"}, transport="paramiko",
    )  # fmt: skip
    entry.write("PRECOPY")
    return entry


def come(store: Store, migration: str, id: str, *, epoch: int = 1) -> journal.Journal:
    """What an agent left that takes this container in."""
    return journal.create(
        store, migration, "destination", id=id, epoch=epoch, source="x", images="", places=[],
        made=[],
    )  # fmt: skip


def give_away(store: Store, migration: str) -> None:
    """What the command that migrates does meanwhile, to its end in doubt."""
    entry = journal.find(store, migration)
    assert entry is not None
    with entry.lock():
        for record in ("FREEZE", "PREPARED", "COMMIT-INTENT"):
            entry.write(record)


def late(monkeypatch: pytest.MonkeyPatch, store: Store, migration: str) -> None:
    """Whoever claims a container from now on gets the claim when that one was given away."""
    claim = journal.claim_container

    def claim_late(where: Store, id: str) -> Any:
        monkeypatch.setattr(journal, "claim_container", claim)
        give_away(store, migration)
        return claim(where, id)

    monkeypatch.setattr(journal, "claim_container", claim_late)


def test_recover_goes_by_the_record_that_is_there_when_it_has_the_lock(
    store: Store, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given away while recover worked on another: thawing it would make two of it."""
    come(store, "1-aa", "c1")
    leave(store, "2-bb", "c2")

    def slow(_store: Store, entry: journal.Journal, _deeds: object) -> bool:
        give_away(store, "2-bb")
        entry.write("ABORTED")
        return True

    monkeypatch.setattr(settling, "settle_there", slow)
    found = recover.recover(store)
    entry = journal.find(store, "2-bb")
    assert entry is not None
    assert (ran, entry.phase) == ([], "COMMIT-INTENT")
    assert "in doubt" in found[1].text
    assert not found[1].settled


def test_a_later_migration_goes_by_the_record_that_is_there_when_it_has_the_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier command got to the commit before the later one got the claim: nothing is rolled back."""
    world = World(tmp_path)
    leave(world.near, "1-aa", "c1")
    late(monkeypatch, world.near, "1-aa")
    with pytest.raises(MigrationUnsettled, match="COMMIT-INTENT"):
        engine.migrate(
            world.near, "c1", Target("h2"), OPTIONS, hands=FakeSource(world), connecting=_nobody
        )
    assert world.log == []


def test_resume_goes_by_the_record_that_is_there_when_it_has_the_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read before the claim it was ours; with it, only the far side's word counts."""
    world = World(tmp_path)
    leave(world.near, "1-aa", "c1")
    late(monkeypatch, world.near, "1-aa")
    with pytest.raises(MigrationInDoubt):
        recover.resume(world.near, "c1", OPTIONS, hands=FakeSource(world), connecting=_nobody)
    assert world.log == []


@pytest.mark.parametrize("lives", [True, False])
def test_doubt_says_whether_anything_is_held_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
    """After a reboot there is nothing frozen that anybody could look for."""
    world = World(tmp_path)
    leave(world.near, "1-aa", "c1")
    give_away(world.near, "1-aa")
    monkeypatch.setattr(recover, "lives_here", lambda *_: lives)
    words = "is held frozen here" if lives else "has no process left here"
    with pytest.raises(MigrationInDoubt, match=f"c1 {words}, h2 may run it"):
        recover.resume(world.near, "c1", OPTIONS, hands=FakeSource(world), connecting=_nobody)


def test_what_another_command_keeps_from_being_settled_is_told_from_what_is_under_way(
    store: Store, ran: list[str]
) -> None:
    """A backup has the claim too: nobody should wait for a migration that was cut off long ago."""
    entry = leave(store, "1-aa", "c1")
    with journal.claim_container(store, "c1"):
        (cut_off,) = recover.recover(store)
        with entry.lock():
            (under_way,) = recover.recover(store)
    assert under_way.text == "a migration to h2 is under way"
    assert cut_off.text.startswith(
        "a migration to h2 was cut off: container c1 is being migrated, backed up"
    )
    assert not cut_off.settled
    assert cut_off.fix.startswith("wait for it")
    assert ran == []


def test_one_that_cannot_be_settled_keeps_no_other_from_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bridge is gone: that is said, and the container after it is not left frozen for it."""
    leave(store, "1-aa", "c1")
    leave(store, "2-bb", "c2")

    def let_run(_store: Store, id: str) -> bool:
        if id == "c1":
            raise OSError(19, "No such device")
        return True

    monkeypatch.setattr(source, "let_run", let_run)
    first, second = recover.recover(store)
    assert (first.subject, first.settled) == ("c1", False)
    assert "No such device" in first.text
    assert (second.subject, second.text) == (
        "c2",
        "a migration to h2 was rolled back: it runs here",
    )
    assert [entry.phase for entry in journal.every(store)] == ["PRECOPY", "ABORTED"]


def test_of_the_dead_nobody_says_that_they_run(store: Store) -> None:
    """After a reboot a journal is all there is of it."""
    leave(store, "1-aa", "c1")
    leave(store, "2-bb", "c2")
    give_away(store, "2-bb")
    first, second = recover.recover(store)
    assert first.text == "a migration to h2 was rolled back: its processes here had ended"
    assert second.text == "in doubt: its processes here have ended, h2 may run it"


def freeze(store: Store, id: str, held: str) -> None:
    """A container as a migration leaves it that is killed in the freeze."""
    state = ContainerState(id, pid=os.getpid())
    state.extra["held"] = held
    store.claim(id)
    store.save(state)
    Path(store.path(id), netlock.JOURNAL).write_text("{}")


@pytest.fixture
def thawed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The containers that were thawed as what a killed checkpoint left."""
    names: list[str] = []

    def thaw(_store: Store, state: ContainerState) -> list[str]:
        names.append(state.id)
        return []

    monkeypatch.setattr(recover_lock, "recover", thaw)
    return names


def test_a_damaged_journal_is_a_finding_and_what_it_holds_stays_held(
    store: Store, ran: list[str], thawed: list[str]
) -> None:
    """The rest is settled; the container that it may have given away is not thawed by a guess."""
    with open(leave(store, "1-aa", "c1").path, "ab") as file:
        file.write(b"nonsense\n")
    leave(store, "2-bb", "c2")
    freeze(store, "c1", "1-aa")
    freeze(store, "c3", "")
    damaged, other, held = recover.recover(store)
    assert damaged.subject == "migration 1-aa"
    assert "line 3" in damaged.text
    assert "find out where the container runs" in damaged.fix
    assert (held.subject, held.settled) == ("c1", False)
    assert (other.subject, ran, thawed) == ("c2", ["c2"], ["c3"])


def test_what_was_given_away_while_recover_worked_is_not_thawed(
    store: Store, ran: list[str], thawed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that began when the journals had been listed is no leaving of a checkpoint."""
    freeze(store, "c1", "2-bb")
    leave(store, "2-bb", "c1")
    give_away(store, "2-bb")
    monkeypatch.setattr(journal, "names", lambda _store: [])
    assert recover.recover(store) == []
    assert (ran, thawed) == ([], [])


def test_what_cannot_be_attached_is_thawed_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen for want of a bridge it would serve nobody; the failure is told, and the rest undone."""
    state = ContainerState("c1", pid=1, network={"port": "p"}, cgroups={"": "/x"})
    state.extra["held"] = "1-aa"
    store.claim("c1")
    store.save(state)
    group = Group()
    monkeypatch.setattr(cgroups, "from_facts", lambda _facts: group)
    monkeypatch.setattr(source, "lives_here", lambda _store, _id: True)
    for room, name in ((network, "attach"), (source, "_unlock")):
        monkeypatch.setattr(room, name, refuse)
    with pytest.raises(OSError, match="No such device"):
        source.let_run(store, "c1")
    assert not group.frozen()
    assert "held" not in store.load("c1").extra


class Group:
    """A cgroup in which nothing moves."""

    def __init__(self) -> None:
        self.still = True

    def pids(self) -> list[int]:
        """None that anybody could look at."""
        return []

    def frozen(self) -> bool:
        """Whether nothing moves."""
        return self.still

    def thaw(self) -> None:
        """Let it move."""
        self.still = False


def refuse(*_given: object) -> None:
    """As the kernel does without the bridge."""
    raise OSError(19, "No such device")


def _nobody() -> Any:
    raise LinkLost(host="h2", reason="no route")
