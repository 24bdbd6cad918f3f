"""One suite for every cgroup driver, on real cgroups with real processes.

v1: this machine's v1 hierarchies (hybrid included). v2: a v2 machine. bare: v2 without controllers,
below a cgroup of this test in any v2 mount, so that a hybrid machine runs v2's code too. systemd: a
scope of a running systemd.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ocimig.runtime import cgroups
from ocimig.runtime.cgroups import layout
from ocimig.runtime.errors import (
    CgroupBusy,
    CgroupFrozen,
    CgroupNotEmpty,
    DevicesRefused,
    LimitRefused,
    NoSubCgroup,
)
from ocimig_testkit.session import TOKEN

if TYPE_CHECKING:
    from ocimig.runtime.cgroups import Cgroup

DRIVERS = [
    pytest.param("v1", marks=[pytest.mark.root, pytest.mark.cgroup1]),
    pytest.param("v2", marks=[pytest.mark.root, pytest.mark.cgroup2]),
    pytest.param("bare", marks=[pytest.mark.root]),
    pytest.param("systemd", marks=[pytest.mark.root, pytest.mark.systemd]),
]
_numbers = itertools.count(1)

Open = Callable[..., "Cgroup"]
Spawn = Callable[..., int]


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """The driver under test."""
    return str(request.param)


@pytest.fixture
def name() -> str:
    """A name that nothing else has, which the leak sweep knows."""
    return f"{TOKEN}-cg{next(_numbers)}"


@pytest.fixture
def open_it(driver: str, name: str) -> Iterator[Open]:
    """Opens the cgroup of the test, and removes it at the end."""
    with contextlib.ExitStack() as stack:
        parent = stack.enter_context(_own_v2_root(name)) if driver == "bare" else ""

        def opened(resources: dict[str, Any] | None = None) -> "Cgroup":
            if driver == "bare":
                hierarchy = layout.Hierarchy(("unified",), parent, "/", "/")
                here = layout.Layout(2, [], hierarchy)
                found: Cgroup = cgroups.at(
                    here, "/c", explicit=True, rootless=False, resources=resources or {}
                )
            else:
                path = f"system.slice:ocimig:{name}" if driver == "systemd" else f"/{name}"
                linux = {"cgroupsPath": path, "resources": resources or {}}
                found = cgroups.open_cgroup(linux, name, systemd=driver == "systemd")
            stack.callback(_clean, found)
            return found

        yield opened


@contextlib.contextmanager
def _own_v2_root(name: str) -> Iterator[str]:
    here = layout.read()
    if here.unified is None:
        pytest.skip("no cgroup v2 is mounted")
    path = Path(here.unified.mountpoint) / f"{name}-root"
    path.mkdir()
    try:
        yield str(path)
    finally:
        path.rmdir()


def _clean(cgroup: "Cgroup") -> None:
    if any(os.path.isdir(path) for path in directories(cgroup)):
        cgroup.kill_all(signal.SIGKILL)
        cgroup.delete()


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts a process that waits; all are ended afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def one(*argv: str) -> int:
        started.append(subprocess.Popen(argv or ("sleep", "1000")))
        return started[-1].pid

    yield one
    for process in started:
        process.kill()
        process.wait()


def directories(cgroup: "Cgroup") -> set[str]:
    """Every directory it has."""
    return {path for path in cgroup.facts().values() if path.startswith("/sys/fs/cgroup/")} - {
        cgroup.facts().get("mountpoint", "")
    }


def value(cgroup: "Cgroup", v1: str, v2: str) -> str:
    """What a file holds, named as in v1 and as in v2."""
    facts = cgroup.facts()
    where = facts.get(v1.partition(".")[0])
    if "mountpoint" in facts or where is None:
        return (Path(facts["unified"]) / v2).read_text().strip()
    return (Path(where) / v1).read_text().strip()


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether it becomes true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def ended(pid: int) -> bool:
    """Whether a child of ours has ended (it may still be a zombie)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_opening_makes_nothing(open_it: Open) -> None:
    """A decision is no act."""
    assert not any(os.path.exists(path) for path in directories(open_it()))


