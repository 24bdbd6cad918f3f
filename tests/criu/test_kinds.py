"""Containers of many kinds: with a terminal, mapped users, more namespaces, a read-only root."""

import os
import pty
import select
import shutil
import signal
from pathlib import Path

import pytest

from ocimig_testkit import ConsoleSocket, until
from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu]


def _add(box: Box, *kinds: str) -> None:
    box.bundle.linux["namespaces"] += [{"type": kind} for kind in kinds]


def _mapped(box: Box) -> None:
    _add(box, "user")
    box.bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    box.bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    for directory, names, others in os.walk(box.bundle.rootfs):
        for name in [*names, *others, "."]:
            os.chown(Path(directory, name), 100000, 100000, follow_symlinks=False)
    for above in [box.bundle.path, *box.bundle.path.parents]:
        if above != Path("/tmp"):
            above.chmod(above.stat().st_mode | 0o111)


def _processes(box: Box) -> list[int]:
    """Those of the container, on the host."""
    return [int(pid) for pid in box.ocimig("ps", "--format", "json", box.id).json()]


@pytest.mark.userns
def test_a_container_with_mapped_users(box: Box) -> None:
    """Its user namespace, maps and ids come back; the network is empty with lo up."""
    _mapped(box)
    box.run("count")
    look = (
        "/bin/sh",
        "-c",
        "cat /proc/self/uid_map; id -u; ls -lnd /dev /dev/null; ip address | grep inet",
    )
    before = box.ocimig.exec(box.id, *look, code=None).out
    box.checkpoint()
    box.restore()
    box.goes_on()
    assert "100000" in Path(f"/proc/{box.ocimig.pid(box.id)}/uid_map").read_text()
    assert box.ocimig.exec(box.id, *look, code=None).out == before
    box.unbroken()


def test_processes_of_another_user_keep_their_limits(box: Box) -> None:
    """Without CAP_SYS_RESOURCE, too, where the kernel refuses to tell root the limits of others."""
    box.bundle.config["process"]["user"] = {"uid": 101, "gid": 102}
    box.bundle.config["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "hard": 777, "soft": 333},
        {"type": "RLIMIT_CORE", "hard": 4096, "soft": 0},
    ]
    box.run("count")
    before = Path(f"/proc/{box.ocimig.pid(box.id)}/limits").read_text()
    box.checkpoint()
    box.restore()
    box.goes_on()
    assert Path(f"/proc/{box.ocimig.pid(box.id)}/limits").read_text() == before
    box.unbroken()


def test_a_stopped_process_stays_stopped(box: Box) -> None:
    """It cannot be traced inside a frozen cgroup of version 1, and must not hold everything up."""
    (box.bundle.rootfs / "bin/worker").rename(box.bundle.rootfs / "bin/real")
    script = box.bundle.rootfs / "bin/worker"
    script.write_text('#!/bin/sh\nsleep 1000 &\nexec /bin/real "$@"\n')
    script.chmod(0o755)
    box.run("count")
    (sleeper,) = [pid for pid in _processes(box) if pid != box.ocimig.pid(box.id)]
    os.kill(sleeper, signal.SIGSTOP)
    box.checkpoint(timeout=30)
    box.restore()
    box.goes_on()
    states = [
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][1] for pid in _processes(box)
    ]
    assert states.count("T") == 1


def test_a_cgroup_namespace_comes_back(box: Box) -> None:
    """CRIU does not make it in the mode we use; it is inherited from CRIU's own."""
    _add(box, "cgroup")
    box.run("count")
    look = ("/bin/cat", "/proc/self/cgroup")
    before = box.ocimig.exec(box.id, *look).out
    box.checkpoint()
    box.restore()
    box.goes_on()
    pid = box.ocimig.pid(box.id)
    assert os.readlink(f"/proc/{pid}/ns/cgroup") != os.readlink("/proc/self/ns/cgroup")
    assert box.ocimig.exec(box.id, *look).out == before


def test_clocks_go_on_from_where_they_were(box: Box) -> None:
    """CRIU restores into a time namespace, and exec joins it."""
    box.run("count")
    look = ("/bin/cut", "-d.", "-f1", "/proc/uptime")
    before = int(box.ocimig.exec(box.id, *look).out)
    box.checkpoint()
    box.restore()
    assert 0 <= int(box.ocimig.exec(box.id, *look).out) - before < 30
    pid = box.ocimig.pid(box.id)
    inside = box.ocimig.exec(box.id, "/bin/readlink", "/proc/self/ns/time").out.strip()
    assert inside == os.readlink(f"/proc/{pid}/ns/time")


