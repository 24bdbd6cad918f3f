"""clone: copies of one checkpoint, each for itself."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.migrate.clone import merge
from ocimig.migrate.lazy import mark
from ocimig.runtime import shared
from ocimig_testkit import TOKEN, until
from ocimig_testkit.backup_shelf import Shelf
from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.busybox]

SIZE = 16 << 20  # of memory that is not touched
_ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 5000), timeout=20) as peer:
    peer.sendall(b"x")
    print(peer.recv(100).decode())
"""


class Copies:
    """A checkpoint of a worker, and what its copies print."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.output = box.output.parent / "copies"
        self.names: list[str] = []

    def start(self, count: int, *options: str, code: int = 0) -> str:
        """So many copies; what was said on standard error."""
        self.names += [f"{self.box.id}-{number}" for number in range(1, count + 1)]
        return self.box.ocimig(
            "clone", "-n", str(count), "--output", self.output, *options, self.box.image, code=code
        ).err

    def counted(self, name: str) -> list[tuple[int, str]]:
        """The numbers a copy printed and the checksums beside them."""
        lines = (self.output / f"{name}.log").read_text().splitlines(keepends=True)
        words = [line.split() for line in lines if line.endswith("\n")]
        return [(int(number), checksum) for number, checksum in words]

    def until_counted(self, name: str, more: int = 3) -> list[tuple[int, str]]:
        """The same when there are some."""
        until(lambda: len(self.counted(name)) > more, f"{name} to count")
        return self.counted(name)

    def delete(self) -> None:
        """All of them."""
        for name in self.names:
            self.box.ocimig("delete", "--force", name)

    def inside(self, name: str, *argv: str) -> str:
        """What a command in a copy prints."""
        return self.box.ocimig("exec", name, *argv).out.strip()


@pytest.fixture
def copies(box: Box) -> Iterator[Copies]:
    """None has been started yet; the source is gone."""
    box.run("count", "4")
    until(lambda: len(box.lines()) > 2, "the worker to count")
    box.checkpoint()
    box.ocimig("delete", "--force", box.id)
    found = Copies(box)
    yield found
    found.delete()


def _cgroup(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def _mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def test_copies_go_on_from_the_instant_each_for_itself(copies: Copies) -> None:
    """Same memory, and from there on own numbers, host name, cgroup, files; the source stays as it was."""
    before = sorted(path.name for path in copies.box.bundle.rootfs.rglob("*"))
    images = {path.name: path.stat().st_mtime_ns for path in copies.box.image.iterdir()}
    printed = copies.box.lines()
    possible = not merge.impossible()
    copies.start(3, "--merge", "on" if possible else "auto")
    for name in copies.names:
        lines = copies.until_counted(name)
        first = lines[0][0]
        assert first in {len(printed), len(printed) + 1}
        assert [number for number, _ in lines] == list(range(first, first + len(lines)))
        assert {checksum for _, checksum in lines} == {printed[0][1]}
        assert copies.inside(name, "/bin/hostname") == name
        copies.inside(name, "/bin/sh", "-c", f"echo {name} > /own")
    pids = [copies.box.ocimig.pid(name) for name in copies.names]
    assert all(merge.marked(pid) == possible for pid in pids)
    assert len({_cgroup(pid) for pid in pids}) == 3
    assert len({os.readlink(f"/proc/{pid}/ns/net") for pid in pids}) == 3
    assert [copies.inside(name, "/bin/cat", "/own") for name in copies.names] == copies.names
    assert copies.box.lines() == printed
    assert sorted(path.name for path in copies.box.bundle.rootfs.rglob("*")) == before
    assert {path.name: path.stat().st_mtime_ns for path in copies.box.image.iterdir()} == images
    assert socket.gethostname() not in copies.names


def test_delete_leaves_nothing_of_a_copy(copies: Copies) -> None:
    """Neither a mount nor a cgroup nor a file; what it wrote goes with it."""
    copies.start(1, "--merge", "off")
    (name,) = copies.names
    assert not merge.marked(copies.box.ocimig.pid(name))
    group = copies.box.ocimig.root / name
    assert f"{group}/bundle/rootfs" in _mounts()
    copies.delete()
    assert str(group) not in _mounts()
    assert not group.exists()
    assert name not in subprocess.run(
        ["find", "/sys/fs/cgroup", "-name", f"*{name}*"], capture_output=True, text=True, check=False
    ).stdout  # fmt: skip


def test_one_that_fails_does_not_keep_the_others_from_it(copies: Copies) -> None:
    """Its name is taken: the others run, and the exit code says that not all do."""
    copies.start(1)
    copies.names.clear()
    said = copies.start(3, code=3)
    assert f"{copies.names[0]}" in said
    for name in copies.names:
        assert copies.box.ocimig.pid(name)


def test_a_copy_that_cannot_be_restored_leaves_nothing(copies: Copies) -> None:
    """The layer was mounted and CRIU was at work by then."""
    (copies.box.bundle.rootfs / "bin/worker").write_bytes(b"another program")
    said = copies.start(2, code=1)
    assert said.count("criu restore failed") == 2
    assert copies.box.id not in _mounts()
    assert copies.box.ocimig("list", "-q").out == ""


def test_a_checkpoint_that_is_not_whole_is_copied_by_nobody(copies: Copies) -> None:
    """It is compared with its digests once, before anything is made."""
    core = next(copies.box.image.glob("core-*.img"))
    core.write_bytes(core.read_bytes()[:40])
    assert core.name in copies.start(2, code=12)
    assert copies.box.ocimig("list", "-q").out == ""


@pytest.fixture
def idle(box: Box) -> Iterator[Copies]:
    """A checkpoint of one that does not touch most of its memory again until it is told to."""
    box.run("idle", str(SIZE >> 20))
    until(box.lines, "its first word")
    box.checkpoint()
    found = Copies(box)
    yield found
    found.delete()


def _resident(pid: int) -> int:
    """Bytes of memory of its own that a process has got."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("RssAnon:")]
    return int(line.split()[1]) << 10


