"""A watched tree: a pass looks at what changed and at nothing else, and misses nothing. Needs root.

test_rootfs.py runs all its passes watched, too.
"""

import ctypes
import mmap
import os
import platform
import random
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.errors import OcimigError
from ocimig.migrate import rootfs
from ocimig.migrate.rootfs import Index, Sent, Watch, opened, receive, send, shared_mappings
from ocimig.migrate.transport.memory import pair
from ocimig.migrate.wire import Wire
from ocimig_testkit import trees
from ocimig_testkit.mutations import mutate

pytestmark = [pytest.mark.root, pytest.mark.xattr]


class Copy:
    """A source under watch and its destination."""

    def __init__(self, base: Path, here: Path | None = None) -> None:
        self.base = base
        self.here = here or base / "here"
        self.there = base / "there"
        self.here.mkdir(exist_ok=True)
        self.watch = Watch.start(str(self.here))
        self.index: Index | None = None

    def go(self, **options: object) -> Sent:
        """One pass, and the trees are the same."""
        one, other = pair()
        failed: list[BaseException] = []

        def far() -> None:
            try:
                receive(
                    Wire(other), str(self.there), fresh=self.index is None, sync=False, timeout=20
                )
            except OcimigError as error:
                failed.append(error)

        thread = threading.Thread(target=far)
        thread.start()
        try:
            self.index, sent = send(
                Wire(one), str(self.here), previous=self.index, timeout=20, settle=False,
                watch=self.watch, **options,  # type: ignore[arg-type]
            )  # fmt: skip
        finally:
            thread.join(30)
            one.close()
            other.close()
        assert not failed, failed
        assert trees.differences(self.here, self.there) == []
        return sent

    def settled(self) -> None:
        """Passes until nothing is young: changes within one tick of the clock are looked at twice."""
        self.go()
        os.sync()
        for _ in range(50):
            if not self.go().scanned:
                return
            threading.Event().wait(0.02)
        raise AssertionError("the tree never came to rest")


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    """A hundred files in ten directories, sent."""
    (tmp_path / "outside").mkdir()
    copy = Copy(tmp_path)
    if copy.watch.blind:
        pytest.skip(copy.watch.blind)
    for number in range(100):
        path = copy.here / f"d{number // 10}" / f"f{number % 10}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%d" % number)
    copy.settled()
    yield copy
    copy.watch.close()


def test_a_quiet_tree_is_not_looked_at(copy: Copy) -> None:
    """However many names there are in it; reading them is no change."""
    (copy.here / "d1/f1").read_bytes()
    assert copy.go().scanned == 0


def test_a_change_costs_what_changed(copy: Copy) -> None:
    """A write: that file. A new name: its directory as well."""
    (copy.here / "d1/f1").write_bytes(b"new")
    sent = copy.go()
    assert (sent.scanned, sent.entries) == (1, 1)
    copy.settled()
    (copy.here / "d2/new").write_bytes(b"new")
    sent = copy.go()
    assert (sent.scanned, sent.entries) == (2, 2)


def test_a_directory_that_comes_from_outside_is_looked_at_whole(copy: Copy) -> None:
    """Nothing was ever told of what is in it."""
    tree = copy.base / "outside/tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/file").write_bytes(b"from outside")
    tree.rename(copy.here / "d3/tree")
    copy.go()
    (copy.here / "d3/tree/a/b/file").write_bytes(b"and written to")
    sent = copy.go()
    assert sent.content >= len(b"and written to")


def test_a_directory_that_moves_is_known_by_its_new_name(copy: Copy) -> None:
    """Also when it moves, is written to and moves again between two looks, or leaves and returns."""
    (copy.here / "d4").rename(copy.here / "d5/moved")
    (copy.here / "d5/moved/f1").write_bytes(b"after the first move")
    (copy.here / "d5").rename(copy.here / "top")
    (copy.here / "top/moved/f2").write_bytes(b"after the second")
    copy.go()
    (copy.here / "top/moved/f3").write_bytes(b"after the look")
    (copy.here / "top/moved").rename(copy.base / "outside/away")
    copy.go()
    (copy.base / "outside/away/f4").write_bytes(b"written outside")
    (copy.base / "outside/away").rename(copy.here / "d6/back")
    copy.go()


def test_a_directory_with_the_name_of_another_is_not_taken_for_it(copy: Copy) -> None:
    """Removed and made anew between two looks."""
    shutil.rmtree(copy.here / "d7")
    (copy.here / "d7").mkdir()
    (copy.here / "d7/other").write_bytes(b"other")
    copy.go()
    shutil.rmtree(copy.here / "d7")
    (copy.here / "d7").write_bytes(b"a file now")
    copy.go()


def test_every_name_of_a_file_changes_with_it(copy: Copy) -> None:
    """It is told of the one name it was written by."""
    os.link(copy.here / "d0/f0", copy.here / "d1/same")
    copy.settled()
    (copy.here / "d1/same").write_bytes(b"by the second name")
    assert copy.go().scanned >= 2
    copy.settled()
    (copy.here / "d0/f0").unlink()
    copy.go()


def test_a_name_outside_the_tree_is_seen_through(copy: Copy) -> None:
    """A link that is made outside, written by, and removed again: the file is known by its inode."""
    outside = copy.base / "outside/name"
    os.link(copy.here / "d0/f1", outside)
    copy.go()
    outside.write_bytes(b"by the name outside")
    outside.unlink()
    assert copy.go().content


def test_a_name_that_stood_for_a_moment_is_seen_through(copy: Copy) -> None:
    """Made and removed between two looks, it is in neither; what was done by it shows."""
    moment = copy.here / "d5/moment"
    os.link(copy.here / "d0/f1", moment)
    moment.write_bytes(b"by a name that is gone")
    moment.unlink()
    assert copy.go().content


