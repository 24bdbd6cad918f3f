"""Trees out of a store: exact, nowhere else, and nothing is left where it fails. Needs root."""

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from ocimig.errors import NoSpace, OcimigError
from ocimig.migrate.backup.files import Capture, Captured
from ocimig.migrate.backup.files_restore import restore
from ocimig.migrate.backup.walk import diff, walk
from ocimig.migrate.errors import DirectoryNotEmpty, TreeFailed
from ocimig.migrate.rootfs.paths import LONGEST
from ocimig.migrate.store import stream
from ocimig.migrate.store.blobs import BLOCK, Data, Run
from ocimig.migrate.store.errors import TreeDamaged
from ocimig.migrate.store.tree import Node, encode
from ocimig_testkit import trees
from ocimig_testkit.captured import Captures
from ocimig_testkit.memory_store import PACK, MemoryStore
from ocimig_testkit.whole_tree import make_everything, write

pytestmark = [pytest.mark.root, pytest.mark.xattr]


def captured(store: MemoryStore, tree: Path, room: Path) -> Captured:
    """A tree that nobody uses, in a store."""
    with Capture(store, str(tree), room=str(room)) as capture:
        capture.scan()
        return capture.finish()


def test_a_tree_that_stands_still_needs_no_freeze(tmp_path: Path) -> None:
    """A stopped container's files are stored by the scan alone."""
    (tmp_path / "here").mkdir()
    make_everything(tmp_path / "here")
    store = MemoryStore()
    root = captured(store, tmp_path / "here", tmp_path).root
    restored = restore(store, root, str(tmp_path / "there"))
    assert trees.differences(tmp_path / "here", tmp_path / "there") == []
    assert restored.notes == []


def test_only_what_is_empty_is_restored_into(tmp_path: Path) -> None:
    """Files that are there would be mixed with those of the snapshot."""
    write(tmp_path / "here/file")
    store = MemoryStore()
    root = captured(store, tmp_path / "here", tmp_path).root
    mine = write(tmp_path / "full/mine")
    with pytest.raises(DirectoryNotEmpty, match="full is not empty"):
        restore(store, root, str(tmp_path / "full"))
    assert os.listdir(mine.parent) == ["mine"]
    (tmp_path / "empty").mkdir()
    restore(store, root, str(tmp_path / "empty"))
    os.symlink("empty", tmp_path / "link")
    with pytest.raises((DirectoryNotEmpty, TreeFailed)):
        restore(store, root, str(tmp_path / "link"))


def test_a_disk_that_is_full_is_named_and_left_as_it_was(tmp_path: Path) -> None:
    """Half a tree is no tree."""
    write(tmp_path / "here/d/small")
    write(tmp_path / "here/d/e/large", os.urandom(3 << 20))
    store = MemoryStore()
    root = captured(store, tmp_path / "here", tmp_path).root
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=True)
    try:
        with pytest.raises(NoSpace, match="no space left on .*/disk/tree/d/e/large"):
            restore(store, root, str(disk / "tree"))
        assert os.listdir(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_room_for_copies_that_is_full_is_named(tmp_path: Path) -> None:
    """The container goes on; the snapshot is not made."""
    big = write(tmp_path / "here/big")
    room = tmp_path / "room"
    room.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", room], check=True)
    try:
        with Capture(MemoryStore(), str(tmp_path / "here"), room=str(room)) as capture:
            capture.scan()
            big.write_bytes(b"x" * (3 << 20))
            with pytest.raises(NoSpace, match="no space left on .*/room"):
                capture.freeze()
    finally:
        subprocess.run(["umount", room], check=True)


def test_a_tree_is_as_deep_as_it_is(tmp_path: Path) -> None:
    """Longer than a path may be for the kernel, deeper than Python's stack, more than may be open; it goes
    away again as well."""
    fd = os.open(tmp_path, os.O_RDONLY)
    for name in ["here", *["d" * 10] * 1300]:
        os.mkdir(name, dir_fd=fd)
        new = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = new
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
    os.close(fd)
    store = MemoryStore()
    try:
        root = captured(store, tmp_path / "here", tmp_path).root
        assert restore(store, root, str(tmp_path / "there"), sync=False).names == 1302
        found = subprocess.run(
            ["find", tmp_path / "there", "-name", "file", "-printf", "%d"],
            capture_output=True,
            check=True,
        )
        assert found.stdout == b"1301"
        store.packs[PACK][0] = b"damaged"  # the deepest directory was stored first
        with pytest.raises(TreeDamaged):
            restore(store, root, str(tmp_path / "again"), sync=False)
        assert not (tmp_path / "again").exists()
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "here", tmp_path / "there"], check=True)


