"""linux.resources → files of cgroup v2, with its values where the two versions count differently. Pure."""

from ocimig import log
from ocimig.runtime.cgroups.plan_v1 import pids_max, rdma_values
from ocimig.runtime.cgroups.write import AGAIN, IF_THERE, Write, device, limit
from ocimig.runtime.errors import LimitRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocimig.runtime.cgroups.write import Cgroupfs

    Resources = dict[str, Any]

_THROTTLES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)
_DEFAULT_PERIOD = 100000  # microseconds; cpu.max of the kernel's documentation


def plan(resources: "Resources", host: "Cgroupfs") -> "list[Write]":
    """Everything but devices, in an order in which each value is acceptable when its turn comes."""
    cpu = resources.get("cpu") or {}
    _warn(resources, cpu)
    return [
        *_pids(resources.get("pids")),
        *_memory(resources.get("memory") or {}, host),
        *_io(resources.get("blockIO") or {}, host),
        *_cpu(cpu),
        *_cpuset(cpu),
        *_hugetlb(resources.get("hugepageLimits") or []),
        *[Write("rdma", "rdma.max", value) for value in rdma_values(resources.get("rdma") or {})],
        *_unified(resources.get("unified") or {}),
    ]


def _warn(resources: "Resources", cpu: "dict[str, Any]") -> None:
    memory = resources.get("memory") or {}
    if limit(memory, "kernel") or limit(memory, "kernelTCP"):
        log.warning("kernel memory limits are ignored: cgroup v2 has none")
    if memory.get("disableOOMKiller"):
        log.warning(
            "memory.disableOOMKiller is ignored: cgroup v2 cannot switch the OOM killer off"
        )
    if memory.get("swappiness") not in {None, -1, 2**64 - 1}:
        log.warning("memory.swappiness is ignored: cgroup v2 has none")
    if limit(cpu, "realtimePeriod") or limit(cpu, "realtimeRuntime"):
        log.warning("real-time cpu limits are ignored: cgroup v2 has none")
    network = resources.get("network") or {}
    if limit(network, "classID") or network.get("priorities"):
        log.warning("network class and priorities are ignored: cgroup v2 has none")


def _pids(pids: "dict[str, Any] | None") -> "list[Write]":
    if not pids or pids.get("limit") is None:
        return []
    return [Write("pids", "pids.max", pids_max(pids["limit"]))]


def _memory(memory: "dict[str, Any]", host: "Cgroupfs") -> "list[Write]":
    if not memory:
        return []
    wanted, both = limit(memory, "limit"), limit(memory, "swap")
    if memory.get("checkBeforeUpdate"):
        _check_usage(wanted, both, host)
    writes = []
    swap = swap_of(wanted, both)
    if swap:
        # without swap in the kernel there is no file: then neither "max" nor "0" needs one
        policy = IF_THERE if swap in {"max", "0"} else 0
        writes.append(Write("memory", "memory.swap.max", swap, policy))
    if wanted:
        writes.append(Write("memory", "memory.max", _bytes(wanted)))
    if reservation := limit(memory, "reservation"):
        writes.append(Write("memory", "memory.low", _bytes(reservation)))
    return writes


def swap_of(memory: int, both: int) -> str:
    """memory.swap.max from memory and memory+swap; "" leaves it alone."""
    if both == -1 or (memory == -1 and not both):
        return "max"
    if not both:
        return ""
    if memory == -1:
        return _bytes(both)
    if not memory:
        raise LimitRefused(
            controller="memory", reason="unable to set swap limit without memory limit"
        )
    if memory < 0:
        raise LimitRefused(controller="memory", reason=f"invalid memory value: {memory}")
    if both < memory:
        raise LimitRefused(
            controller="memory", reason="memory+swap limit should be >= memory limit"
        )
    return str(both - memory)


def _bytes(value: int) -> str:
    return "max" if value == -1 else str(value)


def _check_usage(memory: int, both: int, host: "Cgroupfs") -> None:
    text = host.value("memory", "memory.current")
    if not text:
        return
    usage = int(text)
    for what, wanted in (("memory+swap", both), ("memory", memory)):
        if 0 < wanted < usage:
            raise LimitRefused(
                controller="memory", reason=f"rejecting {what} limit {wanted} < usage {usage}"
            )