def _touched(idle: Copies, name: str) -> None:
    """It reads all of its memory, and finds what was in it."""
    idle.inside(name, "/bin/touch", "/go")
    assert idle.until_counted(name, 0) == [(1, idle.box.lines()[0][1])]


def _keepers(idle: Copies, name: str) -> list[int]:
    """Of one copy, the keeper first: those that hold the sign that memory is still to come."""
    sign = os.stat(idle.box.ocimig.root / name / mark.NAME).st_ino
    found = [
        int(line.split()[4])
        for line in Path("/proc/locks").read_text().splitlines()
        if line.split()[5].endswith(f":{sign}")
    ]
    assert found
    children = Path(f"/proc/{found[0]}/task/{found[0]}/children").read_text().split()
    init = str(idle.box.ocimig.pid(name))
    return [found[0], *(int(child) for child in children if child != init)]


def test_memory_that_a_copy_does_not_touch_is_not_loaded(idle: Copies) -> None:
    """Each has what it needs to wait; what one of them touches is what was there, and the others' stays away."""
    idle.start(3)
    pids = [idle.box.ocimig.pid(name) for name in idle.names]
    assert all(_resident(pid) < SIZE >> 2 for pid in pids)
    _touched(idle, idle.names[1])
    assert _resident(pids[1]) >= SIZE
    assert _resident(pids[0]) < SIZE >> 2
    assert _resident(pids[2]) < SIZE >> 2


def test_a_copy_is_saved_with_all_of_its_memory(idle: Copies) -> None:
    """What it never touched comes before it is frozen; copies of it have that too."""
    idle.start(1)
    (name,) = idle.names
    second = idle.box.image.with_name("second")
    idle.box.ocimig("checkpoint", "--leave-running", "--image-path", second, name)
    assert _resident(idle.box.ocimig.pid(name)) >= SIZE
    idle.box.ocimig(
        "clone", "--name", "again", "-b", idle.box.bundle.path, "--output", idle.output, second
    )
    idle.names.append("again-1")
    _touched(idle, "again-1")


@pytest.mark.parametrize("how", ["--fill", "--whole"])
def test_memory_can_be_loaded_all_the_same(idle: Copies, how: str) -> None:
    """While the copy runs, or before."""
    idle.start(1, how)
    pid = idle.box.ocimig.pid(idle.names[0])
    until(lambda: _resident(pid) >= SIZE, "all of its memory")