def test_a_read_only_root(box: Box) -> None:
    """It is read-only afterwards too."""
    box.bundle.config["root"]["readonly"] = True
    box.run("count")
    box.checkpoint()
    box.restore()
    box.goes_on()
    assert box.ocimig.exec(box.id, "/bin/touch", "/new", code=None).code != 0


def test_a_read_only_root_without_a_tmp(box: Box) -> None:
    """CRIU wants a directory for the old root; none of ours is left behind."""
    box.bundle.config["root"]["readonly"] = True
    (box.bundle.rootfs / "tmp").rmdir()
    box.run("count")
    box.checkpoint()
    box.restore()
    box.goes_on()
    assert not (box.bundle.rootfs / "tmp").exists()


def test_the_network_of_the_host(box: Box) -> None:
    """Nothing is locked there: the host's traffic is not ours to stop."""
    box.bundle.without_namespace("network")
    box.run("count")
    box.checkpoint()
    box.restore()
    box.goes_on()
    pid = box.ocimig.pid(box.id)
    assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")


def test_sysctls_of_the_network_are_set_again(box: Box) -> None:
    """The namespace is new, its settings are those of config.json."""
    box.bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "123456789"}
    box.run("count")
    box.checkpoint()
    box.restore()
    look = ("/bin/cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shmmax")
    assert box.ocimig.exec(box.id, *look).out.split() == ["1", "123456789"]


def test_a_terminal_goes_to_the_console_socket_again(box: Box, tmp_path: Path) -> None:
    """The master is asked for twice: at the start and at the restore."""
    box.bundle.process["terminal"] = True
    box.bundle.argv("/bin/sh", "-c", 'while read line; do echo "heard $line"; done')
    with ConsoleSocket(tmp_path / "one") as console:
        box.ocimig("run", "-d", "-b", box.bundle.path, "--console-socket", console.path, box.id)
        console.write("first\n")
        console.read_until("heard first")
        box.checkpoint()
    with ConsoleSocket(tmp_path / "two") as console:
        box.restore("--console-socket", str(console.path))
        console.write("second\n")
        console.read_until("heard second")
    until(lambda: box.ocimig.status(box.id) in {"", "stopped"}, "the shell to hang up", 20)


def test_it_is_restored_without_its_own_config(box: Box) -> None:
    """What it was made from is in the image: the bundle may have changed."""
    box.run("count")
    box.checkpoint()
    (box.bundle.path / "config.json").unlink()
    box.restore()
    box.goes_on()


def test_the_image_can_be_moved(box: Box, tmp_path: Path) -> None:
    """Nothing in it names the directory it was made in."""
    box.run("count")
    box.checkpoint()
    shutil.move(box.image, tmp_path / "elsewhere")
    box.image = tmp_path / "elsewhere"
    box.restore()
    box.goes_on()


def test_a_terminal_comes_to_ours_in_the_foreground(box: Box, tmp_path: Path) -> None:
    """restore without --detach at a terminal: what is typed reaches the shell, its end is ours."""
    box.bundle.process["terminal"] = True
    box.bundle.argv("/bin/sh", "-c", 'while read line; do echo "heard $line"; done; exit 7')
    with ConsoleSocket(tmp_path / "one") as console:
        box.ocimig("run", "-d", "-b", box.bundle.path, "--console-socket", console.path, box.id)
        console.write("first\n")
        console.read_until("heard first")
        box.checkpoint()
    ours, theirs = pty.openpty()
    try:
        command = ("restore", "-b", box.bundle.path, "--image-path", box.image, box.id)
        front = box.ocimig.popen(*command, stdin=theirs, stdout=theirs, stderr=theirs)
        until(lambda: box.ocimig.status(box.id) == "running", "the restored shell", 20)
        os.write(ours, b"second\r\x04")
        shown = b""
        while front.poll() is None or select.select([ours], [], [], 0)[0]:
            if select.select([ours], [], [], 0.2)[0]:
                shown += os.read(ours, 4096)
        assert b"heard second" in shown
        assert front.returncode == 7
    finally:
        os.close(ours)
        os.close(theirs)
    assert box.ocimig.status(box.id) == ""
