"""A store on another host, and what each side may not believe of the other."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocimig.errors import NoSpace
from ocimig.migrate.errors import InvalidTarget
from ocimig.migrate.store import far, local, serve
from ocimig.migrate.store.errors import (
    AddOnly,
    NameTaken,
    NoStore,
    PlaceFailed,
    StoreExists,
    StoreLocked,
)
from ocimig.migrate.store.place import KEYS, PACKS, SNAPSHOTS
from ocimig.migrate.transport.local import LocalConnection
from ocimig.migrate.transport.memory import pair
from ocimig.migrate.wire import Wire
from ocimig_testkit.runner import program
from ocimig_testkit.stores import PACK, put, reach
from ocimig_testkit.waiting import until


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty one, in a directory that has others in it."""
    (tmp_path / "backups").mkdir()
    local.create(str(tmp_path / "backups/store")).close()
    return tmp_path / "backups/store"


@pytest.fixture
def place(store: Path) -> Iterator[far.FarPlace]:
    """It, open."""
    opened = reach(store)
    yield opened
    opened.close()


# ---- addresses


@pytest.mark.parametrize(
    ("text", "host", "user", "port", "path"),
    [
        ("ssh://host/srv/backups", "host", "", 0, "/srv/backups"),
        ("ssh://me@host:2222//srv/./b/", "host", "me", 2222, "/srv/b"),
        ("ssh://[2001:db8::1]:22/b", "2001:db8::1", "", 22, "/b"),
    ],
)
def test_an_address_is_read(text: str, host: str, user: str, port: int, path: str) -> None:
    """User, host, port and an absolute path."""
    found = far.parse(text)
    assert (found.target.host, found.target.user, found.target.port) == (host, user, port)
    assert found.path == path
    assert far.is_far(text)
    assert not far.is_far("/srv/backups")


@pytest.mark.parametrize("text", ["ssh://host", "ssh://host/", "ssh:///b", "ssh://host/../..", "/b",
                                  "ssh://-oProxyCommand=x/b", "ssh://host:0/b", "ssh://host/a\nb"])  # fmt: skip
def test_what_is_no_address_is_named(text: str) -> None:
    """Code 2, before anything is connected."""
    with pytest.raises(InvalidTarget):
        far.parse(text)


# ---- what a caller may do there


def test_a_store_is_made_over_there(store: Path) -> None:
    """And what is in the way is said as here."""
    reach(store.parent / "new", create=True).close()
    assert (store.parent / "new/packs").is_dir()
    (store.parent / "new/letter").touch()
    with pytest.raises(StoreExists, match="'letter' is in it"):
        reach(store.parent / "new", create=True)
    with pytest.raises(NoStore, match=r"ssh://memory.*/none is no store: no such file"):
        reach(store.parent / "none")


@pytest.mark.parametrize("create", [False, True])
def test_who_is_confined_stays_below(store: Path, tmp_path: Path, create: bool) -> None:
    """Neither a path nor a link leads out, and nothing is made outside."""
    confined = serve.Confined(str(store.parent))
    reach(store, confined).close()
    reach(store.parent / "deeper", confined, create=True).close()
    (tmp_path / "outside").mkdir()
    (store.parent / "link").symlink_to(tmp_path / "outside")
    for path in ("outside", "backups/../outside", "backups/link", "backups/link/x", "backups2", ""):
        with pytest.raises((PlaceFailed, NoStore)):
            reach(Path(f"{tmp_path}/{path}"), confined, create=create)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["backups", "outside"]
    assert list((tmp_path / "outside").iterdir()) == []


