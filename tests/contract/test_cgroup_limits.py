"""One suite for every cgroup driver: limits, devices, plans and statistics. The drivers are in conftest."""

import os
from pathlib import Path
from typing import Any

import pytest

from ocimig.runtime.errors import DevicesRefused, LimitRefused
from ocimig_testkit import until
from ocimig_testkit.cgroups import Open, Spawn, value


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


def _opens(cgroup: Any, device: str) -> bool:
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
    until(lambda: cgroup.stats()["cpu"]["usage"]["total"] > 0, "processor time is counted")
    stats = cgroup.stats()
    assert stats["pids"]["current"] == 1
    assert {"usage", "throttling"} <= stats["cpu"].keys()
    assert {"cache", "usage", "swap", "raw"} <= stats["memory"].keys()
    assert {"limit", "usage", "max", "failcnt"} <= stats["memory"]["usage"].keys()
    assert isinstance(stats["blkio"]["ioServiceBytesRecursive"], list)