def test_a_process_is_put_into_every_hierarchy(open_it: Open, spawn: Spawn) -> None:
    """And found again by the facts alone."""
    cgroup = open_it()
    pid = spawn()
    cgroup.create(pid)
    cgroup.apply({})
    again = cgroups.from_facts(cgroup.facts())
    assert again.facts() == cgroup.facts()
    assert again.pids() == [pid]
    for path in directories(cgroup):
        assert str(pid) in Path(path, "cgroup.procs").read_text().split()


def test_an_emptied_one_is_deleted_without_a_trace(open_it: Open, spawn: Spawn) -> None:
    """Directories that the container made below go too; deleting twice is fine."""
    cgroup = open_it()
    cgroup.create(spawn())
    for path in directories(cgroup):
        Path(path, "nested", "deeper").mkdir(parents=True)
    cgroup.kill_all()
    cgroup.delete()
    cgroup.delete()
    assert not any(os.path.exists(path) for path in directories(cgroup))


def test_one_that_is_in_use_is_not_deleted(open_it: Open, spawn: Spawn, driver: str) -> None:
    """The error names the place and the process; the wait has a bound."""
    if driver == "systemd":
        pytest.skip("stopping a scope ends its processes")
    cgroup = open_it()
    pid = spawn()
    cgroup.create(pid)
    before = time.monotonic()
    with pytest.raises(CgroupBusy, match=f"processes {pid}"):
        cgroup.delete(timeout=0.2)
    assert time.monotonic() - before < 3


def test_a_name_with_foreign_processes_is_refused(open_it: Open, spawn: Spawn, driver: str) -> None:
    """They would be limited, frozen and killed with the container."""
    if driver == "systemd":
        pytest.skip("systemd itself refuses a unit that exists")
    first, pid = open_it(), spawn()
    first.create(pid)
    with pytest.raises(CgroupNotEmpty, match="1 process"):
        open_it().create(spawn())
    assert first.pids() == [pid]


def test_a_frozen_leftover_is_refused(open_it: Open, spawn: Spawn, driver: str) -> None:
    """A process put into it would hang for ever."""
    if driver == "systemd":
        pytest.skip("systemd itself refuses a unit that exists")
    first = open_it()
    first.create()
    first.freeze()
    try:
        with pytest.raises(CgroupFrozen):
            open_it().create(spawn())
    finally:
        first.thaw()


def test_freezing_stops_and_thawing_lets_run(open_it: Open, spawn: Spawn, tmp_path: Path) -> None:
    """A counter stands still in between."""
    counter = tmp_path / "counter"
    script = f"while :; do echo >> {counter}; sleep 0.01; done"
    cgroup = open_it()
    cgroup.create(spawn("sh", "-c", script))
    assert until(counter.exists)
    assert not cgroup.frozen()
    cgroup.freeze()
    assert cgroup.frozen()
    assert cgroups.frozen(cgroup.facts())
    size = counter.stat().st_size
    time.sleep(0.1)
    assert counter.stat().st_size == size
    cgroup.thaw()
    assert not cgroup.frozen()
    assert until(lambda: counter.stat().st_size > size)


def test_killing_reaches_every_process_even_a_frozen_one(
    open_it: Open, spawn: Spawn, name: str
) -> None:
    """And their children."""
    cgroup = open_it()
    inside = f"until grep -q {name} /proc/self/cgroup; do sleep 0.01; done"
    first, second = spawn(), spawn("sh", "-c", f"{inside}; sleep 1000 & wait")
    cgroup.create(first)
    cgroup.add(second)
    assert until(lambda: len(cgroup.pids()) == 3)
    cgroup.freeze()
    cgroup.kill_all(signal.SIGKILL)
    assert until(lambda: not cgroup.pids())
    assert ended(first)
    assert ended(second)


def test_other_signals_are_sent_too(open_it: Open, spawn: Spawn) -> None:
    """kill --all with TERM."""
    cgroup = open_it()
    pid = spawn()
    cgroup.create(pid)
    cgroup.kill_all(signal.SIGTERM)
    assert until(lambda: ended(pid))


