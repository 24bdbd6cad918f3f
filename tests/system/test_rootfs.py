"""Trees sent and received: exact, a second time only what changed, and nothing outside, ever."""

import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocimig.errors import NoSpace, OcimigError
from ocimig.migrate.errors import (
    DirectoryNotEmpty,
    FarFailure,
    LinkLost,
)
from ocimig.migrate.rootfs import (
    Index,
    Received,
    Sent,
    Watch,
    opened,
    receive,
    records,
    send,
    shared_mappings,
)
from ocimig.migrate.rootfs.records import Record
from ocimig.migrate.transport.memory import pair
from ocimig.migrate.wire import Wire
from ocimig_testkit import trees
from ocimig_testkit.mutations import mutate
from ocimig_testkit.whole_tree import make_everything, write

pytestmark = [pytest.mark.root, pytest.mark.xattr]


class Copy:
    """One source, one destination, and as many passes as a test wants."""

    def __init__(self, base: Path, *, watched: bool = False) -> None:
        self.here = base / "here"
        self.there = base / "there"
        self.here.mkdir()
        self.watch = Watch.start(str(self.here)) if watched else None
        self.index: Index | None = None
        self.received = Received()

    def go(self, **options: object) -> Sent:
        """One pass; the second and later ones send changes only."""
        one, other = pair()
        failed: list[BaseException] = []

        def far() -> None:
            wire = Wire(other)
            try:
                fresh = self.index is None and bool(options.get("fresh", True))
                self.received = receive(wire, str(self.there), fresh=fresh, sync=False, timeout=20)
            except OcimigError as error:
                failed.append(error)

        thread = threading.Thread(target=far)
        thread.start()
        chosen = {name: value for name, value in options.items() if name != "fresh"}
        try:
            self.index, sent = send(
                Wire(one),
                str(self.here),
                previous=self.index,
                timeout=20,
                settle=False,
                watch=self.watch,
                **chosen,  # type: ignore[arg-type]
            )
        finally:
            one.close() if failed else None
            thread.join(30)
            self.failed = failed
            one.close()
            other.close()
        assert not failed, failed
        return sent

    def check(self) -> None:
        """The trees are the same."""
        assert trees.differences(self.here, self.there) == []


@pytest.fixture(params=[False, True], ids=["scanned", "watched"])
def copy(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Copy]:
    """An empty source: looked at whole in each pass, or under watch."""
    copy = Copy(tmp_path, watched=request.param)
    if copy.watch is not None and copy.watch.blind:
        pytest.skip(copy.watch.blind)
    yield copy
    if copy.watch is not None:
        copy.watch.close()


def test_one_of_everything_arrives_exactly(copy: Copy) -> None:
    """Owners, modes, links, attributes, holes, devices, names and times."""
    make_everything(copy.here)
    sent = copy.go()
    copy.check()
    assert sent.content < 5 << 20  # the holes did not travel


