"""A container to files and back on one host, by the program's own command line."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ocimig_testkit import until
from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu]


def test_memory_and_place_in_the_program_survive(box: Box) -> None:
    """A counter goes on where it stopped, over memory with the same checksum."""
    box.run("count", "32")
    box.checkpoint()
    assert box.ocimig.status(box.id) == ""
    stopped_at = box.lines()[-1][0]
    box.restore()
    box.goes_on()
    assert box.ocimig.status(box.id) == "running"
    assert box.lines()[-1][0] > stopped_at
    box.unbroken()


def test_a_plain_file_of_the_host_as_output_goes_on(box: Box) -> None:
    """What runc refuses ("Can't lookup mount"): the output is a file outside the container's mounts."""
    box.run("count")
    box.checkpoint()
    with box.output.open("a") as output:
        output.write("written while it slept\n")
    box.restore()
    box.goes_on()


def test_leave_running_leaves_it_running(box: Box) -> None:
    """The container is not replaced: the same process goes on, its network unlocked."""
    box.run("count")
    pid = box.ocimig.pid(box.id)
    box.checkpoint("--leave-running")
    box.goes_on()
    assert box.ocimig.pid(box.id) == pid
    assert not box.locked()
    assert (box.image / "manifest.json").exists()
    assert not (box.image / ".partial").exists()


def test_it_can_be_done_again_and_again(box: Box) -> None:
    """A restored container is one like any other: checkpoint, restore, exec, kill."""
    box.run("count")
    for _ in range(3):
        box.checkpoint()
        box.restore()
        box.goes_on()
    assert box.ocimig.exec(box.id, "/bin/echo", "inside").out == "inside\n"
    box.unbroken()


def test_a_paused_container_is_checkpointed_and_stays_paused(box: Box) -> None:
    """The freezer that held it before holds it after."""
    box.run("count")
    box.ocimig("pause", box.id)
    box.checkpoint("--leave-running")
    assert box.ocimig.status(box.id) == "paused"
    box.ocimig("resume", box.id)
    box.goes_on()


def test_children_zombies_and_pipes_between_them_survive(box: Box) -> None:
    """A pipe inside the container stays between the same two processes."""
    box.run("family")
    box.checkpoint()
    box.restore()
    box.goes_on()
    numbers = [number for number, _ in box.lines()]
    assert numbers == list(range(len(numbers)))


def test_a_created_container_is_refused(box: Box) -> None:
    """Nothing runs yet, so there is nothing to save; the words are runc's."""
    box.bundle.argv("/bin/worker")
    box.ocimig.create(box.bundle, id=box.id)
    assert "Container cannot be checkpointed in created state" in box.checkpoint(code=1)


def test_a_name_that_is_taken_is_refused(box: Box) -> None:
    """Restoring over a running container changes nothing."""
    box.run("count")
    box.checkpoint("--leave-running")
    assert "container with given ID already exists" in box.restore(code=1)
    box.goes_on()


