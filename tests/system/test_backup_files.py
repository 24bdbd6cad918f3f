"""A container's files at the instant of the freeze, whatever happens before and after it. Needs root."""

import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.migrate.backup import known
from ocimig.migrate.backup.files import Capture
from ocimig.migrate.backup.walk import diff, walk
from ocimig.migrate.errors import TreeFailed
from ocimig.migrate.rootfs import Watch
from ocimig.migrate.store.blobs import BLOCK, Data
from ocimig_testkit.captured import Captures
from ocimig_testkit.memory_store import MemoryStore
from ocimig_testkit.mutations import mutate
from ocimig_testkit.whole_tree import make_everything, write

pytestmark = [pytest.mark.root, pytest.mark.xattr]


@pytest.fixture(params=["watched", "blind"])
def tree(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Captures]:
    """An empty tree; in its freeze the kernel tells what changed, or every name is looked at."""
    if request.param == "blind":
        monkeypatch.setattr(Watch, "start", staticmethod(lambda root: Watch(-1, "for a test")))
    made = Captures(tmp_path)
    if request.param == "watched" and made.blind():
        pytest.skip(made.blind())
    yield made
    assert not os.listdir(made.room)


def test_one_of_everything_comes_back_exactly(tree: Captures) -> None:
    """Owners, modes, links, attributes, holes, devices, names and times."""
    make_everything(tree.here)
    there = tree.check(tree.go())
    assert (there / "sparse").stat().st_blocks * 512 <= BLOCK
    assert tree.scanned.data < 5 << 20  # holes were not read


