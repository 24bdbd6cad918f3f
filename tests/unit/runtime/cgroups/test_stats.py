"""Numbers out of files, in runc's form."""

from pathlib import Path

from ocimig.runtime.cgroups import stats

NO_LIMIT = (1 << 64) - 1


def test_v2_is_told_in_the_form_of_v1(tmp_path: Path) -> None:
    """Nanoseconds, memory and swap together, no limit as the largest number."""
    files = {
        "cpu.stat": "usage_usec 3\nuser_usec 2\nsystem_usec 1\nnr_periods 4\nthrottled_usec 5\n",
        "cpu.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=7\n",
        "memory.stat": "anon 1\nfile 4096\n",
        "memory.current": "10\n",
        "memory.max": "100\n",
        "memory.swap.current": "5\n",
        "memory.swap.max": "max\n",
        "memory.events": "low 0\nmax 3\n",
        "pids.current": "2\n",
        "pids.max": "max\n",
        "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
        "hugetlb.2MB.current": "0\n",
        "hugetlb.2MB.max": "max\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = stats.v2(str(tmp_path))
    assert found["cpu"]["usage"] == {"total": 3000, "kernel": 1000, "user": 2000}
    assert found["cpu"]["throttling"]["throttledTime"] == 5000
    assert found["cpu"]["psi"]["some"] == {"avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 7}
    assert found["memory"]["cache"] == 4096
    assert found["memory"]["usage"] == {"limit": 100, "usage": 10, "max": 0, "failcnt": 3}
    assert found["memory"]["swap"]["usage"] == 15
    assert found["memory"]["swap"]["limit"] == NO_LIMIT
    assert found["pids"] == {"current": 2, "limit": 0}
    assert found["blkio"]["ioServicedRecursive"][1] == {
        "major": 8,
        "minor": 0,
        "op": "Write",
        "value": 4,
    }
    assert found["hugetlb"]["2MB"]["max"] == NO_LIMIT


def test_v1_without_a_controller_has_its_section_empty() -> None:
    """Callers decode the sections by name."""
    found = stats.v1({})
    assert found["cpu"]["usage"]["total"] == 0
    assert found["memory"] == {}
    assert found["blkio"] == {}


def test_v1_block_lines_without_a_device_are_left_out(tmp_path: Path) -> None:
    """The last line of the file is a total."""
    text = "8:0 Read 10\n8:0 Total 10\nTotal 10\n"
    (tmp_path / "blkio.throttle.io_serviced_recursive").write_text(text)
    rows = stats.v1({"blkio": str(tmp_path)})["blkio"]["ioServicedRecursive"]
    assert rows == [
        {"major": 8, "minor": 0, "op": "Read", "value": 10},
        {"major": 8, "minor": 0, "op": "Total", "value": 10},
    ]


def test_kernel_lists_of_numbers() -> None:
    """Ranges and single ones."""
    assert stats.ranges("0-2,7") == [0, 1, 2, 7]
    assert stats.ranges("") == []