def test_acls_arrive_exactly(copy: Copy) -> None:
    """And a default ACL of a directory is not inherited by what is put in it."""
    if shutil.which("setfacl") is None:
        pytest.skip("setfacl is not installed")
    write(copy.here / "d/plain")
    write(copy.here / "d/own").chmod(0o664)
    subprocess.run(["setfacl", "-m", "u:1234:rw,g:77:r", copy.here / "d/own"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx", copy.here / "d"], check=True)
    copy.go()
    copy.check()
    write(copy.here / "d/later").chmod(0o600)
    os.removexattr(copy.here / "d/later", "system.posix_acl_access")
    copy.go()
    copy.check()


def test_a_default_acl_around_the_destination_stays_outside(copy: Copy) -> None:
    """What the destination's parent would bequeath is taken off again."""
    if shutil.which("setfacl") is None:
        pytest.skip("setfacl is not installed")
    outer = copy.there.parent / "outer"
    outer.mkdir()
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx", outer], check=True)
    copy.there = outer / "there"
    write(copy.here / "d/f")
    copy.go()
    copy.check()


def test_nothing_changed_sends_nothing(copy: Copy) -> None:
    """A second pass over a quiet tree costs the walk."""
    make_everything(copy.here)
    time.sleep(0.03)
    copy.go()
    sent = copy.go()
    assert (sent.entries, sent.removed, sent.content) == (0, 0, 0)
    copy.check()


def test_what_changed_just_before_the_look_is_sent_again(copy: Copy) -> None:
    """Two writes in one tick leave the same times: the second pass does not trust them."""
    path = write(copy.here / "f", b"aaaa")
    status = path.stat()
    copy.go()
    path.write_bytes(b"bbbb")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    copy.go()
    copy.check()


def test_the_second_pass_knows_every_kind_of_change(copy: Copy) -> None:
    """Content, metadata, kind, links, renames, removals: one of each."""
    here = copy.here
    make_everything(here)
    write(here / "gone/a/b/c")
    write(here / "moved/x", b"moved")
    write(here / "grows", b"1" * 300_000)
    write(here / "becomes-dir")
    (here / "becomes-file").mkdir()
    write(here / "becomes-file/inside")
    write(here / "pair1", b"pair")
    os.link(here / "pair1", here / "pair2")
    time.sleep(0.03)
    copy.go()
    shutil.rmtree(here / "gone")
    (here / "moved").rename(here / "tmp/moved")
    with (here / "grows").open("ab") as file:
        file.write(b"2" * 300_000)
    (here / "becomes-dir").unlink()
    write(here / "becomes-dir/f")
    shutil.rmtree(here / "becomes-file")
    write(here / "becomes-file", b"now a file")
    (here / "pair1").write_bytes(b"written through one name")
    os.link(here / "pair2", here / "pair3")
    (here / "etc/passwd-").unlink()
    write(here / "etc/passwd-", b"its own file now")
    (here / "link").unlink()
    os.symlink("/elsewhere", here / "link")
    os.chown(here / "bin/su", 5, 5)
    (here / "bin/ping").write_bytes(b"no capability any more")
    os.removexattr(here / "tmp/attr", "user.name")
    (here / "fifo").chmod(0o600)
    (here / "empty").unlink()
    here.chmod(0o711)
    copy.go()
    copy.check()
    sent = copy.go()
    copy.check()
    assert sent.content < 5 << 20


def test_a_write_through_a_mapping_is_found(copy: Copy) -> None:
    """A page that is dirty already takes writes without a trace in the times; the maps tell."""
    import mmap

    path = write(copy.here / "db", bytes(8192))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as memory:
        memory[0] = 1
        time.sleep(0.03)
        copy.go()
        memory[1] = 2
        inodes = shared_mappings([os.getpid()])
        assert path.stat().st_ino in inodes
        copy.go(suspects=inodes)
    copy.check()


def mine() -> frozenset[int]:
    """What this very process has mapped."""
    return shared_mappings([os.getpid()])


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
def test_a_write_through_a_mapping_that_is_gone_is_found(copy: Copy, closed: bool) -> None:
    """Neither the times nor the maps tell of it any more; that it was mapped at the last look does."""
    import mmap

    path = write(copy.here / "db", bytes(8192))
    time.sleep(0.03)
    copy.go(mapped=mine)
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 8192)
        memory[0] = 1
        os.pwrite(file.fileno(), b"1", 4096)  # the kernel tells of this one
        time.sleep(0.03)
        copy.go(mapped=mine)
        memory[1] = 2
        memory.close()
        if not closed:
            copy.go(suspects=mine(), opened=opened([os.getpid()]))
    if closed:
        copy.go(suspects=mine())
    copy.check()


def test_a_file_that_stays_mapped_waits_for_the_freeze(copy: Copy) -> None:
    """While its processes run it goes by its times: a large database does not go in every pass."""
    import mmap

    path = write(copy.here / "db", bytes(8192))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as memory:
        memory[0] = 1
        time.sleep(0.03)
        copy.go(mapped=mine)
        memory[1] = 2
        assert not copy.go(mapped=mine).content
        assert copy.go(suspects=mine()).content
    copy.check()


@pytest.mark.parametrize("name", ["a\r0 -w-s 0 0 x", "a\r0-1 -w-s 0 0:0 4711"])
def test_a_name_that_is_like_a_line_of_maps_is_a_name(copy: Copy, name: str) -> None:
    """Else a container ends every migration of itself by a file that it maps."""
    import mmap

    path = write(copy.here / name, bytes(8192))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192):
        inodes = shared_mappings([os.getpid()])
    assert path.stat().st_ino in inodes
    assert 4711 not in inodes


