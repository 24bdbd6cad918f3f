"""A snapshot or a restore that fails: the container runs on, unlocked, the store is whole, nothing stays."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ocimig.migrate.failpoints import VARIABLE as FAILPOINT
from ocimig_testkit import until
from ocimig_testkit.backup_shelf import Shelf
from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu]

_FULL = "errno:28"


def _unharmed(box: Box, shelf: Shelf) -> None:
    """It counts on, its network is open, and no room of the work is left."""
    assert box.ocimig.status(box.id) == "running"
    box.goes_on()
    box.unbroken()
    assert not box.locked()
    assert shelf.left() == []


@pytest.mark.parametrize(
    "place",
    ["PACKS-WRITE-1", "PACKS-WRITE-9", "PACKS-SYNC-1", "PACKS-RENAME-1", "SNAPSHOTS-WRITE-1",
     "SNAPSHOTS-RENAME-1"],
)  # fmt: skip
def test_a_full_store_is_said_and_the_container_runs_on(box: Box, shelf: Shelf, place: str) -> None:
    """At the first byte or the last one; the snapshot is absent, and the next one works."""
    box.run("count", "32")
    answer = box.ocimig(
        "backup", "create", str(shelf.path), box.id, *shelf.options(), code=None,
        env={FAILPOINT: f"store:{place}:before={_FULL}"},
    )  # fmt: skip
    assert answer.code not in (0, None)
    assert "no space left" in answer.err
    _unharmed(box, shelf)
    assert shelf("list") == []
    taken = shelf.take()
    assert [each["id"] for each in shelf("list")] == [taken["id"]]
    assert shelf("verify", "--read-data")["problems"] == []


@pytest.mark.parametrize("place", ["PACKS-WRITE-2", "PACKS-SYNC-DIRECTORY-1", "SNAPSHOTS-RENAME-1"])
def test_a_command_that_is_killed_leaves_a_store_that_goes_on(
    box: Box, shelf: Shelf, place: str
) -> None:
    """By kill -9: what it leaves in the making goes with the next who holds the store alone."""
    box.run("count", "32")
    first = shelf.take()
    answer = box.ocimig(
        "backup", "create", str(shelf.path), box.id, *shelf.options(), code=None,
        env={FAILPOINT: f"store:{place}:before"},
    )  # fmt: skip
    assert answer.code == -signal.SIGKILL
    box.goes_on()
    assert not box.locked()
    assert [each["id"] for each in shelf("list")] == [first["id"]]
    second = shelf.take()
    shelf("prune")
    assert [each["id"] for each in shelf("list")] == [first["id"], second["id"]]
    assert shelf("verify", "--read-data")["problems"] == []
    assert shelf.left() == []


def _stopped(pid: int) -> bool:
    """Whether somebody, CRIU, holds it by ptrace(2)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "t"


def _frozen(box: Box, shelf: Shelf) -> "subprocess.Popen[bytes]":
    """A snapshot in the moment in which the container is frozen."""
    pid = box.ocimig.pid(box.id)
    process = box.ocimig.popen(
        "backup", "create", str(shelf.path), box.id, "--tracker", "none", *shelf.options(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 30
    while not _stopped(pid):
        assert process.poll() is None, "it was over before anybody saw it frozen"
        assert time.monotonic() < end
        time.sleep(0.0005)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_stops_the_command_in_the_freeze_thaws_the_container(
    box: Box, shelf: Shelf, number: signal.Signals
) -> None:
    """At once, not when the next dump comes by."""
    box.run("count", "96")
    process = _frozen(box, shelf)
    process.send_signal(number)
    code = process.wait(30)
    until(lambda: not _stopped(box.ocimig.pid(box.id)), "it to run", 5)
    # who was just done may also end as if nothing had been; 130 is whoever was interrupted
    assert code in (128 + number, 130, 0)
    _unharmed(box, shelf)
    assert shelf("verify")["snapshots"] == (code == 0)
    shelf.take()


def test_criu_that_is_killed_in_the_freeze_thaws_the_container(
    box: Box, shelf: Shelf, tmp_path: Path
) -> None:
    """The command says so and ends with an error; the next one works.

    Not at any moment: while CRIU has a process run its code, who kills CRIU may kill that process.
    """
    box.run("count", "96")
    here = tmp_path / "here"
    process = box.ocimig.popen(
        "backup", "create", str(shelf.path), box.id, *shelf.options(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, **box.ocimig.environment, FAILPOINT: f"backup:frozen={here}"},
    )  # fmt: skip
    until(here.exists, "the freeze", 30)
    assert _stopped(box.ocimig.pid(box.id))
    found = subprocess.run(
        ["pgrep", "-P", str(process.pid), "criu"], capture_output=True, text=True, check=False
    ).stdout.split()
    assert found
    for pid in found:
        os.kill(int(pid), signal.SIGKILL)
    until(lambda: not _stopped(box.ocimig.pid(box.id)), "it to run", 5)
    here.unlink()
    assert process.wait(30) != 0
    _unharmed(box, shelf)
    assert shelf("list") == []
    shelf.take()
    box.goes_on()


def test_a_restore_into_what_is_taken_changes_nothing(box: Box, shelf: Shelf) -> None:
    """The name of a container that runs, or a directory with something in it."""
    box.run("count", "8")
    taken = shelf.take()
    options = [str(shelf.path), taken["id"], *shelf.options()]
    assert "exists" in box.ocimig("backup", "restore", *options, code=None).err
    box.goes_on()
    other = box.ocimig.new_id()
    answer = box.ocimig("backup", "restore", *options, "--as", other, code=None)
    assert answer.code not in (0, None)
    assert str(box.bundle.path) in answer.err
    assert box.ocimig.status(other) == ""
    _unharmed(box, shelf)


def test_a_restore_from_a_damaged_store_leaves_nothing(
    box: Box, shelf: Shelf, tmp_path: Path
) -> None:
    """No half container, and no half of its files."""
    box.run("count", "16")
    taken = shelf.take()
    pack = max(shelf.path.glob("packs/*/*.pack"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    for at in range(100, len(data) // 2, 4096):
        data[at] ^= 1
    pack.write_bytes(data)
    other, bundle = box.ocimig.new_id(), tmp_path / "other"
    answer = box.ocimig(
        "backup", "restore", str(shelf.path), taken["id"], "--as", other, "-b", str(bundle),
        *shelf.options(), code=1,
    )  # fmt: skip
    assert pack.name in answer.err
    assert box.ocimig.status(other) == ""
    assert not bundle.exists()
    _unharmed(box, shelf)
