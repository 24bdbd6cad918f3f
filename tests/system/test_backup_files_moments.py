"""Changes at the worst moments: between two looks at a file, and in the freeze. Needs root."""

import mmap
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from ocimig.migrate.backup.files import Capture
from ocimig.migrate.backup.files_restore import restore
from ocimig.migrate.backup.names import open_node
from ocimig.migrate.backup.walk import walk
from ocimig.migrate.errors import TreeFailed
from ocimig.migrate.rootfs import Entry, Watch
from ocimig.migrate.rootfs.paths import Directories
from ocimig_testkit.captured import Captures
from ocimig_testkit.whole_tree import write

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


class Before:
    """Calls something when a name is about to be read, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.act: Callable[[str], bool] | None = None
        monkeypatch.setattr("ocimig.migrate.backup.files.open_node", self)

    def __call__(self, directories: Directories, path: str, entry: Entry) -> object:
        if self.act is not None and self.act(path):
            self.act = None
        return open_node(directories, path, entry)


def test_a_directory_that_is_replaced_under_our_eyes(
    tree: Captures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in the old one is not in the new one, even if it was known from before."""
    for name in ("a", "b", "c"):
        write(tree.here / "d" / name)
    tree.settle()
    (tree.here / "d").chmod(0o700)

    def move(path: str) -> bool:
        if path == "d":
            (tree.here / "d").rename(tree.base / "away")
        return path == "d"

    Before(monkeypatch).act = move
    there = tree.check(tree.go(running=lambda: write(tree.here / "d/new")))
    assert os.listdir(there / "d") == ["new"]


def test_a_file_that_changes_between_two_of_its_names(
    tree: Captures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both names have what it had in the end."""
    one = write(tree.here / "one", b"old")
    os.link(one, tree.here / "two")
    seen = []

    def change(path: str) -> bool:
        seen.extend([path] if path else [])
        if len(seen) == 2:
            time.sleep(0.05)
            one.write_bytes(b"new")
            time.sleep(0.05)  # else it would be young, and taken for that
        return len(seen) == 2

    Before(monkeypatch).act = change
    captured = tree.go()
    tree.check(captured)
    nodes = {path: node for path, node in walk(tree.store, captured.root) if path}
    assert nodes["one"]._replace(name=b"two") == nodes["two"]


def test_a_stranger_who_changes_a_file_in_the_freeze(
    tree: Captures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's own programs do not stand still: what they did once is taken, what they do again and again is
    said."""
    one, two = write(tree.here / "one"), write(tree.here / "two")
    before = Before(monkeypatch)

    def replaced(path: str) -> bool:
        if path == "one":
            two.rename(one)
        return path == "one"

    def running() -> None:
        write(one, b"changed")
        write(two, b"of a stranger")
        before.act = replaced

    captured = tree.go(running=running)
    restore(tree.store, captured.root, str(tree.base / "there"), sync=False)
    assert (tree.base / "there/one").read_bytes() == b"of a stranger"
    assert os.listdir(tree.base / "there") == ["one"]

    def again(path: str) -> bool:
        if path == "one":
            os.replace(write(tree.base / "new"), one)
        return False

    with Capture(tree.store, str(tree.here), room=str(tree.room)) as capture:
        capture.scan()
        write(one, b"changed")
        before.act = again
        with pytest.raises(TreeFailed, match="cannot read .*/here/one: somebody changes it"):
            capture.freeze()


def test_a_write_through_a_mapping_is_seen_in_the_freeze(
    tree: Captures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes no time when the page is dirty already, as it may be again at any moment after the scan wrote
    out all pages; and the file is never trusted afterwards."""
    monkeypatch.setattr("ocimig.migrate.backup.files.syncfs", lambda fd: None)
    path = write(tree.here / "mapped", b"x" * 8192)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as memory:
        memory[0:1] = b"x"
        time.sleep(0.05)  # else it would be young, and taken for that
        for letter in (b"1", b"2", b"3"):
            captured = tree.go(
                running=partial(memory.__setitem__, slice(0, 1), letter), pids=[os.getpid()]
            )
            assert (tree.check(captured) / "mapped").read_bytes()[:1] == letter
            assert "mapped" not in tree.known
