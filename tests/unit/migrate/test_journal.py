"""What a migration writes down, and what is read of it after a crash."""

import os
from pathlib import Path

import pytest

from ocimig.migrate import journal, recover
from ocimig.migrate.errors import Fenced, JournalBroken, MigrationBusy
from ocimig.runtime.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty state root."""
    (tmp_path / "root").mkdir()
    return Store(str(tmp_path / "root"))


def begin(store: Store, side: str = "source", id: str = "c1", epoch: int = 1) -> journal.Journal:
    """A migration that has just begun."""
    return journal.create(store, journal.new_id(), side, id=id, epoch=epoch, target="host2")


def to_end(entry: journal.Journal, *records: str) -> None:
    """Write these records."""
    for record in records:
        entry.write(record)


MOVED = ("PRECOPY", "FREEZE", "PREPARED", "COMMIT-INTENT", "ACKED", "DONE")
CAME = ("SHIPPED", "PREPARED", "GO", "RUNNING")


def test_what_was_written_is_read(store: Store) -> None:
    """Records in order, later facts over earlier ones."""
    entry = begin(store)
    entry.write("PRECOPY", note="x")
    found = journal.find(store, entry.migration)
    assert found is not None
    assert (found.side, found.phase, found.facts["note"]) == ("source", "PRECOPY", "x")
    assert found.facts["id"] == "c1"
    assert oct(os.stat(entry.path).st_mode & 0o777) == "0o600"


def test_an_impossible_order_is_refused(store: Store) -> None:
    """A journal cannot get from the beginning to the commit."""
    entry = begin(store)
    with pytest.raises(JournalBroken, match="cannot follow"):
        entry.write("COMMIT-INTENT")
    assert journal.load(entry.path).phase == "STARTED"


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_half_written_line_was_never_there(store: Store, cut: int) -> None:
    """Readers see the record before; the next writer begins a line of its own."""
    entry = begin(store)
    entry.write("PRECOPY")
    os.truncate(entry.path, os.path.getsize(entry.path) - cut % 30 - 1)
    found = journal.load(entry.path)
    assert found.phase == "STARTED"
    found.write("ABORTED", reason="x")
    assert [record["record"] for record in journal.load(entry.path).records] == [
        "STARTED",
        "ABORTED",
    ]


@pytest.mark.parametrize("line", [b"nonsense\n", b"[]\n", b'{"no":"record"}\n'])
def test_a_damaged_journal_is_for_a_person(store: Store, line: bytes) -> None:
    """Never guessed: the file and the line are named."""
    entry = begin(store)
    with open(entry.path, "ab") as file:
        file.write(line)
    with pytest.raises(JournalBroken, match="line 2"):
        journal.load(entry.path)


def test_another_version_is_refused(store: Store) -> None:
    """A journal of a later version may mean anything."""
    entry = begin(store)
    text = Path(entry.path).read_text().replace('"version":1', '"version":2')
    Path(entry.path).write_text(text)
    with pytest.raises(JournalBroken, match="another version"):
        journal.load(entry.path)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "x" * 65, "zz", ".c1.lock"])
def test_a_name_from_another_host_is_checked(store: Store, name: str) -> None:
    """The far side says which migration it means, and it must not mean a path."""
    with pytest.raises(JournalBroken):
        journal.find(store, name)


def test_only_one_command_migrates_a_container(store: Store) -> None:
    """The second is refused while the first holds the claim, another container is not."""
    with journal.claim_container(store, "c1"):
        with pytest.raises(MigrationBusy), journal.claim_container(store, "c1"):
            pass
        with journal.claim_container(store, "c2"):
            pass
    with journal.claim_container(store, "c1"):
        pass


def test_the_unsettled_one_is_found(store: Store) -> None:
    """Ended ones, other containers' and the destination's are not it."""
    to_end(begin(store), *MOVED)
    begin(store, "destination")
    begin(store, id="c2")
    assert journal.unsettled(store, "c1") is None
    entry = begin(store)
    found = journal.unsettled(store, "c1")
    assert found is not None
    assert found.migration == entry.migration


def test_a_host_that_gave_it_away_is_fenced(store: Store) -> None:
    """Until it comes back, or with a newer epoch."""
    journal.check_fence(store, "c1")
    to_end(begin(store), *MOVED)
    with pytest.raises(Fenced, match="host2"):
        journal.check_fence(store, "c1")
    journal.check_fence(store, "c1", epoch=2)
    journal.check_fence(store, "c2")


def test_a_container_that_came_back_may_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest journal decides."""
    names = iter(["1-a", "2-a"])
    monkeypatch.setattr(journal, "new_id", lambda: next(names))
    to_end(begin(store), *MOVED)
    to_end(begin(store, "destination", epoch=2), *CAME)
    journal.check_fence(store, "c1")
    assert journal.epoch(store, "c1") == 2


