"""`recover`, and what a later command finds of a migration, while others work on the same."""

from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate import engine, journal, recover, settling, source
from ocimig.migrate.errors import LinkLost, MigrationInDoubt, MigrationUnsettled
from ocimig.migrate.transport import Target
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


def _nobody() -> Any:
    raise LinkLost(host="h2", reason="no route")
