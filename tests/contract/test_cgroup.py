"""One suite for every cgroup driver: making, joining, freezing, ending. The drivers are in conftest."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ocimig.runtime import cgroups
from ocimig.runtime.errors import CgroupBusy, CgroupFrozen, CgroupNotEmpty, NoSubCgroup
from ocimig_testkit import until
from ocimig_testkit.cgroups import Open, Spawn, directories, ended


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
    until(counter.exists, "the counter is written")
    assert not cgroup.frozen()
    cgroup.freeze()
    assert cgroup.frozen()
    assert cgroups.frozen(cgroup.facts())
    size = counter.stat().st_size
    time.sleep(0.1)
    assert counter.stat().st_size == size
    cgroup.thaw()
    assert not cgroup.frozen()
    until(lambda: counter.stat().st_size > size, "it counts again")


def test_killing_reaches_every_process_even_a_frozen_one(
    open_it: Open, spawn: Spawn, name: str
) -> None:
    """And their children."""
    cgroup = open_it()
    inside = f"until grep -q {name} /proc/self/cgroup; do sleep 0.01; done"
    first, second = spawn(), spawn("sh", "-c", f"{inside}; sleep 1000 & wait")
    cgroup.create(first)
    cgroup.add(second)
    until(lambda: len(cgroup.pids()) == 3, "its child is there")
    cgroup.freeze()
    cgroup.kill_all(signal.SIGKILL)
    until(lambda: not cgroup.pids(), "all have ended")
    assert ended(first)
    assert ended(second)


def test_other_signals_are_sent_too(open_it: Open, spawn: Spawn) -> None:
    """kill --all with TERM."""
    cgroup = open_it()
    pid = spawn()
    cgroup.create(pid)
    cgroup.kill_all(signal.SIGTERM)
    until(lambda: ended(pid), "it has ended")


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
        until(lambda: ended(pid), "it has ended")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(told)
