"""Checkpoints and restores that fail: the container runs on, unlocked; nothing is left."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ocimig.criu_images.errors import CriuDied, CriuFailed, CriuStuck
from ocimig.migrate.restore import RestoreOptions, restore
from ocimig.runtime.store import Store
from ocimig_testkit import until
from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu]


def _cgroups(id: str) -> list[str]:
    found = subprocess.run(
        ["find", "/sys/fs/cgroup", "-maxdepth", "5", "-name", id], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return found.stdout.split()


def test_what_criu_cannot_save_is_named(box: Box) -> None:
    """An io_uring is refused in one line; the container runs on and no image is left."""
    box.run("ring")
    if "no io_uring" in box.output.read_text():
        pytest.skip("this kernel has no io_uring")
    said = box.checkpoint(code=1)
    assert "io_uring" in said
    assert "worker" in said
    assert box.ocimig.status(box.id) == "running"
    assert not box.image.exists()
    assert not box.locked()


def test_an_established_connection_needs_its_option(box: Box) -> None:
    """CRIU's refusal in words, with the remedy and the log; no image is left, the network is unlocked."""
    box.run("serve", "5000")
    box.ocimig("exec", "-d", box.id, "/bin/sh", "-c", "sleep 99 | nc 127.0.0.1 5000")
    time.sleep(0.3)
    said = box.checkpoint(code=1)
    assert "established TCP connection" in said
    assert "--tcp-established" in said
    assert "log file: " in said
    assert box.ocimig.status(box.id) == "running"
    assert [path.name for path in box.image.iterdir()] == ["dump.log"]
    assert not box.locked()


def test_a_full_disk_is_said_and_leaves_no_image(box: Box, small_disk: Path) -> None:
    """The container runs on, unlocked; what was written is removed again."""
    box.run("count", "32")
    box.image = small_disk / "image"
    answer = box.ocimig("checkpoint", "--image-path", box.image, box.id, code=None)
    assert answer.code == 15
    said = answer.err
    assert "no space left" in said
    assert [path.name for path in box.image.iterdir() if path.name != "dump.log"] == []
    box.goes_on()
    box.unbroken()
    assert not box.locked()