def test_small_tmpfs_content_survives_without_tar(box: Box) -> None:
    """Files, links, modes and owners of a small tmpfs come back, and no tar was run for them."""
    mount = {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=8m"]}
    box.bundle.config["mounts"].append(mount)
    box.run("count")
    script = (
        "cd /scratch; mkdir -m 750 d; echo hello > d/f; chmod 604 d/f; ln -s d/f l; "
        "mkfifo p; touch -d '2001-02-03 04:05:06' d/f"
    )
    box.ocimig.exec(box.id, "/bin/sh", "-c", script)
    look = (
        "/bin/sh",
        "-c",
        "cd /scratch; ls -lnR --full-time . ; cat d/f; grep scratch /proc/mounts",
    )
    before = box.ocimig.exec(box.id, *look).out
    box.checkpoint()
    assert not list(box.image.glob("tmpfs-*"))
    box.restore()
    assert box.ocimig.exec(box.id, *look).out == before


def test_large_tmpfs_content_travels_too(box: Box) -> None:
    """What does not fit into a list is saved by CRIU."""
    mount = {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=8m"]}
    box.bundle.config["mounts"].append(mount)
    box.run("count")
    box.ocimig.exec(
        box.id, "/bin/sh", "-c", "dd if=/dev/urandom of=/scratch/big bs=1024 count=4000 2>/dev/null"
    )
    before = box.ocimig.exec(box.id, "/bin/md5sum", "/scratch/big").out
    box.checkpoint()
    assert list(box.image.glob("tmpfs-*"))
    box.restore()
    assert box.ocimig.exec(box.id, "/bin/md5sum", "/scratch/big").out == before


def test_bind_mounts_masks_and_devices_are_the_same_after(box: Box, tmp_path: Path) -> None:
    """The container sees the same mounts, devices and /proc entries as before."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/file").write_text("of the host\n")
    (tmp_path / "single").write_text("one file\n")
    box.bundle.config["mounts"] += [
        {"destination": "/srv", "type": "bind", "source": str(tmp_path / "shared"),
         "options": ["rbind", "ro"]},
        {"destination": "/etc/single", "type": "bind", "source": str(tmp_path / "single"),
         "options": ["bind"]},
    ]  # fmt: skip
    box.bundle.linux["devices"] = [{"path": "/dev/mine", "type": "c", "major": 1, "minor": 5}]
    box.run("count")
    script = (
        "cut -d' ' -f5,6 /proc/self/mountinfo; ls -ln /dev /proc/keys /sys/firmware | grep -v total | "
        "sed -E 's/ [A-Z][a-z]{2} +[0-9]+ +[0-9:]+ / /'; "
        "cat /srv/file /etc/single; touch /srv/new; hostname"
    )
    before = box.ocimig.exec(box.id, "/bin/sh", "-c", script, code=None).out
    box.checkpoint()
    box.restore()
    after = box.ocimig.exec(box.id, "/bin/sh", "-c", script, code=None).out
    assert sorted(after.splitlines()) == sorted(before.splitlines())


def test_a_missing_bind_source_is_named_and_nothing_is_left(box: Box, tmp_path: Path) -> None:
    """All missing sources come in one message; no state, no cgroup."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        box.bundle.config["mounts"].append(
            {"destination": f"/{name}", "type": "bind", "source": str(tmp_path / name),
             "options": ["bind"]}
        )  # fmt: skip
    box.run("count")
    box.checkpoint()
    for name in ("one", "two"):
        (tmp_path / name).rmdir()
    said = box.restore(code=1)
    assert str(tmp_path / "one") in said
    assert str(tmp_path / "two") in said
    assert not (box.ocimig.root / box.id).exists()


def test_processes_of_exec_do_not_hinder(box: Box) -> None:
    """A process that entered from outside is frozen with the rest, and ends with the container."""
    box.run("count")
    box.ocimig("exec", "-d", box.id, "/bin/sh", "-c", "while :; do sleep 1; done")
    box.checkpoint("--leave-running")
    box.goes_on()
    box.checkpoint()
    box.restore()
    box.goes_on()


def test_limits_are_set_before_the_processes_come_back(box: Box) -> None:
    """The cgroup is ours, made again from config.json."""
    box.bundle.linux["resources"]["memory"] = {"limit": 96 << 20}
    box.run("count")
    box.checkpoint()
    box.restore()
    pid = box.ocimig.pid(box.id)
    state = json.loads((box.ocimig.root / box.id / "state.json").read_text())
    memory = state["cgroups"].get("memory") or state["cgroups"]["unified"]
    file = next(
        path
        for path in (Path(memory, "memory.limit_in_bytes"), Path(memory, "memory.max"))
        if path.exists()
    )
    assert int(file.read_text()) == 96 << 20
    assert str(pid) in Path(memory, "cgroup.procs").read_text().split()


def test_nothing_of_a_restore_is_mounted_on_the_host(box: Box) -> None:
    """CRIU works in a mount namespace of its own."""
    before = Path("/proc/self/mounts").read_text()
    box.run("count")
    box.checkpoint()
    box.restore()
    assert Path("/proc/self/mounts").read_text() == before


def test_a_pid_file_and_the_exit_code_in_the_foreground(box: Box, tmp_path: Path) -> None:
    """restore without --detach waits as run does."""
    box.run("count")
    box.checkpoint()
    pid_file = tmp_path / "pid"
    command = (
        "restore", "-b", box.bundle.path, "--image-path", box.image, "--pid-file", pid_file, box.id
    )  # fmt: skip
    with box.output.open("ab") as output:
        waiting = box.ocimig.popen(*command, stdout=output, stderr=output)
    until(lambda: box.ocimig.status(box.id) == "running", "the restored container", 20)
    assert int(pid_file.read_text()) == box.ocimig.pid(box.id)
    os.kill(box.ocimig.pid(box.id), signal.SIGKILL)
    assert waiting.wait(timeout=20) == 137
    assert box.ocimig.status(box.id) == ""


def test_a_pipe_as_output_is_taken_from_the_restorer(box: Box) -> None:
    """The other end of the pipe is gone; the caller's own stream takes its place."""
    box.bundle.argv("/bin/worker", "count")
    reader = box.ocimig.popen("run", "-d", "-b", box.bundle.path, box.id, stdout=subprocess.PIPE)
    assert reader.stdout is not None
    assert reader.stdout.readline().startswith(b"0 ")
    assert reader.wait(timeout=20) == 0
    box.checkpoint()
    reader.stdout.close()
    command = ("restore", "-d", "-b", box.bundle.path, "--image-path", box.image, box.id)
    again = box.ocimig.popen(*command, stdout=subprocess.PIPE)
    assert again.stdout is not None
    number = int(again.stdout.readline().split()[0])
    assert int(again.stdout.readline().split()[0]) == number + 1
    assert again.wait(timeout=20) == 0
    box.ocimig.kill(box.id)
    again.stdout.close()


def test_an_output_that_is_put_aside_for_a_moment_is_still_its_output(box: Box) -> None:
    """A shell keeps it at descriptor 10 while another file has its place, and gives it back later."""
    aside = "mkfifo /word; exec 3<>/word; { read word <&3; } >/taken; echo $word and after"
    box.bundle.argv("/bin/sh", "-c", f"{aside}; sleep 100")
    box.ocimig("run", "-d", "-b", box.bundle.path, box.id)
    inside = Path(f"/proc/{box.ocimig.pid(box.id)}/fd")
    until(lambda: os.readlink(inside / "1") == "/taken", "a redirection")
    assert os.readlink(inside / "10").endswith(" (deleted)")
    box.checkpoint()
    box.restore()
    box.checkpoint()
    command = ("restore", "-d", "-b", box.bundle.path, "--image-path", box.image, box.id)
    again = box.ocimig.popen(*command, stdout=subprocess.PIPE)
    assert again.wait(timeout=20) == 0
    (box.bundle.rootfs / "word").write_text("before\n")
    assert again.stdout is not None
    assert again.stdout.readline() == b"before and after\n"
    box.ocimig.kill(box.id)
    again.stdout.close()


def test_freezing_is_short(box: Box) -> None:
    """No program is started inside the freeze: 8 MiB of memory stop for less than half a second."""
    box.run("count", "8")
    started = time.monotonic()
    said = box.checkpoint("--leave-running")
    assert time.monotonic() - started < 10, said
    gap = subprocess.run(
        ["grep", "-c", "iptables", box.image / "dump.log"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert gap.stdout.strip() == "0"
