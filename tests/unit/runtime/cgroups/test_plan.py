"""linux.resources as the values that go into files, version by version."""

from collections.abc import Callable
from typing import Any

import pytest

from ocimig import log
from ocimig.runtime.cgroups import plan_v1, plan_v2
from ocimig.runtime.cgroups.write import AGAIN, IF_THERE, Cgroupfs
from ocimig.runtime.errors import LimitRefused

GIB = 1 << 30


def host(**files: str) -> Cgroupfs:
    """A machine whose cgroup has these files ("." written as "__")."""
    content = {name.replace("__", "."): value for name, value in files.items()}
    return Cgroupfs(lambda _, file: file in content, lambda _, file: content.get(file, ""))


def rows(
    plan: Callable[..., list[Any]], resources: dict[str, Any], **files: str
) -> list[tuple[str, str]]:
    """(file, value) of each write."""
    return [(write.file, write.value) for write in plan(resources, host(**files))]


V1: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({}, []),
    ({"memory": None, "cpu": {}, "pids": {}}, []),
    ({"cpu": {"shares": 512}}, [("cpu.shares", "512")]),
    (
        {"cpu": {"period": 50000, "quota": -1, "burst": 0, "idle": 1}},
        [
            ("cpu.cfs_period_us", "50000"),
            ("cpu.cfs_burst_us", "0"),
            ("cpu.cfs_quota_us", "-1"),
            ("cpu.idle", "1"),
        ],
    ),
    (
        {"cpu": {"realtimePeriod": 1000000, "realtimeRuntime": 5000}},
        [("cpu.rt_period_us", "1000000"), ("cpu.rt_runtime_us", "5000")],
    ),
    ({"cpu": {"cpus": "0-1", "mems": "0"}}, [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]),
    ({"memory": {"limit": GIB}}, [("memory.limit_in_bytes", str(GIB))]),
    ({"memory": {"limit": 0, "swappiness": -1}}, []),
    (
        {"memory": {"reservation": 5, "swappiness": 0, "disableOOMKiller": True}},
        [
            ("memory.soft_limit_in_bytes", "5"),
            ("memory.oom_control", "1"),
            ("memory.swappiness", "0"),
        ],
    ),
    ({"pids": {"limit": 5}}, [("pids.max", "5")]),
    ({"pids": {"limit": -1}}, [("pids.max", "max")]),
    ({"pids": {"limit": 0}}, [("pids.max", "1")]),
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]},
        [
            ("hugetlb.2MB.limit_in_bytes", "4194304"),
            ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
        ],
    ),
    (
        {"network": {"classID": 1048577, "priorities": [{"name": "lo", "priority": 7}]}},
        [("net_cls.classid", "1048577"), ("net_prio.ifpriomap", "lo 7")],
    ),
    (
        {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 1}}},
        [("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"), ("rdma.max", "mlx4_0 hca_object=1")],
    ),
    (
        {"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 9}]}},
        [("blkio.throttle.write_iops_device", "8:0 9")],
    ),
]


@pytest.mark.parametrize(("resources", "expected"), V1)
def test_v1_values(resources: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """One file a limit, named as the kernel names it."""
    assert rows(plan_v1.plan, resources) == expected


V2: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({}, []),
    ({"cpu": {"shares": 1024}}, [("cpu.weight", "100")]),
    ({"cpu": {"shares": 1024, "idle": 1}}, [("cpu.idle", "1")]),
    ({"cpu": {"quota": 5000}}, [("cpu.max", "5000 100000")]),
    ({"cpu": {"quota": -1, "period": 1000}}, [("cpu.max", "max 1000")]),
    ({"cpu": {"burst": 10, "quota": 50}}, [("cpu.max.burst", "10"), ("cpu.max", "50 100000")]),
    ({"cpu": {"cpus": "1", "mems": "0"}}, [("cpuset.cpus", "1"), ("cpuset.mems", "0")]),
    ({"memory": {"limit": GIB}}, [("memory.max", str(GIB))]),
    ({"memory": {"limit": -1}}, [("memory.swap.max", "max"), ("memory.max", "max")]),
    (
        {"memory": {"limit": GIB, "swap": GIB, "reservation": -1}},
        [("memory.swap.max", "0"), ("memory.max", str(GIB)), ("memory.low", "max")],
    ),
    (
        {"memory": {"limit": GIB, "swap": GIB + 4096}},
        [("memory.swap.max", "4096"), ("memory.max", str(GIB))],
    ),
    ({"memory": {"limit": -1, "swap": 7}}, [("memory.swap.max", "7"), ("memory.max", "max")]),
    ({"pids": {"limit": 0}}, [("pids.max", "1")]),
    ({"blockIO": {"weight": 10}}, [("io.weight", "1")]),
    ({"blockIO": {"weight": 1000}}, [("io.weight", "10000")]),
    (
        {
            "blockIO": {
                "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 5}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 0}],
            }
        },
        [("io.max", "8:1 rbps=5"), ("io.max", "8:1 wiops=max")],
    ),
    (
        {"hugepageLimits": [{"pageSize": "1GB", "limit": 0}]},
        [("hugetlb.1GB.max", "0"), ("hugetlb.1GB.rsvd.max", "0")],
    ),
    (
        {"unified": {"memory.high": "max", "io.max": "8:0 rbps=1\n8:16 rbps=2\n"}},
        [("memory.high", "max"), ("io.max", "8:0 rbps=1"), ("io.max", "8:16 rbps=2")],
    ),
]