def test_killing_an_empty_one_is_fine(open_it: Open) -> None:
    """Nobody is there."""
    cgroup = open_it()
    if "unit" in cgroup.facts():
        pytest.skip("a scope needs a process")
    cgroup.create()
    cgroup.kill_all(signal.SIGTERM)
    cgroup.kill_all(signal.SIGKILL)
    assert cgroup.pids() == []


def test_exec_joins_a_part_below(open_it: Open, spawn: Spawn) -> None:
    """--cgroup; and a place outside is refused."""
    cgroup = open_it()
    cgroup.create(spawn())
    for path in directories(cgroup):
        Path(path, "part").mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):
            if Path(path, "part", file).exists() and "mountpoint" not in cgroup.facts():
                Path(path, "part", file).write_text(Path(path, file).read_text())
    pid = spawn()
    cgroup.add(pid, ["part"])
    assert pid in cgroup.pids()
    assert pid not in cgroup.pids(recursive=False)
    with pytest.raises(NoSubCgroup):
        cgroup.add(pid, ["../.."])


def test_limits_reach_the_kernel(open_it: Open, spawn: Spawn, driver: str) -> None:
    """And an update raises and lowers them."""
    if driver == "bare":
        pytest.skip("no controller is on")
    resources = {
        "memory": {"limit": 64 << 20, "reservation": 32 << 20},
        "cpu": {"shares": 512, "quota": 20000, "period": 100000},
        "pids": {"limit": 20},
    }
    cgroup = open_it(resources)
    cgroup.create(spawn())
    cgroup.apply(resources)
    assert value(cgroup, "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert value(cgroup, "memory.soft_limit_in_bytes", "memory.low") == str(32 << 20)
    assert value(cgroup, "pids.max", "pids.max") == "20"
    assert value(cgroup, "cpu.shares", "cpu.weight") in {"512", "59"}
    assert value(cgroup, "cpu.cfs_quota_us", "cpu.max") in {"20000", "20000 100000"}
    for size in (128, 48):
        cgroup.apply({"memory": {"limit": size << 20, "swap": size << 20}}, update=True)
        assert value(cgroup, "memory.limit_in_bytes", "memory.max") == str(size << 20)
    cgroup.apply({"cpu": {"period": 10000, "quota": 1000}, "pids": {"limit": -1}}, update=True)
    assert value(cgroup, "cpu.cfs_period_us", "cpu.max") in {"10000", "1000 10000"}
    assert value(cgroup, "pids.max", "pids.max") == "max"


def test_a_process_cannot_exceed_its_number(open_it: Open, spawn: Spawn, driver: str) -> None:
    """pids.max is enforced, not only written."""
    if driver == "bare":
        pytest.skip("no controller is on")
    resources = {"pids": {"limit": 1}}
    cgroup = open_it(resources)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.read(read, 1)
        try:
            os.fork()
        except BlockingIOError:
            os._exit(7)
        os._exit(0)
    try:
        cgroup.create(pid)
        cgroup.apply(resources)
    finally:
        os.write(write, b"x")
        status = os.waitpid(pid, 0)[1]
        os.close(read)
        os.close(write)
    assert os.waitstatus_to_exitcode(status) == 7


def test_processors_are_set_before_anybody_joins(open_it: Open, spawn: Spawn, driver: str) -> None:
    """v1's cpuset is filled from above where config.json says nothing."""
    if driver == "bare":
        pytest.skip("no controller is on")
    resources = {"cpu": {"cpus": "0"}}
    cgroup = open_it(resources)
    pid = spawn()
    cgroup.create(pid)
    cgroup.apply(resources)
    assert value(cgroup, "cpuset.cpus", "cpuset.cpus") == "0"
    assert "Cpus_allowed_list:\t0\n" in Path(f"/proc/{pid}/status").read_text()


def test_a_refused_limit_is_named(open_it: Open, spawn: Spawn) -> None:
    """The controller, the file and the value."""
    cgroup = open_it()
    cgroup.create(spawn())
    with pytest.raises(LimitRefused, match=r"cpuset.*cpuset\.cpus") as caught:
        cgroup.apply({"cpu": {"cpus": "4000"}})
    assert str(caught.value).startswith("cannot set cpuset limit: ")


def test_device_rules_are_enforced(open_it: Open, spawn: Spawn) -> None:
    """/dev/zero may be read by default; /dev/kmsg may not, until a rule allows it."""
    narrow = {"devices": [{"allow": False, "access": "rwm"}]}
    kmsg = {"devices": [{"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}]}
    cgroup = open_it(narrow)
    cgroup.create(spawn())
    cgroup.apply(narrow)
    assert _opens(cgroup, "/dev/zero")
    assert not _opens(cgroup, "/dev/kmsg")
    cgroup.apply(kmsg, update=True)
    assert _opens(cgroup, "/dev/kmsg")
    cgroup.apply({"pids": {}}, update=True)  # names no devices: the rules stay
    assert _opens(cgroup, "/dev/kmsg")
    cgroup.apply({"devices": [{"allow": True}]}, update=True)
    assert _opens(cgroup, "/dev/kmsg")
    cgroup.apply(narrow, update=True)
    assert not _opens(cgroup, "/dev/kmsg")


def _opens(cgroup: "Cgroup", device: str) -> bool:
    """Whether a process of the cgroup may open the device."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.read(read, 1)
        try:
            os.open(device, os.O_RDONLY | os.O_NONBLOCK)
        except PermissionError:
            os._exit(1)
        os._exit(0)
    try:
        cgroup.add(pid)
    finally:
        os.write(write, b"x")
        status = os.waitpid(pid, 0)[1]
        os.close(read)
        os.close(write)
    return os.waitstatus_to_exitcode(status) == 0


def test_a_hole_in_a_wildcard_changes_nothing(open_it: Open, spawn: Spawn) -> None:
    """Refused before a rule is written."""
    cgroup = open_it()
    cgroup.create(spawn())
    rules = [
        {"allow": True, "type": "c", "major": 10, "access": "rw"},
        {"allow": False, "type": "c", "major": 10, "minor": 200, "access": "r"},
    ]
    with pytest.raises(DevicesRefused, match="hole"):
        cgroup.apply({"devices": rules})


def test_the_plan_is_what_is_applied(open_it: Open, driver: str) -> None:
    """It can be printed before anything is there."""
    cgroup = open_it()
    rows = cgroup.plan({"pids": {"limit": 3}})
    assert any(path.endswith("/pids.max") and value == "3" for path, value in rows) or (
        driver == "systemd"
    )
    assert any("c 1:3 rwm" in value for _, value in rows)


def test_statistics_have_runcs_form(open_it: Open, spawn: Spawn) -> None:
    """The sections that callers decode are there."""
    cgroup = open_it()
    cgroup.create(spawn("sh", "-c", "while :; do :; done"))
    assert until(lambda: cgroup.stats()["cpu"]["usage"]["total"] > 0)
    stats = cgroup.stats()
    assert stats["pids"]["current"] == 1
    assert {"usage", "throttling"} <= stats["cpu"].keys()
    assert {"cache", "usage", "swap", "raw"} <= stats["memory"].keys()
    assert {"limit", "usage", "max", "failcnt"} <= stats["memory"]["usage"].keys()
    assert isinstance(stats["blkio"]["ioServiceBytesRecursive"], list)


def test_a_failed_creation_leaves_nothing(open_it: Open) -> None:
    """A process that is gone cannot be put anywhere."""
    cgroup = open_it()
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(Exception, match=r"cgroup|unit"):
        cgroup.create(process.pid)
    assert not any(os.path.exists(path) for path in directories(cgroup))


def test_a_process_enters_by_itself_without_the_kernels_lock(open_it: Open) -> None:
    """joins() written by a single-threaded process puts it where create(pid) would."""
    cgroup = open_it()
    joins = cgroup.joins()
    if not joins:
        pytest.skip("this driver places by pid or by clone3")
    cgroup.create()
    ready, told = os.pipe()
    pid = os.fork()
    if not pid:
        for file, data in joins:
            Path(file).write_text(data)
        os.write(told, b"x")
        signal.pause()
    try:
        os.read(ready, 1)
        for file, _ in joins:
            assert str(pid) in Path(file).read_text().split()
        assert cgroup.pids() == [pid]
        cgroup.kill_all()
        assert until(lambda: ended(pid))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(told)