def test_a_write_through_a_mapping_is_found(copy: Copy) -> None:
    """The maps tell; it is found by its inode, without a look at the other names."""
    path = copy.here / "d1/f2"
    path.write_bytes(bytes(8192))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as memory:
        memory[0] = 1
        copy.go()
        memory[1] = 2
        sent = copy.go(suspects=shared_mappings([os.getpid()]))
        assert sent.scanned <= 2


def test_a_write_of_a_mapping_that_ended_is_found(copy: Copy) -> None:
    """Its last store is told when the file is let go of, though the descriptor was closed long ago."""
    path = copy.here / "d1/f2"
    path.write_bytes(bytes(8192))
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 8192)
    copy.settled()
    memory[0] = 1
    memory.close()
    sent = copy.go()
    assert sent.content == 8192


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the calls are x86-64's")
def test_a_write_by_io_submit_is_found(copy: Copy) -> None:
    """The kernel tells nobody of it: files that are open are looked at."""
    libc = ctypes.CDLL(None, use_errno=True)
    path = copy.here / "d1/f3"
    context = ctypes.c_ulong()
    if libc.syscall(206, 1, ctypes.byref(context)):  # io_setup
        pytest.skip(f"io_setup: {os.strerror(ctypes.get_errno())}")
    data = ctypes.create_string_buffer(b"asynchronous")
    with path.open("r+b") as file:
        copy.settled()
        request = ctypes.create_string_buffer(
            struct.pack("=QIIHhIQQqQII", 0, 0, 0, 1, 0, file.fileno(),
                        ctypes.addressof(data), 12, 0, 0, 0, 0)
        )  # fmt: skip
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(request))
        events = ctypes.create_string_buffer(32)
        assert libc.syscall(209, context, 1, pointers) == 1  # io_submit
        assert libc.syscall(208, context, 1, 1, events, None) == 1  # io_getevents
        sent = copy.go(opened=opened([os.getpid()]))
    assert (sent.scanned, path.read_bytes()) == (1, b"asynchronous")
    libc.syscall(207, context)  # io_destroy


def test_too_much_to_tell_means_a_look_at_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue of a group without FAN_UNLIMITED_QUEUE runs over; afterwards it is watched as before."""
    from ocimig.runtime.linux import fanotify

    unlimited = rootfs.watch._FLAGS
    monkeypatch.setattr(rootfs.watch, "_FLAGS", unlimited & ~fanotify.FAN_UNLIMITED_QUEUE)
    limit = int(Path("/proc/sys/fs/fanotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip(f"the queue takes {limit} events")
    copy = Copy(tmp_path)
    if copy.watch.blind:
        pytest.skip(copy.watch.blind)
    (copy.here / "file").write_bytes(b"1")
    copy.settled()
    for number in range(limit + 10):
        os.mkdir(tmp_path / f"d{number}")
    (copy.here / "file").write_bytes(b"lost in the crowd")
    (copy.here / "quiet").write_bytes(b"quiet")
    sent = copy.go()
    assert sent.content >= len(b"lost in the crowd")
    copy.settled()
    copy.watch.close()


def test_an_overlay_is_looked_at_whole(tmp_path: Path) -> None:
    """Its directories change their handles when they are copied up."""
    for name in ("lower", "upper", "work", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/file").write_bytes(b"below")
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    argv = ["mount", "-t", "overlay", "overlay", "-o", options, str(tmp_path / "here")]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("no overlayfs on this file system")
    try:
        copy = Copy(tmp_path)
        assert "0x794c7630" in copy.watch.blind
        copy.go()
        (copy.here / "file").write_bytes(b"copied up")
        assert copy.go().scanned == 2
        with (copy.here / "file").open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 9)
            memory[:9] = b"dirty now"
            time.sleep(0.03)
            copy.go(mapped=lambda: shared_mappings([os.getpid()]))
            memory[:9] = b"by then m"
            memory.close()
        assert copy.go(mapped=lambda: shared_mappings([os.getpid()])).content == 9
    finally:
        subprocess.run(["umount", tmp_path / "here"], check=True)


def test_a_tree_on_tmpfs_is_watched(tmp_path: Path) -> None:
    """Like one on a disk, under random changes."""
    here = tmp_path / "here"
    here.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", here], check=True)
    try:
        copy = Copy(tmp_path, here)
        if copy.watch.blind:
            pytest.skip(copy.watch.blind)
        dice = random.Random(5)
        for _ in range(10):
            for _ in range(30):
                mutate(here, dice)
            copy.go()
        copy.settled()
        copy.watch.close()
    finally:
        subprocess.run(["umount", here], check=True)


def test_a_file_behind_a_loop_device_is_not_trusted(tmp_path: Path) -> None:
    """The kernel writes to it without a word."""
    image = tmp_path / "tree/image"
    image.parent.mkdir()
    image.write_bytes(bytes(1 << 20))
    made = subprocess.run(
        ["losetup", "--find", "--show", image], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(made.stderr.strip())
    try:
        assert str(image) in Watch.start(str(tmp_path / "tree")).blind
        assert not Watch.start("/proc/self/cwd").blind.startswith("a loop device")
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def test_nothing_of_a_watch_stays_open(tmp_path: Path) -> None:
    """The group is a descriptor; the mark goes with it."""
    before = set(os.listdir("/proc/self/fd"))
    watch = Watch.start(str(tmp_path))
    if watch.blind:
        pytest.skip(watch.blind)
    assert set(os.listdir("/proc/self/fd")) != before
    watch.close()
    assert set(os.listdir("/proc/self/fd")) == before
