"""Slowing a container down writes what the kernel takes, and gives back what was there."""

import os
from pathlib import Path

import pytest

from ocimig import jsonio
from ocimig.migrate import throttle
from ocimig.migrate.memory.errors import CannotSlowDown
from ocimig.migrate.throttle import Throttle
from ocimig.runtime.cgroups import tree


def files_of(directory: Path, **values: str) -> Path:
    """A cgroup of plain files."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        directory.joinpath("cpu." + name.replace("__", ".")).write_text(value)
    return directory


def content(directory: Path) -> dict[str, str]:
    """What stands in its files; a plain file is not shortened by a shorter value, so up to the newline."""
    return {path.name: path.read_text() for path in directory.iterdir()}


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    """A cgroup of version 1 without a limit."""
    return files_of(tmp_path / "cpu", cfs_quota_us="-1", cfs_period_us="100000", cfs_burst_us="0")


def brake(cgroups: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch) -> Throttle:
    """A brake for a container that uses one processor of two; writes replace the whole file."""
    home.mkdir(exist_ok=True)
    monkeypatch.setattr(tree, "write", lambda path, value: Path(path).write_text(value))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    made = Throttle(cgroups, str(home))
    monkeypatch.setattr(made, "_cpus", lambda _now: 1.0)
    return made


def test_version_1_gets_a_quota_and_gives_it_back(
    v1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """80 % of one processor in periods of 10 ms, then 1 %, then what was there before both."""
    before = content(v1)
    made = brake({"cpu": str(v1)}, tmp_path / "home", monkeypatch)
    made.slow_down(0.2)
    assert content(v1)["cpu.cfs_quota_us"] == "8000"
    assert content(v1)["cpu.cfs_period_us"] == "10000"
    made.slow_down(0.99)
    assert int(content(v1)["cpu.cfs_quota_us"]) >= 1000
    made.restore()
    assert content(v1) == before
    assert not (tmp_path / "home/throttle").exists()


def test_a_limit_that_was_there_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with half a processor and a burst keeps its period, and gets both back."""
    here = files_of(
        tmp_path / "cpu", cfs_quota_us="25000", cfs_period_us="50000", cfs_burst_us="10000"
    )
    before = content(here)
    made = brake({"cpu": str(here)}, tmp_path / "home", monkeypatch)
    made.slow_down(0.5)
    assert content(here) == {
        "cpu.cfs_quota_us": "25000", "cpu.cfs_period_us": "50000", "cpu.cfs_burst_us": "0",
    }  # fmt: skip
    made.slow_down(0.8)
    assert content(here)["cpu.cfs_quota_us"] == "10000"
    made.restore()
    assert content(here) == before


def test_version_2_gets_a_quota_and_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cpu.max is one file with both numbers."""
    here = files_of(tmp_path / "unified", max="max 100000", max__burst="0", stat="usage_usec 5\n")
    before = content(here)
    cgroups = {"unified": str(here), "mountpoint": str(tmp_path)}
    made = brake(cgroups, tmp_path / "home", monkeypatch)
    made.slow_down(0.9)
    assert content(here)["cpu.max"] == "1000 10000"
    made.restore()
    assert content(here) == before


def test_somebody_else_gives_it_back_after_a_crash(
    v1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the record in the migration's directory is needed, and a second time does nothing."""
    before = content(v1)
    brake({"cpu": str(v1)}, tmp_path / "home", monkeypatch).slow_down(0.7)
    assert content(v1) != before
    assert throttle.restore_left(str(tmp_path / "home"))
    assert content(v1) == before
    assert not throttle.restore_left(str(tmp_path / "home"))


def test_the_record_is_there_before_anything_changes(
    v1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two, nothing is lost: the first write finds the record on disk."""
    made = brake({"cpu": str(v1)}, tmp_path / "home", monkeypatch)
    seen = []

    def write(path: str, value: str) -> None:
        seen.append(jsonio.loads((tmp_path / "home/throttle").read_bytes())["writes"])
        Path(path).write_text(value)

    monkeypatch.setattr(tree, "write", write)
    made.slow_down(0.2)
    assert seen[0] == [[f"{v1}/cpu.cfs_quota_us", "-1"], [f"{v1}/cpu.cfs_period_us", "100000"]]


def test_a_cgroup_that_is_gone_needs_nothing(v1: Path, tmp_path: Path) -> None:
    """The container ended meanwhile: the record goes too."""
    home = tmp_path / "home"
    home.mkdir()
    record = {"version": 1, "writes": [[str(tmp_path / "gone/cpu.cfs_quota_us"), "-1"]]}
    (home / "throttle").write_text(jsonio.dumps(record))
    assert throttle.restore_left(str(home))
    assert os.listdir(home) == []


@pytest.mark.parametrize("cgroups", [{}, {"freezer": "/x"}, {"mountpoint": "/nowhere"}])
def test_without_the_controller_it_says_so(cgroups: dict[str, str], tmp_path: Path) -> None:
    """No limit can be written: words, and no record."""
    with pytest.raises(CannotSlowDown, match="cannot be slowed down"):
        Throttle(cgroups, str(tmp_path)).slow_down(0.2)
    assert os.listdir(tmp_path) == []


def test_what_the_kernel_refuses_is_undone(
    v1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In version 1 a cgroup inside that may use more makes the kernel refuse: everything is as before."""
    before = content(v1)
    made = brake({"cpu": str(v1)}, tmp_path / "home", monkeypatch)

    def write(path: str, value: str) -> None:
        if value == "8000":
            raise OSError(22, "Invalid argument", path)
        Path(path).write_text(value)

    monkeypatch.setattr(tree, "write", write)
    with pytest.raises(CannotSlowDown, match="a cgroup inside"):
        made.slow_down(0.2)
    assert content(v1) == before
    assert not (tmp_path / "home/throttle").exists()