def test_only_some_names_can_be_sent(copy: Copy) -> None:
    """A bundle's config.json without its root file system, into a directory that is not empty."""
    write(copy.here / "config.json", b"{}")
    write(copy.here / "rootfs/etc/passwd")
    write(copy.there / "rootfs/etc/other")
    copy.go(only=("config.json",), fresh=False)
    assert (copy.there / "config.json").read_bytes() == b"{}"
    assert not (copy.there / "rootfs/etc/passwd").exists()
    assert (copy.there / "rootfs/etc/other").exists()


def test_skipped_names_stay_here(copy: Copy) -> None:
    """With everything below them."""
    write(copy.here / "a/secret/f")
    write(copy.here / "a/f")
    copy.go(skip=("a/secret",))
    assert sorted(os.listdir(copy.there / "a")) == ["f"]


def test_a_mount_below_is_not_entered(copy: Copy) -> None:
    """Its place arrives as an empty directory, and the index says so."""
    (copy.here / "mnt").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", copy.here / "mnt"], check=True)
    try:
        write(copy.here / "mnt/f")
        copy.go()
    finally:
        subprocess.run(["umount", copy.here / "mnt"], check=True)
    assert copy.index is not None
    assert copy.index.skipped == ["mnt"]
    assert os.listdir(copy.there / "mnt") == []


def test_a_directory_that_is_not_empty_is_refused(copy: Copy) -> None:
    """Code 11 on both sides, and what is there stays."""
    write(copy.here / "f")
    write(copy.there / "precious")
    with pytest.raises(FarFailure) as caught:
        copy.go()
    assert caught.value.name == DirectoryNotEmpty.__name__
    assert caught.value.code == 11
    assert os.listdir(copy.there) == ["precious"]


def test_a_full_disk_is_told_and_cleaned_up(copy: Copy) -> None:
    """Code 15 reaches the sender while it sends, long before the end."""
    for number in range(40):
        write(copy.here / f"f{number}", os.urandom(1 << 20))
    copy.there.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", copy.there], check=True)
    try:
        with pytest.raises(FarFailure) as caught:
            copy.go()
        assert caught.value.name == NoSpace.__name__
        assert caught.value.code == 15
        assert isinstance(copy.failed[0], NoSpace)
        assert os.listdir(copy.there) == []
    finally:
        subprocess.run(["umount", copy.there], check=True)


def test_a_lost_sender_leaves_nothing(tmp_path: Path) -> None:
    """A fresh directory that did not come to its end is removed."""
    one, other = pair()
    wire = Wire(one)
    wire.send(records.BEGIN, {"version": 1})
    wire.send(records.RECORDS, None, Record(records.DIRECTORY, b"d", mode=0o755).pack())
    one.close()
    with pytest.raises(LinkLost):
        receive(Wire(other), str(tmp_path / "there"), timeout=5)
    other.close()
    assert not (tmp_path / "there").exists()


def test_a_tree_that_changes_while_it_is_sent_is_right_in_the_end(copy: Copy) -> None:
    """Passes beside a busy writer never fail; the one after it stopped makes all exact."""
    here = copy.here
    make_everything(here)
    stop = threading.Event()
    writer = threading.Thread(target=_churn, args=(here, stop))
    writer.start()
    try:
        for _ in range(8):
            copy.go()
    finally:
        stop.set()
        writer.join()
    copy.go()
    copy.check()


def _churn(root: Path, stop: threading.Event) -> None:
    dice = random.Random(1)
    while not stop.is_set():
        mutate(root, dice)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    watched=st.booleans(),
    seed=st.integers(0, 1 << 48),
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=4),
)
def test_any_tree_after_any_changes_is_the_same_there(
    tmp_path_factory: pytest.TempPathFactory, watched: bool, seed: int, sizes: list[int]
) -> None:
    """A first pass, then passes of changes: after each the trees are the same."""
    base = tmp_path_factory.mktemp("random")
    dice = random.Random(seed)
    copy = Copy(base, watched=watched)
    try:
        for size in sizes:
            for _ in range(size):
                mutate(copy.here, dice)
            copy.go()
            copy.check()
    finally:
        if copy.watch is not None:
            copy.watch.close()
        shutil.rmtree(base)
