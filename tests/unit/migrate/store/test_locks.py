"""Who holds a store: named while they live, forgotten when they are dead."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.migrate.store import local
from ocimig.migrate.store.errors import StoreLocked
from ocimig.migrate.store.local import LocalPlace
from ocimig_testkit.stores import end, start, tell, tree
from ocimig_testkit.waiting import until


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty one."""
    local.create(str(tmp_path / "store")).close()
    return tmp_path / "store"


@pytest.fixture
def place(store: Path) -> Iterator[LocalPlace]:
    """It, open."""
    opened = LocalPlace(str(store))
    yield opened
    opened.close()


def test_a_holder_that_is_killed_holds_nothing(store: Path, place: LocalPlace) -> None:
    """No lock is ever stale, and what it had in the making is swept by the next who is alone."""
    process = start(store)
    tell(process, "packs\n")
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    (words,) = place.holders()
    assert f"pid {process.pid} on " in words
    assert "a test, with others, since 20" in words
    with pytest.raises(StoreLocked, match=f"pid {process.pid}") as caught:
        place.lock(exclusive=True, purpose="prune").__enter__()
    assert caught.value.code == 11
    end(process)
    assert len(tree(store)) == 2  # the file in the making and the record
    with place.lock(exclusive=True, purpose="prune"):
        assert [name for name in tree(store) if not name.startswith("holders/")] == []
    assert tree(store) == []


def test_a_holder_that_lives_is_never_taken_for_dead(store: Path, place: LocalPlace) -> None:
    """Whatever its record says: another host, boot, pid or hour."""
    process = start(store, "alone")
    until(lambda: place.holders() != [], "it holds the store")
    (path,) = (store / "holders").iterdir()
    about = json.loads(path.read_text())
    for lie in (
        {"pid": 1 << 22},
        {"boot_id": "x"},
        {"host": "y"},
        {"since": -1e9},
        {"start_time": 5},
    ):
        path.write_text(json.dumps({**about, **lie}))
        with pytest.raises(StoreLocked):
            place.lock(exclusive=False, purpose="x").__enter__()
        assert len(place.holders()) == 1
    for nonsense in ("", "[]", "{}", "[" * 4000, '{"since": 1e999}', "\x1b[2J"):
        path.write_text(nonsense)
        assert place.holders() == ["somebody who left no word who it is"]
    end(process)
    assert place.holders() == []


def test_words_of_a_holder_fit_on_one_line(place: LocalPlace) -> None:
    """A purpose comes from another host, perhaps."""
    with place.lock(exclusive=False, purpose="\x1b[2J\n" + "x" * 5000):
        (words,) = place.holders()
    assert words.isprintable()
    assert len(words) < 400


def test_a_lock_needs_no_room(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """prune is what a full disk needs; only the word who holds it is missing then."""
    place = LocalPlace(str(store))

    def full(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("ocimig.migrate.store.locks.write_all", full)
    with place.lock(exclusive=True, purpose="prune"):
        assert place.holders() == []
    assert tree(store) == []
    place.close()