def _io(block: "dict[str, Any]", host: "Cgroupfs") -> "list[Write]":
    writes = []
    bfq = bool(block) and host.has("io", "io.bfq.weight")
    if weight := limit(block, "weight"):
        if bfq:
            writes.append(Write("io", "io.bfq.weight", weight))
        else:
            writes.append(Write("io", "io.weight", io_weight(weight)))
    # a single number in the file: a kernel before 5.4, which knows no weight per device
    if bfq and not host.value("io", "io.bfq.weight").isdigit():
        rows = [(device(row), limit(row, "weight")) for row in block.get("weightDevice") or []]
        writes += [
            Write("io", "io.bfq.weight", f"{name} {weight}") for name, weight in rows if weight
        ]
    if limit(block, "leafWeight"):
        log.warning("blockIO.leafWeight is ignored: cgroup v2 has none")
    for name, key in _THROTTLES:
        for row in block.get(name) or []:
            # 0 took a v1 limit away; v2 says "max" and refuses 0
            rate = limit(row, "rate") or "max"
            writes.append(Write("io", "io.max", f"{device(row)} {key}={rate}"))
    return writes


def io_weight(weight: int) -> int:
    """blkio's 10..1000 on io's 1..10000, linearly."""
    return 1 + (max(weight, 10) - 10) * 9999 // 990


def cpu_weight(shares: int) -> int:
    """cpu.shares' 2..262144 on cpu.weight's 1..10000, so that the defaults 1024 and 100 meet.

    The curve is the one runc, crun and the kubelet agreed on in 2025; the linear map before it gave
    the default of 1024 shares a weight of 39.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    import math

    log2 = math.log2(shares)
    return math.ceil(10 ** ((log2 * log2 + 125 * log2) / 612 - 7 / 34))


def _cpu(cpu: "dict[str, Any]") -> "list[Write]":
    writes = []
    if cpu.get("idle") is not None:
        writes.append(Write("cpu", "cpu.idle", cpu["idle"]))
    shares = limit(cpu, "shares")
    if shares and cpu.get("idle") != 1:  # an idle cgroup has no weight, and refuses one
        writes.append(Write("cpu", "cpu.weight", cpu_weight(shares)))
    quota, period = limit(cpu, "quota"), limit(cpu, "period")
    if cpu.get("burst") is not None:
        # above the present quota it is EINVAL until the new quota stands
        writes.append(Write("cpu", "cpu.max.burst", cpu["burst"], AGAIN))
    if quota or period:
        value = quota if quota > 0 else "max"
        writes.append(Write("cpu", "cpu.max", f"{value} {period or _DEFAULT_PERIOD}"))
    return writes


def _cpuset(cpu: "dict[str, Any]") -> "list[Write]":
    names = (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems"))
    return [Write("cpuset", file, cpu[name]) for name, file in names if cpu.get(name)]


def _hugetlb(rows: "list[dict[str, Any]]") -> "list[Write]":
    writes = []
    for row in rows:
        size, value = row["pageSize"], row.get("limit") or 0
        writes.append(Write("hugetlb", f"hugetlb.{size}.max", value))
        writes.append(Write("hugetlb", f"hugetlb.{size}.rsvd.max", value, IF_THERE))
    return writes


def _unified(unified: "dict[str, str]") -> "list[Write]":
    writes = []
    for name, value in unified.items():
        controller, dot, parameter = name.partition(".")
        if "/" in name:
            raise LimitRefused(
                controller="unified",
                reason=f'unified resource "{name}" must be a file name (no slashes)',
            )
        if not (controller and dot and parameter):
            raise LimitRefused(
                controller="unified",
                reason=f'unified resource "{name}" must be in the form CONTROLLER.PARAMETER',
            )
        # each line is a request of its own: io.max takes one device a write
        writes += [Write(controller, name, line) for line in value.strip("\n").split("\n")]
    return writes


def needs(resources: "Resources") -> bool:
    """Whether a controller that is no threaded one is asked for: such a cgroup must be a domain."""
    domain = ("memory", "blockIO", "hugepageLimits")
    return any(resources.get(name) for name in domain) or bool(resources.get("cpu"))