def test_who_may_only_add_cannot_take_away(store: Path) -> None:
    """A host that was broken into cannot destroy its backups: not by removing, moving or pruning."""
    place = reach(store, serve.Confined(append_only=True))
    put(place, PACKS, PACK)
    put(place, SNAPSHOTS, "s.snapshot")
    with place.lock(exclusive=False, purpose="backup"):
        assert place.read(PACKS, PACK) == b"data"
    with pytest.raises(AddOnly, match="not held alone"):
        place.lock(exclusive=True, purpose="prune").__enter__()
    with pytest.raises(AddOnly, match="not removed from"):
        place.remove(SNAPSHOTS, "s.snapshot")
    with pytest.raises(AddOnly, match="not changed"):
        place.quarantine(PACKS, PACK)
    with pytest.raises(NameTaken):
        put(place, PACKS, PACK, b"other")
    assert place.read(PACKS, PACK) == b"data"
    place.close()


def test_who_may_only_add_cannot_stand_in_for_what_is_there(store: Path) -> None:
    """A fuller pack of the same number would be read instead; slots without end would shut out all keys."""
    place = reach(store, serve.Confined(append_only=True))
    put(place, PACKS, PACK)
    put(place, KEYS, "first.key")
    with pytest.raises(AddOnly, match="second file of that number"):
        put(place, PACKS, PACK.replace("-0", "-1"))
    with pytest.raises(AddOnly, match="another key"):
        put(place, KEYS, "second.key")
    assert (place.names(PACKS), place.names(KEYS)) == ([PACK], ["first.key"])
    place.close()
    place = reach(store)  # compaction, by who may do everything
    put(place, PACKS, PACK.replace("-0", "-1"))
    place.close()


def test_who_holds_it_over_ssh_is_named_with_the_host(place: far.FarPlace, store: Path) -> None:
    """The administrator of that host sees whom to ask."""
    with place.lock(exclusive=True, purpose="prune"):
        here = local.LocalPlace(str(store))
        with pytest.raises(StoreLocked, match=r"prune for 192\.0\.2\.7, alone"):
            here.lock(exclusive=False, purpose="x").__enter__()
        here.close()