def test_a_tree_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    """Memory for its paths grows with the square of its depth."""
    fd = os.open(tmp_path, os.O_RDONLY)
    for name in ["here", *["d" * 200] * (LONGEST // 200 + 2)]:
        os.mkdir(name, dir_fd=fd)
        new = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = new
    os.close(fd)
    try:
        with pytest.raises(OcimigError, match="File name too long"):
            captured(MemoryStore(), tmp_path / "here", tmp_path)
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "here"], check=True)


# ---- stores that lie


def hostile(store: MemoryStore, *lines: bytes) -> Node:
    """A root directory with these lines."""
    data = b"".join(lines)
    runs = stream.put_bytes(store, data)
    return Node(b"", "d", 0o755, 0, 0, 0, size=len(data), runs=runs)


def file(name: bytes, **changes: object) -> Node:
    """A file of five bytes that are first in the store."""
    node = Node(name, "f", 0o644, 0, 0, 0, size=5, runs=(Run(PACK, 0, 1),))
    return node._replace(**changes)  # type: ignore[arg-type]


LIES = {
    "a name that leads out": [encode(file(b"x")).replace(b'"x"', b'"../x"')],
    "a name twice": [encode(file(b"a")), encode(file(b"a"))],
    "a link, then a file over it": [
        encode(Node(b"a", "l", 0, 0, 0, 0, target=b"../outside")), encode(file(b"a")),
    ],
    "a file below a link": [
        encode(Node(b"a", "l", 0, 0, 0, 0, target=b"../outside")), encode(file(b"a/f")),
    ],
    "a file that is longer than it says": [encode(file(b"a", size=4))],
    "a file that is shorter than it says": [encode(file(b"a", size=6))],
    "a directory of another's bytes": [encode(file(b"a", type="d"))],
    "a directory of zeros": [encode(Node(b"a", "d", 0, 0, 0, 0, size=9, runs=(Run(0, 0, 1),)))],
    "names of one file of two types": [
        encode(file(b"a", link=7)), encode(Node(b"b", "p", 0, 0, 0, 0, link=7)),
    ],
    "no JSON": [b"\x00\xff\n"],
    "no end": [encode(file(b"a"))[:-1]],
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_store_that_lies_is_refused(lie: str, tmp_path: Path) -> None:
    """Nothing is written outside, nothing is left, and the words name the place."""
    write(tmp_path / "outside/f", b"of the host")
    before = trees.facts(tmp_path / "outside")
    store = MemoryStore()
    store.put(b"12345")
    root = hostile(store, *LIES[lie])
    with pytest.raises(TreeDamaged, match="what the store has of .* is damaged: "):
        restore(store, root, str(tmp_path / "there"))
    assert os.listdir(tmp_path) == ["outside"]
    assert trees.facts(tmp_path / "outside") == before


def test_a_root_is_a_directory(tmp_path: Path) -> None:
    """What the snapshot says of it is as hostile as the rest."""
    with pytest.raises(TreeDamaged, match="no directory"):
        restore(MemoryStore(), file(b""), str(tmp_path / "there"))


def test_what_a_directory_would_have_others_do_waits(tmp_path: Path) -> None:
    """A directory that all may write to is nobody's before all is in it: the root is closed till the end."""
    write(tmp_path / "here/tmp/file", b"x" * 10)
    (tmp_path / "here/tmp").chmod(0o1777)
    (tmp_path / "here").chmod(0o755)
    seen = []

    class Looking(MemoryStore):
        def blobs(self, runs: Iterable[Run]) -> Iterator[Data]:
            if (there := tmp_path / "there").exists():
                seen.append(there.stat().st_mode & 0o7777)
            return super().blobs(runs)

    store = Looking()
    root = captured(store, tmp_path / "here", tmp_path).root
    (tmp_path / "there").mkdir(mode=0o777)
    restore(store, root, str(tmp_path / "there"))
    assert set(seen) == {0o700}
    assert (tmp_path / "there").stat().st_mode & 0o7777 == 0o755


# ---- looking at trees


@pytest.fixture
def tree(tmp_path: Path) -> Captures:
    """Three directories with files."""
    made = Captures(tmp_path)
    for number in range(300):
        write(made.here / f"d{number % 3}/f{number}", b"%d" % number)
    write(made.here / "d1/e/large", os.urandom(4 * BLOCK))
    return made


def test_a_walk_enters_what_it_may(tree: Captures) -> None:
    """Who marks what is used does not read a directory twice."""
    root = tree.go().root
    names = [path for path, _ in walk(tree.store, root)]
    assert names[0] == ""
    assert sorted(names) == sorted("" if name == "." else name for name in tree.facts)
    assert [path for path, _ in walk(tree.store, root, lambda node: node.name in (b"", b"d2"))][
        :5
    ] == ["", "d0", "d1", "d2", "d2/f101"]


def test_a_difference_reads_only_what_differs(tree: Captures) -> None:
    """Directories with one stream are the same all the way down."""
    tree.settle()
    one = tree.go().root
    write(tree.here / "d1/f1", b"changed")
    (tree.here / "d1/f4").chmod(0o600)
    os.utime(tree.here / "d1/f4", ns=(1, os.stat(tree.here / "d1/f4").st_mtime_ns))
    (tree.here / "d1/f7").unlink()
    (tree.here / "d1/e").rename(tree.here / "d1/new")
    other = tree.go().root
    tree.store.asked = 0
    found = {each.path: each for each in diff(tree.store, one, other)}
    assert sorted(found) == [
        "d1", "d1/e", "d1/e/large", "d1/f1", "d1/f4", "d1/f7", "d1/new", "d1/new/large",
    ]  # fmt: skip
    assert [found[name].content for name in ("d1", "d1/f1", "d1/f4", "d1/f7")] == [
        False, True, False, True,
    ]  # fmt: skip
    assert (found["d1/f7"].after, found["d1/new"].before) == (None, None)
    assert tree.store.asked == 6  # the root, d1 and e or new, of either; neither d0 nor d2
    assert list(diff(tree.store, other, other)) == []


def test_a_difference_knows_names_that_became_something_else(tree: Captures) -> None:
    """A directory that is a file now: all that was in it is gone."""
    one = tree.go().root
    subprocess.run(["rm", "-r", tree.here / "d1"], check=True)
    write(tree.here / "d1", b"file")
    other = tree.go().root
    found = [(each.path, each.before is None) for each in diff(tree.store, one, other)]
    assert ("d1", False) in found
    assert ("d1", True) in found
    assert ("d1/e/large", False) in found
    assert len(found) == 105  # 100 files, e, large, d1 twice, and the root's mtime


def test_a_tree_that_came_back_does_not_differ(tree: Captures) -> None:
    """The files have other inodes, and their names are names of one file as before."""
    os.link(tree.here / "d0/f0", tree.here / "d0/twin")
    one = tree.go().root
    restore(tree.store, one, str(tree.base / "again"), sync=False)
    other = captured(tree.store, tree.base / "again", tree.room).root
    assert one.runs != other.runs
    assert list(diff(tree.store, one, other)) == []


def test_what_a_walk_reads_is_checked(tmp_path: Path) -> None:
    """`show` and `diff` meet hostile stores as well."""
    store = MemoryStore()
    store.put(b"12345")
    deep = hostile(store)
    for _ in range(LONGEST // 200 + 3):
        deep = hostile(store, encode(deep._replace(name=b"d" * 200)))
    with pytest.raises(TreeDamaged, match="longer than"):
        list(walk(store, deep))
    wrong = hostile(store, json.dumps({"t": "f"}).encode() + b"\n")
    with pytest.raises(TreeDamaged, match="has the fields t"):
        list(diff(store, hostile(store), wrong))