def test_the_fence_does_not_go_by_the_clock_of_another_host(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came by a clock that is an hour ahead and left again: its older journal has the later name."""
    names = iter(["20261123T130000Z-b", "20261123T121000Z-a"])
    monkeypatch.setattr(journal, "new_id", lambda: next(names))
    to_end(begin(store, "destination", epoch=1), *CAME)
    to_end(begin(store, epoch=2), "PRECOPY", "FREEZE", "PREPARED", "COMMIT-INTENT")
    with pytest.raises(Fenced, match="host2"):
        journal.check_fence(store, "c1")
    found = journal.unsettled(store, "c1")
    assert found is not None
    assert found.side == "source"


def test_what_came_back_by_a_clock_that_is_behind_may_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host that holds it by right must not be told that it gave it away."""
    names = iter(["20261123T121000Z-a", "20261123T112000Z-b"])
    monkeypatch.setattr(journal, "new_id", lambda: next(names))
    to_end(begin(store, epoch=1), *MOVED)
    to_end(begin(store, "destination", epoch=2), *CAME)
    journal.check_fence(store, "c1")


def test_an_aborted_one_fences_nothing(store: Store) -> None:
    """It was taken back: it runs here."""
    to_end(begin(store), "PRECOPY", "FREEZE", "PREPARED", "COMMIT-INTENT", "ABORTED")
    journal.check_fence(store, "c1")


def test_old_ones_are_forgotten(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended ones beyond the limit go, oldest first; the newest of a container stays."""
    names = iter(f"{number}-a" for number in range(1, 9))
    monkeypatch.setattr(journal, "new_id", lambda: next(names))
    for _ in range(4):
        to_end(begin(store), "ABORTED")
    begin(store, id="c2")
    journal.prune(store, keep=1)
    assert [entry.migration for entry in journal.every(store)] == ["3-a", "4-a", "5-a"]


def test_the_fence_is_never_forgotten(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It went away, and came back almost: what says that it is there outlives the attempts, and the clocks."""
    names = iter(["2-a", "1-b", "3-c", "4-d"])
    monkeypatch.setattr(journal, "new_id", lambda: next(names))
    to_end(begin(store, epoch=1), *MOVED)
    to_end(begin(store, "destination", epoch=3), "ABORTED")
    to_end(begin(store, "destination", epoch=2), "ABORTED")
    begin(store, id="c2")
    journal.prune(store, keep=0)
    assert [entry.migration for entry in journal.every(store)] == ["1-b", "2-a", "4-d"]
    assert journal.epoch(store, "c1") == 3
    with pytest.raises(Fenced):
        journal.check_fence(store, "c1")


def test_a_journal_without_a_record_hinders_nobody(store: Store) -> None:
    """Its maker died before the first line: recover passes over it, and in an hour it is gone."""
    home = Path(journal.directory(store)) / journal.new_id()
    home.mkdir(parents=True)
    (home / "journal").touch()
    assert recover.recover(store) == []
    journal.prune(store)
    assert home.exists()
    os.utime(home, (0, 0))
    journal.prune(store)
    assert not home.exists()


def test_a_record_follows_only_what_its_writer_has_seen(store: Store) -> None:
    """Who still believes PRECOPY must not put ABORTED behind a COMMIT-INTENT: the container was given away."""
    entry = begin(store)
    stale = journal.load(entry.path)
    to_end(entry, "PRECOPY", "FREEZE", "PREPARED", "COMMIT-INTENT")
    with pytest.raises(JournalBroken, match="somebody else went on from STARTED"):
        stale.write("ABORTED")
    assert journal.load(entry.path).phase == "COMMIT-INTENT"
    stale.reload()
    stale.write("ACKED")


def test_a_record_that_could_not_be_made_durable_was_never_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A COMMIT-INTENT that failed is rolled back: no line of it may stand before the ABORTED."""
    entry = begin(store)
    to_end(entry, "PRECOPY", "FREEZE", "PREPARED")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _fd: (_ for _ in ()).throw(OSError(5, "I/O error")))
        with pytest.raises(OSError, match="I/O error"):
            entry.write("COMMIT-INTENT")
    entry.write("ABORTED")
    found = [record["record"] for record in journal.load(entry.path).records]
    assert found == ["STARTED", "PRECOPY", "FREEZE", "PREPARED", "ABORTED"]


def test_a_signal_in_the_middle_of_a_record_takes_it_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C just after the line was written: the ABORTED that follows must find what its writer knows."""
    entry = begin(store)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _fd: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            entry.write("PRECOPY")
    entry.write("ABORTED")
    assert [each["record"] for each in journal.load(entry.path).records] == ["STARTED", "ABORTED"]
