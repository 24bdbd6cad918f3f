"""A store in a directory: what power cuts, full disks, dead holders and hostile neighbours make of it."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.migrate.store import fit, local
from ocimig.migrate.store.errors import NoStore, PlaceFailed, StoreExists
from ocimig.migrate.store.local import LocalPlace
from ocimig.migrate.store.place import KEYS, PACKS, TOP
from ocimig_testkit.stores import OTHER, PACK, put, tree


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


# ---- the directory


def test_everything_is_for_its_owner_alone(store: Path, place: LocalPlace) -> None:
    """Memory of containers is in there, whatever the umask says."""
    old = os.umask(0)
    try:
        put(place, PACKS, PACK)
        with place.lock(exclusive=False, purpose="x"):
            modes = {stat.S_IMODE(path.stat().st_mode) for path in [store, *store.rglob("*")]}
    finally:
        os.umask(old)
    assert modes == {0o700, 0o600}


def test_packs_are_spread_by_the_beginning_of_their_number(store: Path, place: LocalPlace) -> None:
    """A hundred thousand names in one directory are slow everywhere."""
    put(place, PACKS, PACK)
    assert tree(store) == [f"packs/01/{PACK}"]


def test_what_is_not_ours_is_not_seen(store: Path, place: LocalPlace) -> None:
    """Directories, links, pipes, names that are none, packs in the wrong directory."""
    put(place, PACKS, PACK)
    (store / "packs/01/ü").touch()
    (store / "packs/zz").mkdir()
    (store / "packs/zz" / OTHER).touch()
    (store / "packs/01" / OTHER).touch()
    (store / "packs/01/01.pack").symlink_to(store / "packs/01" / PACK)
    os.mkfifo(store / "keys/pipe.key")
    assert place.names(PACKS) == [PACK]
    assert place.names(KEYS) == place.names(TOP) == []
    for name in ("pipe.key", "link.key"):
        if name == "link.key":
            (store / "keys" / name).symlink_to("/etc/passwd")
        with pytest.raises(PlaceFailed, match=name):
            place.read(KEYS, name)


def test_a_room_that_is_a_link_is_not_entered(
    store: Path, place: LocalPlace, tmp_path: Path
) -> None:
    """Who may write to the directory must not make us write elsewhere."""
    (store / "keys").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (store / "keys").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PlaceFailed):
        put(place, KEYS, "a.key")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_to_the_store_is_followed_once(store: Path, tmp_path: Path) -> None:
    """/srv/backups on another disk; what the link becomes later moves nothing."""
    (tmp_path / "link").symlink_to(store)
    place = LocalPlace(str(tmp_path / "link"))
    (tmp_path / "link").unlink()
    put(place, PACKS, PACK)
    place.close()
    assert tree(store) == [f"packs/01/{PACK}"]


def test_where_nothing_is_there_is_no_store(tmp_path: Path) -> None:
    """Code 10, and nothing is made by looking."""
    with pytest.raises(NoStore, match="no such file") as caught:
        LocalPlace(str(tmp_path / "x"))
    assert caught.value.code == 10
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_made_only_where_nothing_is(store: Path, tmp_path: Path) -> None:
    """An empty directory and one that a crash left half made will do; anything else is somebody's."""
    (tmp_path / "empty").mkdir(mode=0o755)
    for again in (tmp_path / "empty", store):
        local.create(str(again)).close()
        assert stat.S_IMODE(again.stat().st_mode) == 0o700
    for file, words in (("letter", "'letter' is in it"), ("STORE", "a store already")):
        home = tmp_path / f"with-{file}"
        home.mkdir()
        (home / file).touch()
        with pytest.raises(StoreExists, match=words):
            local.create(str(home))
        assert [path.name for path in home.iterdir()] == [file]
    place = LocalPlace(str(store))
    put(place, PACKS, PACK)
    place.close()
    with pytest.raises(StoreExists, match="packs, but no STORE"):
        local.create(str(store))
    with pytest.raises(PlaceFailed, match="no such file"):
        local.create(str(tmp_path / "no/such"))


@pytest.mark.parametrize(
    ("call", "number", "words"),
    [
        ("fsync", errno.EINVAL, "makes nothing durable"),
        ("flock", errno.EOPNOTSUPP, "has no locks"),
        ("open", errno.EROFS, "is read-only"),
    ],
)
def test_a_file_system_that_cannot_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, words: str
) -> None:
    """In words, and the directory is as it was."""
    room = fcntl if call == "flock" else os
    real = getattr(room, call)

    def refused(first: object, second: int = 0, *rest: object, **named: object) -> object:
        if call == "open" and not second & os.O_CREAT:
            return real(first, second, *rest, **named)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(f"ocimig.migrate.store.fit.{room.__name__}.{call}", refused)
    with pytest.raises(StoreExists, match=words):
        local.create(str(tmp_path / "store"))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_trying_leaves_nothing(tmp_path: Path) -> None:
    """A file system that can is left as it was found."""
    fd = os.open(tmp_path, os.O_RDONLY)
    fit.check(fd)
    os.close(fd)
    assert list(tmp_path.iterdir()) == []