def test_names_and_bytes_arrive_in_pieces(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No piece is too large for a frame, and where one ends nothing is lost or glued together."""
    monkeypatch.setattr(serve, "PIECE_BYTES", 100)
    place = reach(store)
    data = os.urandom(1000)
    names = [f"{number:0{10 + number}}.key" for number in range(30)]
    for name in names:
        put(place, KEYS, name, data)
    assert sorted(place.names(KEYS)) == sorted(names)
    for size in (0, 1, 99, 100, 101, 200, 999, -1):
        there = place.read(KEYS, names[0], 1, size)
        assert there == (data[1:] if size < 0 else data[1 : 1 + size])
    place.close()


# ---- what breaks


def test_a_broken_connection_leaves_nothing_and_no_lock(store: Path) -> None:
    """The far process ends with its client, killed as by a power cut, and so do its locks."""
    command = [*program(), "serve-store"]
    place = far.reach(LocalConnection(), command, str(store))
    here = local.LocalPlace(str(store))
    with place.lock(exclusive=True, purpose="prune"):
        making = place.make(PACKS)
        making.write(bytes(3 << 20))
        until(lambda: list((store / "tmp").iterdir()) != [], "the bytes arrive")
        place._wire.channel.close()
        until(lambda: here.holders() == [], "the far process lets go")
        for ask in (place.free, lambda: making.commit(PACK), lambda: making.write(b"x")):
            with pytest.raises(PlaceFailed):
                ask()
    place.close()
    with here.lock(exclusive=True, purpose="x"):
        assert here.names(PACKS) == []
    here.close()


def test_a_far_side_that_is_told_to_end_ends(store: Path) -> None:
    """SIGTERM, as an administrator or a shutdown sends it: the lock is free, the client is told."""
    place = far.reach(LocalConnection(), [*program(), "serve-store"], str(store))
    here = local.LocalPlace(str(store))
    with place.lock(exclusive=True, purpose="prune"):
        (words,) = here.holders()
        os.kill(int(words.split()[1]), signal.SIGTERM)
        with pytest.raises(PlaceFailed, match="signal 15"):
            place.free()
    until(lambda: here.holders() == [], "the far process lets go")
    place.close()
    here.close()


def test_a_client_that_falls_silent_loses_its_lock(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that lost its power sends no end: the lock is free all the same."""
    monkeypatch.setattr(serve, "QUIET", 0.5)
    here, there = pair()
    server = serve.Server(Wire(there), serve.Confined())
    thread = threading.Thread(target=server.run)
    thread.start()
    wire = Wire(here)
    wire.greet(10)
    asked: tuple[tuple[str, dict[str, Any]], ...] = (
        ("open", {"path": str(store)}),
        ("lock", {"lock": 0, "exclusive": True, "purpose": "x"}),
    )
    for kind, header in asked:
        wire.send(kind, header)
        wire.expect("done", timeout=10)
    opened = local.LocalPlace(str(store))
    assert opened.holders() != []
    thread.join(20)
    assert opened.holders() == []
    opened.close()
    wire.close()


def test_a_client_that_computes_for_long_keeps_its_lock(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks nothing meanwhile, but it is alive."""
    monkeypatch.setattr(serve, "QUIET", 1.5)
    monkeypatch.setattr(far, "BEAT", 0.1)
    place = reach(store)
    with place.lock(exclusive=True, purpose="x"):
        time.sleep(2.5)
        assert len(place.holders()) == 1
    place.close()


def test_a_slow_link_is_not_taken_for_a_dead_host(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written lies in buffers when the answer to commit() is waited for: signs of life come."""
    monkeypatch.setattr(serve, "BEAT", 0.1)
    monkeypatch.setattr(far, "PATIENCE", 1.5)
    real = local.LocalMaking.write

    def slow(self: local.LocalMaking, data: bytes) -> None:
        time.sleep(0.5)
        real(self, data)

    monkeypatch.setattr(local.LocalMaking, "write", slow)
    place = reach(store)
    with place.make(PACKS) as making:
        for _ in range(6):
            making.write(b"x")
        making.commit(PACK)
    assert place.read(PACKS, PACK) == b"x" * 6
    place.close()


def test_a_disk_that_is_full_over_there_is_said_at_the_commit(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code 15; nothing is half there, and the next file has its chance."""
    real = local.LocalMaking.write

    def full(self: local.LocalMaking, data: bytes) -> None:
        if data == b"too much":
            raise NoSpace(path="there")
        real(self, data)

    monkeypatch.setattr(local.LocalMaking, "write", full)
    place = reach(store)
    with pytest.raises(NoSpace, match="no space left on ssh://memory"):
        put(place, PACKS, PACK, b"too much")
    assert place.names(PACKS) == []
    assert list((store / "tmp").iterdir()) == []
    put(place, PACKS, PACK)
    place.close()


# ---- as a program


def test_the_verb_is_confined_by_its_options(store: Path) -> None:
    """As in `restrict,command="ocimig serve-store --store-root … --append-only"`."""
    command = [*program(), "serve-store", "--store-root", str(store.parent), "--append-only"]
    place = far.reach(LocalConnection(), command, str(store))
    put(place, PACKS, PACK)
    with pytest.raises(AddOnly):
        place.remove(PACKS, PACK)
    place.close()
    with pytest.raises(PlaceFailed, match="for another directory"):
        far.reach(LocalConnection(), command, "/etc")


def test_a_root_that_is_not_absolute_is_refused() -> None:
    """A forced command runs in the home directory: a mistake would open that."""
    done = subprocess.run(
        [*program(), "serve-store", "--store-root", "backups"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 2
    assert "absolute" in done.stderr


def test_the_command_over_there_can_be_another() -> None:
    """An option, else the variable that migrations use, else the name."""
    assert far.argv("", {}) == ["ocimig", "serve-store"]
    assert far.argv("", {"OCIMIG_REMOTE_COMMAND": "sudo ocimig"}) == [
        "sudo",
        "ocimig",
        "serve-store",
    ]
    assert far.argv("/opt/o --debug", {"OCIMIG_REMOTE_COMMAND": "x"})[:2] == ["/opt/o", "--debug"]
