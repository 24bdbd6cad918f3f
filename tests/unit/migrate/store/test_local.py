"""A store in a directory: what power cuts, full disks, dead holders and hostile neighbours make of it."""

import errno
import fcntl
import json
import os
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.errors import NoSpace
from ocimig.migrate.store import fit, local
from ocimig.migrate.store.errors import NoStore, PlaceFailed, StoreExists, StoreLocked
from ocimig.migrate.store.local import LocalPlace
from ocimig.migrate.store.place import KEYS, PACKS, QUARANTINE, SNAPSHOTS, TOP, Place
from ocimig_testkit.places import Disk, MemoryPlace, PowerCut
from ocimig_testkit.waiting import until

PACK = "0123456789abcdef-00112233445566778899aabbccddeeff.pack"
OTHER = PACK.replace("01", "ab", 1)


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


def put(place: Place, room: str, name: str, data: bytes = b"data") -> None:
    """A file."""
    with place.make(room) as making:
        making.write(data)
        making.commit(name)


def work(place: Place) -> None:
    """Something of everything that changes a store."""
    put(place, KEYS, "a.key")
    put(place, PACKS, PACK)
    put(place, PACKS, OTHER)
    put(place, SNAPSHOTS, "s.snapshot")
    place.quarantine(PACKS, OTHER)
    place.remove(SNAPSHOTS, "s.snapshot")


def tree(store: Path) -> list[str]:
    """Every file, but for what is no part of the store."""
    files = [str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()]
    return sorted(name for name in files if name != "lock")


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


# ---- the order of writes


def test_its_steps_are_those_of_the_place_in_memory(store: Path) -> None:
    """So that what is proved of the one, power cut by power cut, holds for the other."""
    steps: list[tuple[str, str]] = []
    place = LocalPlace(str(store), step=lambda act, room: steps.append((act, room)))
    work(place)
    place.close()
    disk = Disk()
    work(MemoryPlace(disk))
    made = [at for at, (act, _) in enumerate(steps) if act == local.MAKE_DIRECTORY]
    assert made, "packs are in directories of their own"
    for at in reversed(made):  # a directory is durable before anything is in it
        assert [act for act, _ in steps[at : at + 3]] == [
            "mkdir",
            "sync-directory",
            "sync-directory",
        ]
        del steps[at : at + 3]
    assert sorted(set(steps)) == sorted(set(disk.steps))
    # its directory is made ready between a file's last write and its sync: nothing depends on that
    assert steps == disk.steps


def test_after_a_power_cut_a_name_means_a_whole_file() -> None:
    """At every step, whatever the disk kept of what was not synced; and what was committed is there."""
    whole = Disk()
    work(MemoryPlace(whole))
    for cut in range(1, len(whole.steps) + 2):
        disk, done = Disk(), []
        disk.cut_at = cut
        try:
            for room, name in ((KEYS, "a.key"), (PACKS, PACK), (SNAPSHOTS, "s.snapshot")):
                put(MemoryPlace(disk), room, name, b"data" * 100)
                done.append((room, name))
        except PowerCut:
            pass
        for seed in range(8):
            after = MemoryPlace(disk.survivors(random.Random(seed)))
            there = [
                (room, name) for room in (KEYS, PACKS, SNAPSHOTS) for name in after.names(room)
            ]
            assert set(done) <= set(there)
            assert all(after.read(room, name) == b"data" * 100 for room, name in there)


def _steps(store: Path) -> int:
    count = 0

    def step(act: str, room: str) -> None:
        nonlocal count
        count += 1

    place = LocalPlace(str(store), step=step)
    work(place)
    place.close()
    return count


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_at_any_step_loses_nothing(tmp_path: Path, number: int) -> None:
    """Full, over quota or broken: the words fit, nothing is half there, and the next attempt works."""
    local.create(str(tmp_path / "count")).close()
    for failing in range(1, _steps(tmp_path / "count") + 1):
        home = tmp_path / str(failing)
        local.create(str(home)).close()
        left = failing

        def step(act: str, room: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise OSError(number, os.strerror(number))

        place = LocalPlace(str(home), step=step)
        with pytest.raises(PlaceFailed if number == errno.EIO else NoSpace) as caught:
            work(place)
        assert str(home) in str(caught.value)
        assert caught.value.code == (1 if number == errno.EIO else 15)
        for room in (KEYS, PACKS, SNAPSHOTS, QUARANTINE):
            assert all(place.read(room, name) == b"data" for name in place.names(room))
        assert list((home / "tmp").iterdir()) == []
        for room, name in (
            (KEYS, "a.key"),
            (PACKS, PACK),
            (PACKS, OTHER),
            (SNAPSHOTS, "s.snapshot"),
        ):
            place.remove(room, name)
        work(place)
        place.close()


def test_a_file_of_which_a_write_failed_gets_no_name(store: Path) -> None:
    """Also when its writer did not look at the error."""
    full = True

    def step(act: str, room: str) -> None:
        if act == local.WRITE and full:
            raise OSError(errno.ENOSPC, "full")

    place = LocalPlace(str(store), step=step)
    with place.make(PACKS) as making:
        with pytest.raises(NoSpace):
            making.write(b"a")
        full = False
        making.write(b"b")
        with pytest.raises(PlaceFailed, match="was not written"):
            making.commit(PACK)
    assert place.names(PACKS) == []
    place.close()


# ---- killed, and locks

SCRIPT = """
import sys
from ocimig.migrate.store.local import LocalPlace
place = LocalPlace(sys.argv[1])
with place.lock(exclusive=sys.argv[2] == "alone", purpose="a test"):
    for line in sys.stdin:
        with place.make(line.strip()) as making:
            making.write(b"data")
            print("written", flush=True)
            if sys.stdin.readline().strip() == "commit":
                making.commit(sys.stdin.readline().strip())
                print("committed", flush=True)
"""


def start(store: Path, how: str = "shared", **environment: str) -> "subprocess.Popen[str]":
    """Another process that holds the store, and makes a file when it is told."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(store), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def tell(process: "subprocess.Popen[str]", text: str) -> None:
    """One or more lines."""
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.flush()


def end(process: "subprocess.Popen[str]") -> None:
    """By SIGKILL, as a crash would."""
    process.kill()
    process.communicate()


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


@pytest.mark.parametrize(
    ("kind", "there"),
    [
        ("PACKS-WRITE-1", False),
        ("PACKS-MKDIR-1", False),
        ("PACKS-SYNC-1", False),
        ("PACKS-RENAME-1", False),
        ("PACKS-SYNC-DIRECTORY-3", True),
    ],
)
def test_killed_at_a_step_the_store_is_whole(
    store: Path, place: LocalPlace, kind: str, there: bool
) -> None:
    """Each step is a place of failpoints: a real SIGKILL, by the environment."""
    process = start(store, OCIMIG_FAILPOINT=f"store:{kind}:before")
    out, _ = process.communicate(f"packs\ncommit\n{PACK}\n", timeout=60)
    assert (process.returncode, "committed" in out) == (-signal.SIGKILL, False)
    assert place.names(PACKS) == ([PACK] if there else [])
    with place.lock(exclusive=True, purpose="x"):
        put(place, PACKS, OTHER)
        assert [name for name in tree(store) if name.startswith("tmp/")] == []
