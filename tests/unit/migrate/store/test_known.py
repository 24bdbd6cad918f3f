"""The list of known blobs is a cache: whatever becomes of it, no snapshot names a blob that is not there."""

import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ocimig.migrate.store import local, prune, verify
from ocimig.migrate.store.known import Known
from ocimig.migrate.store.packs import Packs
from ocimig.migrate.store.place import PACKS
from ocimig.migrate.store.store import Store
from ocimig_testkit.shelves import again, check, shelf, some, take


def _path(store: Store) -> Path:
    return Path(store.cache) / "known"


def _truth(store: Store) -> dict[bytes, set[tuple[int, int]]]:
    """Where each blob lies."""
    found: dict[bytes, set[tuple[int, int]]] = {}
    packs = Packs(store.place, store.seals)
    for number in packs.numbers():
        for entry, digest in packs.contents(number).numbered():
            found.setdefault(digest, set()).add((number, entry))
    return found


def _right(store: Store, known: Known) -> int:
    """Nothing that it says is wrong; how many blobs it knows."""
    truth = _truth(store)
    asked = [*truth, *(os.urandom(32) for _ in range(20))]
    found = known.find(asked)
    for digest, place in found.items():
        assert place in truth[digest]
    return len(found)


def _agreed(store: Store) -> int:
    known = Known(str(_path(store)))
    try:
        store.packs.refresh()
        known.agree(store.packs)
        return _right(store, known)
    finally:
        known.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With three snapshots in it."""
    made = shelf(tmp_path / "cache")
    dice = random.Random(1)
    for number in range(3):
        take(made, some(dice, 80), time=float(number))
    return made


def _rest(path: Path) -> None:
    """All of it in one file."""
    base = sqlite3.connect(path)
    base.execute("pragma wal_checkpoint(truncate)")
    base.execute("pragma journal_mode = delete")
    base.close()


def test_it_knows_every_blob_of_every_pack(store: Store) -> None:
    """Also where it was lost: the packs say it all."""
    everything = len(_truth(store))
    assert _agreed(store) == everything
    _path(store).unlink()
    assert _agreed(store) == everything


def test_what_packs_came_went_and_were_compacted_is_followed(store: Store) -> None:
    """After each, in a process that saw nothing of it."""
    _agreed(store)
    known = Known(str(_path(store)))
    known.agree(store.packs)
    first, *_ = store.snapshots()
    other = again(store, Path(store.cache).parent)
    other.forget(first.id)
    plan, marks = prune.survey(other, most_unused=0.0)
    assert plan.shrink
    prune.perform(other, plan, marks, lambda _: None)
    store.packs.refresh()
    known.agree(store.packs)
    assert _right(store, known) == len(_truth(store))
    for snapshot in list(store.snapshots()):
        store.forget(snapshot.id)
    plan, marks = prune.survey(other)
    prune.perform(other, plan, marks, lambda _: None)
    assert not other.packs.numbers()
    store.packs.refresh()
    known.agree(store.packs)
    assert known.find(list(_truth(other)) or [bytes(32)]) == {}
    known.close()
    take(store, some(random.Random(8)))
    assert _agreed(store) == len(_truth(store))


def test_flipped_bytes_are_never_believed(store: Store) -> None:
    """Anywhere in the file of SQLite, one or many: it says less then, never anything else."""
    _agreed(store)
    _rest(_path(store))
    whole = _path(store).read_bytes()
    dice = random.Random(2)
    knew = set()
    for turn in range(150):
        data = bytearray(whole)
        for _ in range(1 if turn % 2 else 40):
            data[dice.randrange(len(data))] = dice.randrange(256)
        _path(store).write_bytes(data)
        knew.add(_agreed(store))
        for suffix in ("-wal", "-shm"):
            Path(f"{_path(store)}{suffix}").unlink(missing_ok=True)
    assert len(knew) > 1  # some of it did damage rows, and not the whole file


def test_a_file_that_is_no_database_is_made_anew(store: Store) -> None:
    """Or one that was cut off, or of other tables."""
    everything = len(_truth(store))
    _agreed(store)
    _rest(_path(store))
    whole = _path(store).read_bytes()
    for data in (b"", b"no database", whole[:5000], whole[: len(whole) // 2], b"\0" * len(whole)):
        _path(store).write_bytes(data)
        assert _agreed(store) == everything
    _path(store).unlink()
    base = sqlite3.connect(_path(store))
    base.execute("create table blobs (other text)")
    base.close()
    assert _agreed(store) == everything


@pytest.mark.parametrize(
    "change",
    [
        "update blobs set entry = entry + 1",
        "update blobs set entry = -1",
        "update blobs set entry = 5000000000",
        "update blobs set entry = 'x'",
        "update blobs set entry = x'00'",
        "update blobs set entry = 1.5",
        "update blobs set pack = pack + 1",
        "update blobs set pack = 'x'",
        "update blobs set sum = sum + 1",
        "update blobs set sum = 'x'",
        "update blobs set entry = (select max(entry) from blobs) - entry",
        "update blobs set key = key || x'00'",
        "update packs set number = 7",
        "update packs set number = 'x'",
        "update packs set name = name || 'x'",
    ],
)
def test_rows_that_say_something_else_are_not_believed(store: Store, change: str) -> None:
    """Whatever SQLite lets into a column, which is anything."""
    _agreed(store)
    base = sqlite3.connect(_path(store))
    base.execute(change)
    base.commit()
    base.close()
    _agreed(store)
    dice = random.Random(4)
    content = some(dice)
    snapshot = take(store, content)
    store.packs.refresh()
    for each in list(store.snapshots()):
        if each.id != snapshot.id:
            store.forget(each.id)
    check(store, {snapshot.id: content})


def test_rows_that_changed_places_are_not_believed(store: Store) -> None:
    """Each is right by itself, only not about this blob."""
    _agreed(store)
    base = sqlite3.connect(_path(store))
    rows = base.execute("select key, pack, entry, sum from blobs").fetchall()
    base.execute("delete from blobs")
    for (key, *_), (_, *rest) in zip(rows, [*rows[1:], rows[0]], strict=True):
        base.execute("insert into blobs values (?, ?, ?, ?)", (key, *rest))
    base.commit()
    base.close()
    known = Known(str(_path(store)))
    known.agree(store.packs)
    assert known.find(list(_truth(store))) == {}
    known.close()


def test_rows_of_packs_that_are_gone_are_not_believed(store: Store) -> None:
    """A power cut may leave the rows and lose the line that says of which file they are."""
    _agreed(store)
    gone = min(store.packs.numbers())
    base = sqlite3.connect(_path(store))
    base.execute("delete from packs")
    base.commit()
    base.close()
    digests = [digest for _, digest in store.packs.contents(gone).numbered()]
    for name in store.packs.names(gone):
        store.place.remove(PACKS, name)
    store.packs.refresh()
    known = Known(str(_path(store)))
    known.agree(store.packs)
    assert all(place[0] != gone for place in known.find(digests).values())
    known.close()


def test_rows_of_a_pack_before_it_was_compacted_are_not_believed(store: Store) -> None:
    """Number and entry are the same; but the entry is no more in the file."""
    _agreed(store)
    base = sqlite3.connect(_path(store))
    old = base.execute("select key, pack, entry, sum from blobs").fetchall()
    first, *_ = store.snapshots()
    store.forget(first.id)
    plan, marks = prune.survey(store, most_unused=0.0)
    before = _truth(store)
    assert plan.shrink
    prune.perform(store, plan, marks, lambda _: None)
    known = Known(str(_path(store)))
    known.agree(store.packs)
    base.execute("delete from blobs")
    base.executemany("insert into blobs values (?, ?, ?, ?)", old)
    base.commit()
    base.close()
    truth = _truth(store)
    for digest, place in known.find(list(before)).items():
        assert place in truth[digest]
    known.close()


def test_a_long_writer_does_not_build_on_what_others_removed(tmp_path: Path) -> None:
    """A job keeps its store open, and lets go of the lock between two containers."""
    store = shelf(tmp_path)
    content = some(random.Random(1))
    first = take(store, content)
    other = again(store, tmp_path)
    other.forget(first.id)
    plan, marks = prune.survey(other)
    prune.perform(other, plan, marks, lambda _: None)
    second = take(store, content)
    check(again(store, tmp_path), {second.id: content})


def test_a_full_disk_of_the_cache_keeps_nobody_from_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is not worth a backup."""
    store = shelf(tmp_path)
    take(store, some(random.Random(1)))
    broken = [sqlite3.OperationalError("database or disk is full")]
    real = Known._add

    def failing(self: Known, *about: object) -> None:
        if broken:
            raise broken.pop()
        real(self, *about)  # type: ignore[arg-type]

    monkeypatch.setattr(Known, "_add", failing)
    content = some(random.Random(2))
    made = take(store, content)
    store.forget(next(each.id for each in store.snapshots() if each.id != made.id))
    check(store, {made.id: content})


_OTHER = """
import random, sys
from pathlib import Path
from ocimig.migrate.store.local import LocalPlace
from ocimig.migrate.store.store import Store
from ocimig_testkit.shelves import some, take
place = LocalPlace(sys.argv[1])
store = Store.open(place, None, cache=sys.argv[2])
with place.lock(exclusive=False, purpose="a test"):
    for turn in range(6):
        take(store, some(random.Random(turn)))
"""


def test_two_processes_at_once_know_what_is_right(tmp_path: Path) -> None:
    """They share the cache and the store; every snapshot of both can be read, and nothing is missing."""
    place = local.create(str(tmp_path / "store"))
    store = shelf(tmp_path / "cache", place)
    argv = [sys.executable, "-c", _OTHER, str(tmp_path / "store"), str(tmp_path / "cache")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    others = [subprocess.Popen(argv, env=environment) for _ in range(2)]
    assert [other.wait(60) for other in others] == [0, 0]
    assert len(store.names()) == 12
    assert verify.verify(store, read_data=1.0, tell=lambda _: None).problems == []
    assert _agreed(store) == len(_truth(store))
    place.close()