def test_acls_come_back_exactly(tree: Captures) -> None:
    """And a default ACL of a directory is not inherited by what is put in it."""
    if shutil.which("setfacl") is None:
        pytest.skip("setfacl is not installed")
    write(tree.here / "d/plain")
    write(tree.here / "d/own").chmod(0o664)
    subprocess.run(["setfacl", "-m", "u:1234:rw,g:77:r", tree.here / "d/own"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx", tree.here / "d"], check=True)
    tree.check(tree.go())


def test_what_did_not_change_is_not_read_again(tree: Captures) -> None:
    """Its directories are the same streams, whatever the names in them are."""
    make_everything(tree.here)
    tree.settle()
    before = tree.go()
    offered = tree.store.put_bytes
    captured = tree.go()
    assert (captured.files, captured.data, captured.directories) == (0, 0, 0)
    assert tree.store.put_bytes == offered
    assert captured.root == before.root
    tree.check(captured)


def test_a_change_costs_its_file_and_the_directories_above(tree: Captures) -> None:
    """And of a large file only the blocks that are new."""
    for number in range(50):
        write(tree.here / f"d{number % 5}/f{number}", b"%d" % number)
    big = write(tree.here / "d1/e/big", os.urandom(20 * BLOCK))
    tree.settle()
    with big.open("r+b") as file:
        file.seek(7 * BLOCK)
        file.write(b"new")
    new = tree.store.new_bytes
    captured = tree.go()
    assert captured.directories == 3
    assert BLOCK < tree.store.new_bytes - new < 2 * BLOCK
    tree.check(captured)


def test_the_freeze_looks_at_what_changed_since_the_scan(tree: Captures) -> None:
    """Not at every name, where the kernel tells."""
    for number in range(200):
        write(tree.here / f"d{number % 5}/f{number}", b"%d" % number)
    tree.settle()
    tree.go(running=lambda: write(tree.here / "d1/f1", b"changed"))
    if tree.frozen.looked < len(tree.facts):
        assert tree.frozen.looked <= 2
    assert tree.frozen.taken <= 2


def test_the_files_are_those_of_the_freeze(tree: Captures) -> None:
    """What is written, made, renamed and removed before it is in the snapshot, what follows is not."""
    names = ["small", "large", "sparse", "gone", "d/a", "d/b", "old/x/y"]
    for name in names:
        write(tree.here / name, name.encode())
    os.truncate(tree.here / "sparse", 5 << 20)
    os.link(tree.here / "d/a", tree.here / "d/twin")

    def running() -> None:
        write(tree.here / "small", b"new")
        write(tree.here / "large", os.urandom((300 << 10) + 1))
        os.truncate(tree.here / "sparse", 9 << 20)
        os.unlink(tree.here / "gone")
        os.link(tree.here / "d/a", tree.here / "d/third")
        os.rename(tree.here / "old", tree.here / "d/young")
        os.symlink("d", tree.here / "old")
        os.setxattr(tree.here / "d", "user.a", b"1")

    def thawed() -> None:
        for name in ("small", "large", "sparse", "d/a", "d/young/x/y"):
            write(tree.here / name, b"too late" * 50_000)
        shutil.rmtree(tree.here / "d")

    tree.check(tree.go(running=running, thawed=thawed))
    write(tree.here / "d/a", b"again")
    tree.check(tree.go(running=lambda: write(tree.here / "last", b"x" * 400_000)))


def test_of_a_large_file_the_freeze_copies_what_changed(tree: Captures) -> None:
    """A database is written to all the time, and never in all places."""
    path = write(tree.here / "database", os.urandom(100 * BLOCK))

    def scribble() -> None:
        with path.open("r+b") as file:
            for place in (3, 70, 100):
                file.seek(place * BLOCK + 5)
                file.write(b"changed")

    captured = tree.go(running=scribble, thawed=lambda: path.write_bytes(b"too late"))
    tree.check(captured)
    if tree.frozen.copied:  # nothing, where the file system shares blocks
        assert tree.frozen.copied == 2 * BLOCK + 12
    scribble()
    tree.check(tree.go())


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_to_a_tree(tree: Captures, seed: int) -> None:
    """Between snapshots, between scan and freeze, and afterwards."""
    dice = random.Random(seed)

    def some() -> None:
        for _ in range(dice.randrange(12)):
            mutate(tree.here, dice)

    for _ in range(30):
        mutate(tree.here, dice)
    before = tree.go()
    for _ in range(8):
        some()
        captured = tree.go(running=some, thawed=some)
        there = tree.check(captured)
        changed = {each.path for each in diff(tree.store, before.root, captured.root)}
        names = {path for path, _ in walk(tree.store, captured.root)}
        assert names - changed <= {path for path, _ in walk(tree.store, before.root)}
        shutil.rmtree(there)
        before = captured


class Meddling(MemoryStore):
    """Does something to the tree whenever a blob is stored: in the middle of a scan."""

    def __init__(self, base: Path, dice: random.Random) -> None:
        super().__init__()
        self.base = base
        self.dice = dice
        self.on = True

    def put(self, blob: Data) -> tuple[int, int]:
        """See MemoryStore."""
        if self.on:
            mutate(self.base, self.dice)
        return super().put(blob)


@pytest.mark.parametrize("seed", range(6))
def test_a_tree_that_changes_while_it_is_scanned(tree: Captures, seed: int) -> None:
    """Files that vanish, change and become something else under our eyes are taken in the freeze."""
    dice = random.Random(seed)
    store = tree.store = Meddling(tree.here, dice)
    for _ in range(60):
        mutate(tree.here, dice)
    for _ in range(4):
        store.on = True
        captured = tree.go(running=lambda: setattr(store, "on", False))
        shutil.rmtree(tree.check(captured))


def test_a_file_that_is_written_to_while_it_is_read(tree: Captures) -> None:
    """Half of it old and half of it new is what nobody ever had."""
    path = write(tree.here / "file", b"a" * (4 * BLOCK))

    class Writing(MemoryStore):
        def put(self, blob: Data) -> tuple[int, int]:
            if bytes(blob[:1]) == b"a":
                path.write_bytes(b"b" * (4 * BLOCK))
            return super().put(blob)

    tree.store = Writing()
    assert (tree.check(tree.go()) / "file").read_bytes() == b"b" * (4 * BLOCK)


def test_links_that_are_swapped_for_directories_lead_nowhere(tree: Captures) -> None:
    """Who is in the container tries to have the host's files stored as its own."""
    secret = tree.base / "secret"
    for number in range(5):
        write(secret / f"f{number}", b"SECRET" * 10)
        write(tree.here / f"d/f{number}", b"public")
        write(tree.here / f"away/f{number}", b"public")
    link, d, aside = (str(tree.here / name) for name in ("link", "d", "aside"))
    os.symlink(secret, link)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(d, aside)
            os.rename(link, d)
            os.rename(d, link)
            os.rename(aside, d)
            file = f"{d}/f1"
            os.rename(file, f"{file}.aside")
            os.symlink(secret / "f1", file)
            os.rename(f"{file}.aside", file)

    thread = threading.Thread(target=swap)
    thread.start()

    def halt() -> None:
        stop.set()
        thread.join()

    try:
        for _ in range(30):
            with Capture(tree.store, str(tree.here), room=str(tree.room)) as capture:
                capture.scan()
        captured = tree.go(running=halt)
    finally:
        halt()
    tree.check(captured)
    assert not any(b"SECRET" in blob for pack in tree.store.packs.values() for blob in pack)


def test_mount_points_are_not_entered(tree: Captures) -> None:
    """What is mounted in a tree is a volume's, or the kernel's."""
    write(tree.here / "mnt/below", b"hidden")
    write(tree.here / "file")
    subprocess.run(["mount", "-t", "tmpfs", "none", tree.here / "mnt"], check=True)
    try:
        write(tree.here / "mnt/volume", b"on the volume")
        captured = tree.go()
        assert [path for path, _ in walk(tree.store, captured.root)] == ["", "file", "mnt"]
    finally:
        subprocess.run(["umount", tree.here / "mnt"], check=True)


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """The tree, and the room for copies."""
    with pytest.raises(TreeFailed, match=f"cannot read {tmp_path}/none: No such file"):
        Capture(MemoryStore(), str(tmp_path / "none"), room=str(tmp_path))
    big = write(tmp_path / "here/big", b"x" * 500_000)
    store = MemoryStore()
    with Capture(store, str(tmp_path / "here"), room=str(tmp_path / "no-room")) as capture:
        capture.scan()
        big.write_bytes(b"y" * 500_000)
        with pytest.raises(TreeFailed, match="keep copies in .*/no-room: No such file"):
            capture.freeze()


def test_what_is_known_survives_in_a_file(tree: Captures) -> None:
    """The next snapshot is another process; a file that is damaged, or of a snapshot that is no more, is
    as good as none."""
    make_everything(tree.here)
    tree.settle()
    path = tree.base / "known"
    known.save(str(path), "0123", tree.known)
    facts = {name: (each.entry[:10], each.line) for name, each in tree.known.items()}
    found = known.load(str(path), lambda snapshot: snapshot == "0123")
    assert {name: (each.entry[:10], each.line) for name, each in found.items()} == facts
    tree.known = found
    assert tree.go().files == 0
    assert known.load(str(path), lambda snapshot: False) == {}
    assert known.load(str(tree.base / "none"), lambda snapshot: True) == {}
    data = path.read_bytes()
    for wrong in (b"", b"{}\n", data[:-1], data[:-1] + b"?", data.replace(b'sion":1', b'sion":2')):
        path.write_bytes(wrong)
        assert known.load(str(path), lambda snapshot: True) == {}