@pytest.mark.parametrize(("resources", "expected"), V2)
def test_v2_values(resources: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """v1's numbers in v2's units."""
    assert rows(plan_v2.plan, resources) == expected


@pytest.mark.parametrize(
    ("shares", "weight"), [(1, 1), (2, 1), (1024, 100), (262144, 10000), (300000, 10000), (512, 59)]
)
def test_cpu_shares_keep_their_meaning_as_a_weight(shares: int, weight: int) -> None:
    """Least, default and most meet."""
    assert plan_v2.cpu_weight(shares) == weight


def test_cpu_weight_never_falls() -> None:
    """More shares never give less."""
    weights = [plan_v2.cpu_weight(shares) for shares in range(2, 262145, 97)]
    assert weights == sorted(weights)


@pytest.mark.parametrize(
    ("now", "limit", "swap", "first"),
    [
        ("1000", 2000, 3000, "memory.memsw.limit_in_bytes"),  # raising: the outer one first
        ("5000", 2000, 3000, "memory.limit_in_bytes"),  # lowering: the inner one first
        ("5000", 2000, -1, "memory.memsw.limit_in_bytes"),
        ("", 2000, 3000, "memory.limit_in_bytes"),  # a new cgroup has no limit yet
    ],
)
def test_v1_memory_is_never_above_memory_and_swap(
    now: str, limit: int, swap: int, first: str
) -> None:
    """The order follows from what is set."""
    wanted = {"memory": {"limit": limit, "swap": swap}}
    assert rows(plan_v1.plan, wanted, memory__memsw__limit_in_bytes=now)[0][0] == first


def test_v1_unlimited_memory_takes_the_swap_limit_away_too() -> None:
    """Only where swap is accounted."""
    wanted = {"memory": {"limit": -1}}
    assert rows(plan_v1.plan, wanted, memory__memsw__limit_in_bytes="9") == [
        ("memory.memsw.limit_in_bytes", "-1"),
        ("memory.limit_in_bytes", "-1"),
    ]
    assert rows(plan_v1.plan, wanted) == [("memory.limit_in_bytes", "-1")]


def test_the_weight_goes_to_the_scheduler_that_is_there() -> None:
    """BFQ has a file of its own in both versions and takes v1's numbers in v2."""
    wanted = {
        "blockIO": {
            "weight": 500,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 20}],
        }
    }
    assert rows(plan_v1.plan, wanted, blkio__bfq__weight="") == [
        ("blkio.bfq.weight", "500"),
        ("blkio.bfq.weight_device", "8:0 10"),
        ("blkio.leaf_weight_device", "8:0 20"),
    ]
    assert rows(plan_v1.plan, wanted)[0] == ("blkio.weight", "500")
    assert rows(plan_v2.plan, wanted, io__bfq__weight="default 100") == [
        ("io.bfq.weight", "500"),
        ("io.bfq.weight", "8:0 10"),
    ]
    assert rows(plan_v2.plan, wanted, io__bfq__weight="100") == [("io.bfq.weight", "500")]


@pytest.mark.parametrize(
    ("plan", "resources", "files", "words"),
    [
        (plan_v1.plan, {"unified": {"a.b": "1"}}, {}, "cannot use unified on cgroup v1"),
        (plan_v1.plan, {"memory": {"swappiness": 101}}, {}, "valid range is 0-100"),
        (
            plan_v1.plan,
            {"memory": {"limit": 5, "checkBeforeUpdate": True}},
            {"memory__usage_in_bytes": "6"},
            "rejecting memory limit 5 < usage 6",
        ),
        (
            plan_v2.plan,
            {"memory": {"limit": 5, "checkBeforeUpdate": True}},
            {"memory__current": "6"},
            "rejecting memory limit 5 < usage 6",
        ),
        (plan_v2.plan, {"memory": {"swap": 5}}, {}, "without memory limit"),
        (plan_v2.plan, {"memory": {"limit": 9, "swap": 5}}, {}, "should be >= memory limit"),
        (plan_v2.plan, {"unified": {"../x.y": "1"}}, {}, "must be a file name"),
        (plan_v2.plan, {"unified": {"cgroup": "1"}}, {}, "CONTROLLER.PARAMETER"),
    ],
)
def test_what_cannot_be_done_is_said(
    plan: Callable[..., list[Any]], resources: dict[str, Any], files: dict[str, str], words: str
) -> None:
    """Before anything is written."""
    with pytest.raises(LimitRefused, match=words):
        rows(plan, resources, **files)


def test_what_a_version_has_not_got_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernel memory is gone; v2 has no real-time limits, no swappiness, no network classes."""
    said: list[str] = []
    monkeypatch.setattr(log, "warning", said.append)
    resources = {
        "memory": {"kernel": 5, "swappiness": 3, "disableOOMKiller": True},
        "cpu": {"realtimePeriod": 1},
        "network": {"classID": 1},
        "blockIO": {"leafWeight": 5},
    }
    assert rows(plan_v2.plan, resources) == []
    assert len(said) == 6
    said.clear()
    rows(plan_v1.plan, {"memory": {"kernelTCP": 5}})
    assert said == ["kernel memory limits are ignored: the kernel no longer has them"]


def test_values_that_may_wait_or_be_absent_are_marked() -> None:
    """A period that does not fit the old quota is tried again; no swap, no file."""
    policies = {write.file: write.policy for write in plan_v1.plan({"cpu": {"period": 5}}, host())}
    assert policies == {"cpu.cfs_period_us": AGAIN}
    swap = plan_v2.plan({"memory": {"limit": 5, "swap": 5}}, host())[0]
    assert swap.policy == IF_THERE


def test_only_what_must_stand_before_joining_is_written_before() -> None:
    """Processors and the real-time share."""
    resources = {"cpu": {"cpus": "0", "realtimeRuntime": 5, "shares": 7}}
    assert [write.file for write in plan_v1.before_joining(resources)] == [
        "cpuset.cpus",
        "cpu.rt_runtime_us",
    ]
