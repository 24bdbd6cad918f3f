"""Signals, pause and deletion, on real processes in real cgroups; no container is made for it."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig import files, jsonio
from ocimig.runtime import cgroups, lifecycle
from ocimig.runtime import state as facts
from ocimig.runtime.errors import Busy, NoSuchContainer, NotPaused, NotRunning, NotStopped
from ocimig.runtime.linux import mount, proc
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store
from ocimig_testkit import TOKEN, until

SPEC: dict[str, object] = {"ociVersion": "1.2.0", "linux": {"namespaces": [{"type": "pid"}]}}
SHARED: dict[str, object] = {"ociVersion": "1.2.0", "linux": {"namespaces": []}}


class Made:
    """A store with one container "c1" whose process is a shell with a child."""

    def __init__(self, root: Path) -> None:
        self.store = Store(str(root))
        self.group: cgroups.Cgroup | None = None
        self.started: list[subprocess.Popen[bytes]] = []
        self.state = ContainerState("c1", bundle="/b", rootfs="/b/rootfs", oci_version="1.2.0")

    def make(self, *, grouped: bool, spec: "dict[str, object]" = SPEC, script: str = "") -> None:
        """Start the process, in a cgroup of its own when `grouped`, and save the facts."""
        body = script or ("sleep 1000 & sleep 1000 & wait" if grouped else "exec sleep 1000")
        child = subprocess.Popen(["sh", "-c", f"read go; {body}"], stdin=subprocess.PIPE)
        self.started.append(child)
        if grouped:
            self.group = cgroups.open_cgroup({"cgroupsPath": f"/{TOKEN}-lifecycle"}, "c1")
            self.group.create(child.pid)
            self.state.cgroups = self.group.facts()
        assert child.stdin is not None
        child.stdin.write(b"\n")  # only now: what it starts must be in the cgroup too
        child.stdin.close()
        self.store.claim("c1")
        self.state.adopt(child.pid)
        self.store.save(self.state)
        self.store.save_config("c1", spec)

    def spawn(self, *argv: str) -> "subprocess.Popen[bytes]":
        child = subprocess.Popen(argv)
        self.started.append(child)
        return child

    def directories(self) -> "list[str]":
        return [path for path in self.state.cgroups.values() if path.startswith("/")]

    def clean(self) -> None:
        if self.group is not None:
            self.group.kill_all()
        for child in self.started:
            child.kill()
            child.wait()
        if self.group is not None:
            self.group.delete()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    """Nothing is left of it afterwards, whatever the test did."""
    it = Made(tmp_path / "root")
    yield it
    it.clean()


def _gone(pid: int) -> bool:
    stat = proc.stat(pid)
    return stat is None or stat.ended


def test_the_state_is_runcs(made: Made) -> None:
    """Names, order, and no annotations where there are none."""
    made.make(grouped=False)
    document = lifecycle.state_document(made.store, "c1")
    assert list(document) == [
        "ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner",
    ]  # fmt: skip
    assert document["status"] == "running"
    assert document["pid"] == made.state.pid
    made.state.annotations = {"a": "b"}
    made.store.save(made.state)
    lifecycle.kill(made.store, "c1", signal.SIGKILL)
    made.started[0].wait()
    document = lifecycle.state_document(made.store, "c1")
    assert (document["status"], document["pid"]) == ("stopped", 0)
    assert list(document)[-2:] == ["annotations", "owner"]
    with pytest.raises(NoSuchContainer):
        lifecycle.state_document(made.store, "c2")


def test_a_hook_is_told_no_more_than_the_specification(made: Made) -> None:
    """No root file system, no owner; no pid once it has stopped."""
    made.make(grouped=False)
    document = lifecycle.hook_document(made.state, facts.CREATING)
    assert list(document) == ["ociVersion", "id", "status", "pid", "bundle"]
    assert "pid" not in lifecycle.hook_document(made.state, facts.STOPPED)


def test_a_signal_reaches_the_process_and_nobody_who_has_its_number(made: Made) -> None:
    """After its end, and with another start time, there is nobody to signal."""
    made.make(grouped=False)
    bystander = made.spawn("sleep", "1000")
    stranger = ContainerState("c1", pid=bystander.pid, start_time=1)
    made.store.save(stranger)
    with pytest.raises(NotRunning, match=r"^container not running$"):
        lifecycle.kill(made.store, "c1", signal.SIGKILL)
    assert bystander.poll() is None
    made.store.save(made.state)
    lifecycle.kill(made.store, "c1", signal.SIGTERM)
    assert made.started[0].wait(10) == -signal.SIGTERM
    with pytest.raises(NotRunning):
        lifecycle.kill(made.store, "c1", 0)


@pytest.mark.root
def test_all_means_every_process_of_the_cgroup(made: Made) -> None:
    """kill --all; and KILL, where the container has no pid namespace of its own."""
    made.make(grouped=True, spec=SHARED)
    assert made.group is not None
    group = made.group
    pids = until(lambda: p if len(p := group.pids()) == 3 else [], "the shell has two children")
    lifecycle.kill(made.store, "c1", signal.SIGTERM)
    assert made.started[0].wait(10) == -signal.SIGTERM
    assert len(group.pids()) == 2
    lifecycle.kill(made.store, "c1", signal.SIGKILL)
    until(lambda: all(_gone(pid) for pid in pids), "all are gone")
    lifecycle.kill(made.store, "c1", signal.SIGTERM, all=True)
    with pytest.raises(NotRunning):
        lifecycle.kill(made.store, "c1", signal.SIGTERM)


@pytest.mark.root
def test_a_paused_container_is_resumed_once(made: Made) -> None:
    """Its status is the freezer's; each wrong order has runc's words."""
    made.make(grouped=True)
    with pytest.raises(NotPaused, match=r"^container not paused$"):
        lifecycle.resume(made.store, "c1")
    lifecycle.pause(made.store, "c1")
    assert lifecycle.state_document(made.store, "c1")["status"] == "paused"
    with pytest.raises(NotRunning):
        lifecycle.pause(made.store, "c1")
    lifecycle.resume(made.store, "c1")
    assert lifecycle.state_document(made.store, "c1")["status"] == "running"


@pytest.mark.root
def test_a_paused_container_dies_of_kill_without_running_on(made: Made, tmp_path: Path) -> None:
    """SIGKILL is there before the thaw: not one more instruction."""
    mark = tmp_path / "mark"
    made.make(grouped=True, script=f"while :; do date +%N > {mark}; done")
    until(mark.exists, "it runs")
    lifecycle.pause(made.store, "c1")
    seen = mark.read_bytes()
    lifecycle.kill(made.store, "c1", signal.SIGKILL)
    assert made.started[0].wait(10) == -signal.SIGKILL
    assert mark.read_bytes() in {seen, b""}


@pytest.mark.root
@pytest.mark.parametrize("paused", [False, True])
def test_forced_deletion_ends_all_and_leaves_nothing(made: Made, paused: bool) -> None:
    """Every process, the cgroup in every hierarchy, and the directory; a second time is fine."""
    made.make(grouped=True, spec=SHARED)
    assert made.group is not None
    group = made.group
    pids = until(lambda: p if len(p := group.pids()) == 3 else [], "the shell has two children")
    if paused:
        lifecycle.pause(made.store, "c1")
    with pytest.raises(
        NotStopped, match="c1 that is not stopped: " + ("paused" if paused else "running")
    ):
        lifecycle.delete(made.store, "c1")
    began = time.monotonic()
    lifecycle.delete(made.store, "c1", force=True)
    assert time.monotonic() - began < 5
    assert all(_gone(pid) for pid in pids)
    assert not any(os.path.exists(path) for path in made.directories())
    assert os.listdir(made.store.root) == []
    lifecycle.delete(made.store, "c1", force=True)
    with pytest.raises(NoSuchContainer):
        lifecycle.delete(made.store, "c1")


@pytest.mark.root
def test_what_a_stopped_container_left_running_goes_with_it(made: Made) -> None:
    """Without force: the first process has ended, its children have not."""
    made.make(grouped=True, spec=SHARED)
    assert made.group is not None
    group = made.group
    until(lambda: len(group.pids()) == 3, "the shell has two children")
    left = [pid for pid in group.pids() if pid != made.state.pid]
    made.started[0].kill()
    made.started[0].wait()
    lifecycle.delete(made.store, "c1")
    assert all(_gone(pid) for pid in left)
    assert not made.store.exists("c1")


@pytest.mark.parametrize("force", [False, True])
def test_every_half_made_container_can_be_deleted(made: Made, force: bool) -> None:
    """A name only; facts without a process whose maker is dead; with force also damaged facts."""
    made.store.claim("c1")
    lifecycle.delete(made.store, "c1", force=force)
    assert not made.store.exists("c1")
    child = made.spawn("true")
    stat = until(lambda: proc.stat(child.pid), "it has a start time")
    assert stat is not None
    child.wait()
    made.store.claim("c1")
    orphan = ContainerState("c1", creator_pid=child.pid, creator_start=stat.start_time)
    made.store.save(orphan)
    lifecycle.delete(made.store, "c1", force=force)
    assert not made.store.exists("c1")
    if force:
        made.store.claim("c1")
        Path(made.store.path("c1"), "state.json").write_text("{")
        lifecycle.delete(made.store, "c1", force=True)
        assert not made.store.exists("c1")


def test_a_container_in_the_making_is_not_deleted(made: Made) -> None:
    """Its maker lives: say so."""
    made.store.claim("c1")
    made.store.save(ContainerState("c1"))
    with pytest.raises(NotStopped, match="creating"):
        lifecycle.delete(made.store, "c1")
    assert made.store.exists("c1")


def test_poststop_hooks_run_and_cannot_hinder(made: Made, tmp_path: Path) -> None:
    """When the container is gone, with the state "stopped"; a failure is a warning."""
    script = f"cat > {tmp_path}/seen; test -e {made.store.root}/c1 || touch {tmp_path}/gone"
    row = [{"path": "/bin/false"}, {"path": "/bin/sh", "args": ["sh", "-c", script]}]
    made.make(grouped=False, spec={**SPEC, "hooks": {"poststop": row}})
    lifecycle.delete(made.store, "c1", force=True)
    assert jsonio.loads((tmp_path / "seen").read_bytes())["status"] == "stopped"
    assert (tmp_path / "gone").exists()
    assert not made.store.exists("c1")


@pytest.mark.root
def test_only_mounts_of_the_container_are_taken_away(made: Made, tmp_path: Path) -> None:
    """What the state names, also when somebody took it away before."""
    for name in ("ours", "gone", "theirs"):
        (tmp_path / name).mkdir()
    for name in ("ours", "theirs"):
        mount.mount("none", tmp_path / name, "tmpfs")
    try:
        made.state.mounts = [
            str(tmp_path / "ours"),
            str(tmp_path / "gone"),
            str(tmp_path / "never"),
        ]
        made.make(grouped=False)
        lifecycle.delete(made.store, "c1", force=True)
        assert not os.path.ismount(tmp_path / "ours")
        assert os.path.ismount(tmp_path / "theirs")
    finally:
        mount.umount2(tmp_path / "theirs", mount.MNT_DETACH)


def test_a_container_somebody_works_on_is_busy(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a bounded wait; and when the other ends in time, it is done."""
    made.make(grouped=False)
    monkeypatch.setattr(lifecycle, "_BUSY_SECONDS", 0.3)
    with made.store.lock("c1"), pytest.raises(Busy, match=r"^container c1 is busy"):
        lifecycle.delete(made.store, "c1", force=True)
    assert made.store.exists("c1")
    monkeypatch.setattr(lifecycle, "_BUSY_SECONDS", 10)
    lock: files.Lock = made.store.lock("c1")
    lock.__enter__()
    release = threading.Timer(0.2, lambda: lock.__exit__(None, None, None))
    release.start()
    lifecycle.delete(made.store, "c1", force=True)
    release.join()
    assert not made.store.exists("c1")


@pytest.mark.root
def test_a_cgroup_that_we_are_in_ourselves_is_not_ended(
    made: Made, capfd: pytest.CaptureFixture[str]
) -> None:
    """Deleting from within a shared cgroup ends the first process only, and says what is left."""
    made.make(grouped=True)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert made.group is not None
            made.group.add(os.getpid())
            lifecycle.delete(made.store, "c1", force=True)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert "is left" in capfd.readouterr().err
    assert made.started[0].wait(10) == -signal.SIGKILL
    assert not made.store.exists("c1")