def test_criu_that_is_killed_leaves_the_container_running(box: Box) -> None:
    """SIGKILL in the middle of a dump: it counts on and its network is unlocked."""
    box.run("count", "256")
    checkpoint = box.ocimig.popen(
        "checkpoint", "--image-path", box.image, box.id, stderr=subprocess.DEVNULL
    )
    until(lambda: (box.image / ".partial/pages-1.img").exists(), "the first pages", 20, 0.001)
    found = subprocess.run(
        ["pgrep", "-P", str(checkpoint.pid), "criu"], capture_output=True, text=True, check=True
    )
    os.kill(int(found.stdout.split()[0]), signal.SIGKILL)
    assert checkpoint.wait(timeout=60) != 0
    box.goes_on()
    box.unbroken()
    assert not box.locked()
    assert not (box.image / "manifest.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_checkpoint_changes_nothing(box: Box, number: int) -> None:
    """Ctrl-C in the middle of a dump: code 130, it counts on, unlocked."""
    box.run("count", "256")
    checkpoint = box.ocimig.popen(
        "checkpoint", "--image-path", box.image, box.id, stderr=subprocess.DEVNULL
    )
    until(lambda: (box.image / ".partial/pages-1.img").exists(), "the first pages", 20, 0.001)
    checkpoint.send_signal(number)
    assert checkpoint.wait(timeout=60) == 130
    box.goes_on()
    box.unbroken()
    assert not box.locked()
    assert not (box.image / "manifest.json").exists()


def test_ocimig_that_is_killed_leaves_a_container_that_recovers(box: Box) -> None:
    """SIGKILL of ocimig itself: CRIU lets it run; the next checkpoint finds and undoes the lock."""
    box.run("count", "256")
    checkpoint = box.ocimig.popen(
        "checkpoint", "--image-path", box.image, box.id, stderr=subprocess.DEVNULL
    )
    until(lambda: (box.image / ".partial/pages-1.img").exists(), "the first pages", 20, 0.001)
    checkpoint.kill()
    checkpoint.wait(timeout=20)
    box.goes_on()
    assert box.locked()
    box.checkpoint("--leave-running")
    assert not box.locked()
    box.goes_on()
    box.unbroken()


@pytest.mark.parametrize("damage", ["flip", "truncate", "absent", "extra", "manifest"])
def test_a_damaged_image_is_refused_before_criu_sees_it(box: Box, damage: str) -> None:
    """One flipped byte is enough; nothing is started, nothing is left."""
    box.run("count", "4")
    box.checkpoint()
    pages = box.image / "pages-1.img"
    if damage == "flip":
        with pages.open("r+b") as file:
            file.seek(12345)
            byte = file.read(1)
            file.seek(12345)
            file.write(bytes([byte[0] ^ 1]))
    elif damage == "truncate":
        os.truncate(pages, pages.stat().st_size - 4096)
    elif damage == "absent":
        pages.unlink()
    elif damage == "extra":
        shutil.copy2(pages, box.image / "pages-2.img")
    else:
        (box.image / "manifest.json").unlink()
    said = box.restore(code=12)
    assert "cannot be used" in said
    assert not (box.image / "restore.log").exists()
    assert not (box.ocimig.root / box.id).exists()


def test_a_failed_restore_leaves_nothing(box: Box) -> None:
    """A file that the container had open is gone: the cause is named; no process, cgroup or record."""
    box.bundle.argv("/bin/sh", "-c", "exec 3<>/root/open; echo 0 x; while :; do sleep 1; done")
    with box.output.open("ab") as output:
        command = box.ocimig.command("run", "-d", "-b", box.bundle.path, box.id)
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, check=True)
    until(box.output.read_text, "output")
    box.checkpoint()
    (box.bundle.rootfs / "root/open").unlink()
    said = box.restore(code=1)
    assert "/open" in said
    assert "log file: " in said
    assert not (box.ocimig.root / box.id).exists()
    assert _cgroups(box.id) == []
    (box.bundle.rootfs / "root/open").touch()
    box.restore()
    assert box.ocimig.status(box.id) == "running"


def test_a_pre_dump_that_would_crash_criu_is_refused(box: Box) -> None:
    """Where the kernel cannot track, --pre-dump is refused with the reason."""
    box.run("count")
    answer = box.ocimig("checkpoint", "--pre-dump", "--image-path", box.image, box.id, code=None)
    if answer.code == 0:
        assert box.ocimig.status(box.id) == "running"
    else:
        assert "soft-dirty" in answer.err
    box.goes_on()


def test_an_absolute_parent_path_is_refused(box: Box) -> None:
    """It would break when the directories are moved: runc refuses it likewise."""
    box.run("count")
    assert "relative" in box.checkpoint("--parent-path", "/somewhere", code=1)


def test_the_first_container_survives_a_slow_disk(box: Box) -> None:
    """Whatever the checkpoint takes, the numbers have no gap."""
    box.run("count", "64")
    time.sleep(0.2)
    box.checkpoint("--leave-running")
    box.goes_on()
    box.unbroken()


def test_a_criu_that_spins_is_killed_with_what_it_made(box: Box) -> None:
    """Truncated pages that nobody verified: CRIU never returns and writes without end."""
    box.run("count", "4")
    box.checkpoint()
    pages = box.image / "pages-1.img"
    os.truncate(pages, pages.stat().st_size // 2)
    store = Store(str(box.ocimig.root))
    wanted = RestoreOptions(str(box.image), bundle=str(box.bundle.path), verify=False)
    with pytest.raises((CriuStuck, CriuFailed, CriuDied)):
        restore(store, box.id, wanted)
    assert not (box.ocimig.root / box.id).exists()
    assert _cgroups(box.id) == []
    assert (box.image / "restore.log").stat().st_size < 1 << 30
    (box.image / "restore.log").unlink()