@pytest.mark.parametrize("who", [0, 1])
def test_a_copy_whose_keeper_or_handler_is_killed_misses_nothing(idle: Copies, who: int) -> None:
    """The handler fills in everything without its keeper; the keeper starts another handler."""
    idle.start(1)
    (name,) = idle.names
    victim = _keepers(idle, name)[who]
    os.kill(victim, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{victim}").exists(), "its end")
    _touched(idle, name)


def test_the_keeper_ends_with_its_copy(idle: Copies) -> None:
    """Nobody is left to wait for pages of a container that is gone."""
    idle.start(1)
    (name,) = idle.names
    keepers = _keepers(idle, name)
    assert len(keepers) == 2
    idle.delete()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in keepers), "the keeper's end")


def test_a_copy_that_forks_without_end_does_not_cost_a_descriptor_for_each(box: Box) -> None:
    """Nothing says that an address space has ended: it is looked for."""
    box.run("forks", str(SIZE >> 20))
    box.checkpoint()
    copies = Copies(box)
    try:
        copies.start(1)
        (name,) = copies.names
        copies.until_counted(name, 200)
        for keeper in _keepers(copies, name):
            assert len(os.listdir(f"/proc/{keeper}/fd")) < 120
    finally:
        copies.delete()


def test_copies_of_a_snapshot_need_its_store_no_more(
    box: Box, shelf: Shelf, tmp_path: Path
) -> None:
    """Images and files are taken out once; what is not held open goes at once, the rest with the last copy."""
    box.run("idle", str(SIZE >> 20))
    (box.bundle.rootfs / "kept").write_text("before")
    until(box.lines, "its first word")
    taken = shelf.take()
    copies, files = Copies(box), tmp_path / "files"
    shelf.lose()
    copies.names = [f"{box.id}-1", f"{box.id}-2"]
    box.ocimig(
        "clone", "-n", "2", "--net", "none", "--output", copies.output, "--files", files,
        *shelf.options(), shelf.path, taken["id"],
    )  # fmt: skip
    try:
        shutil.rmtree(shelf.path)
        (place,) = files.iterdir()
        assert sorted(path.name for path in place.iterdir()) == [shared.MARK, "trees", "users"]
        for name in copies.names:
            assert _resident(box.ocimig.pid(name)) < SIZE >> 2
            assert copies.inside(name, "/bin/cat", "/kept") == "before"
        box.ocimig("delete", "--force", copies.names[0])
        _touched(copies, copies.names[1])
    finally:
        copies.delete()
    assert list(files.iterdir()) == []


@pytest.fixture
def inside() -> Iterator[tuple[str, ...]]:
    """What enters a network namespace in which there is a bridge, br0 with 10.0.0.1."""
    name = f"{TOKEN}-k"
    bridge = ("link", "add", "name", "br0", "type", "bridge")
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for words in (
            ("link", "set", "lo", "up"), bridge, ("address", "add", "10.0.0.1/24", "dev", "br0"),
            ("link", "set", "br0", "up"),
        ):  # fmt: skip
            subprocess.run(["ip", "-n", name, *words], check=True)
        yield ("nsenter", f"--net=/run/netns/{name}")
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.mark.netns
def test_copies_of_a_server_answer_each_at_its_own_address(
    box: Box, inside: tuple[str, ...]
) -> None:
    """Two on one bridge: what one of them counts the other does not."""

    def ask(address: str) -> int:
        command = [*inside, sys.executable, "-c", _ASK, address]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    box.ocimig.prefix = inside
    box.run("serve", "5000")
    box.checkpoint()
    box.ocimig("delete", "--force", box.id)
    copies = Copies(box)
    try:
        copies.start(2, "--net", "bridge=br0,address=10.0.0.50/24")
        assert [ask("10.0.0.50") for _ in range(3)] == [1, 2, 3]
        assert ask("10.0.0.51") == 1
        assert ask("10.0.0.50") == 4
        assert [copies.inside(name, "/bin/hostname") for name in copies.names] == copies.names
    finally:
        copies.delete()
    links = subprocess.run(
        [*inside, "ip", "-br", "link"], capture_output=True, text=True, check=True
    )
    assert [line.split()[0] for line in links.stdout.splitlines()] == ["lo", "br0"]
