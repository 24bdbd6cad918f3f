"""linux.resources → files of cgroup v1. Pure: asks the machine only through `Cgroupfs`."""

from ocimig import log
from ocimig.runtime.cgroups.write import AGAIN, IF_THERE, Write, device, limit
from ocimig.runtime.errors import LimitRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocimig.runtime.cgroups.write import Cgroupfs

    Resources = dict[str, Any]

_THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


def plan(resources: "Resources", host: "Cgroupfs") -> "list[Write]":
    """Everything but devices, in an order in which each value is acceptable when its turn comes."""
    if resources.get("unified"):
        raise LimitRefused(
            controller="unified", reason="invalid configuration: cannot use unified on cgroup v1"
        )
    return [
        *_cpuset(resources),
        *_memory(resources.get("memory") or {}, host),
        *_cpu(resources.get("cpu") or {}),
        *_pids(resources.get("pids")),
        *_blkio(resources.get("blockIO") or {}, host),
        *_hugetlb(resources.get("hugepageLimits") or []),
        *_rdma(resources.get("rdma") or {}),
        *_network(resources.get("network") or {}),
    ]


def before_joining(resources: "Resources") -> "list[Write]":
    """The processors and memory nodes, so that nobody runs elsewhere first, and the real-time share,

    without which a real-time process cannot enter.
    """
    return [*_cpuset(resources), *_real_time(resources.get("cpu") or {})]


def _cpuset(resources: "Resources") -> "list[Write]":
    cpu = resources.get("cpu") or {}
    names = (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems"))
    return [Write("cpuset", file, cpu[name]) for name, file in names if cpu.get(name)]


def _real_time(cpu: "dict[str, Any]") -> "list[Write]":
    writes = []
    if period := limit(cpu, "realtimePeriod"):
        writes.append(Write("cpu", "cpu.rt_period_us", period, AGAIN))
    if runtime := limit(cpu, "realtimeRuntime"):
        writes.append(Write("cpu", "cpu.rt_runtime_us", runtime))
    return writes


def _cpu(cpu: "dict[str, Any]") -> "list[Write]":
    writes = []
    if shares := limit(cpu, "shares"):
        writes.append(Write("cpu", "cpu.shares", shares))
    # A period or burst that does not fit the present quota is EINVAL until the new quota stands.
    if period := limit(cpu, "period"):
        writes.append(Write("cpu", "cpu.cfs_period_us", period, AGAIN))
    if cpu.get("burst") is not None:
        writes.append(Write("cpu", "cpu.cfs_burst_us", cpu["burst"], AGAIN))
    if quota := limit(cpu, "quota"):
        writes.append(Write("cpu", "cpu.cfs_quota_us", quota))
    if cpu.get("idle") is not None:
        writes.append(Write("cpu", "cpu.idle", cpu["idle"]))
    return writes + _real_time(cpu)


def _memory(memory: "dict[str, Any]", host: "Cgroupfs") -> "list[Write]":
    if not memory:
        return []
    _check_usage(memory, host)
    writes = _limit_and_swap(limit(memory, "limit"), limit(memory, "swap"), host)
    if reservation := limit(memory, "reservation"):
        writes.append(Write("memory", "memory.soft_limit_in_bytes", reservation))
    if limit(memory, "kernel") or limit(memory, "kernelTCP"):
        log.warning("kernel memory limits are ignored: the kernel no longer has them")
    if memory.get("disableOOMKiller"):
        writes.append(Write("memory", "memory.oom_control", 1))
    swappiness = memory.get("swappiness")
    if swappiness is not None and swappiness not in {-1, 2**64 - 1}:
        if not 0 <= swappiness <= 100:
            raise LimitRefused(
                controller="memory",
                reason=f"invalid memory swappiness value: {swappiness} (valid range is 0-100)",
            )
        writes.append(Write("memory", "memory.swappiness", swappiness))
    if memory.get("useHierarchy") and host.value("memory", "memory.use_hierarchy") == "0":
        writes.append(Write("memory", "memory.use_hierarchy", 1, IF_THERE))
    return writes


def _limit_and_swap(memory: int, swap: int, host: "Cgroupfs") -> "list[Write]":
    """memory+swap may never be below memory, at no moment: which one goes first depends on what is set."""
    if memory == -1 and not swap and host.has("memory", "memory.memsw.limit_in_bytes"):
        swap = -1  # an unlimited memory below a limited memory+swap would be no change
    writes = []
    if memory:
        writes.append(Write("memory", "memory.limit_in_bytes", memory))
    if swap:
        writes.append(Write("memory", "memory.memsw.limit_in_bytes", swap))
    if memory and swap:
        now = host.value("memory", "memory.memsw.limit_in_bytes")
        if swap == -1 or (now and int(now) < swap):
            writes.reverse()
    return writes


def _check_usage(memory: "dict[str, Any]", host: "Cgroupfs") -> None:
    wanted = limit(memory, "limit")
    if not memory.get("checkBeforeUpdate") or wanted <= 0:
        return
    usage = host.value("memory", "memory.usage_in_bytes")
    if usage and int(usage) > wanted:
        raise LimitRefused(
            controller="memory", reason=f"rejecting memory limit {wanted} < usage {usage}"
        )


def _pids(pids: "dict[str, Any] | None") -> "list[Write]":
    if not pids or pids.get("limit") is None:
        return []
    return [Write("pids", "pids.max", pids_max(pids["limit"]))]


def pids_max(wanted: int) -> str:
    """-1 is no limit. 0 becomes 1: systemd knows no 0, and nobody could tell the two apart."""
    return "max" if wanted < 0 else str(max(wanted, 1))


def _blkio(block: "dict[str, Any]", host: "Cgroupfs") -> "list[Write]":
    if not block:
        return []
    # the weight is the I/O scheduler's: CFQ had the short name, BFQ has its own
    bfq = "bfq." if host.has("blkio", "blkio.bfq.weight") else ""
    writes = []
    if weight := limit(block, "weight"):
        writes.append(Write("blkio", f"blkio.{bfq}weight", weight))
    if weight := limit(block, "leafWeight"):
        writes.append(Write("blkio", "blkio.leaf_weight", weight))
    for row in block.get("weightDevice") or []:
        if weight := limit(row, "weight"):
            writes.append(Write("blkio", f"blkio.{bfq}weight_device", f"{device(row)} {weight}"))
        if weight := limit(row, "leafWeight"):
            writes.append(Write("blkio", "blkio.leaf_weight_device", f"{device(row)} {weight}"))
    for name, file in _THROTTLES:
        rows = block.get(name) or []
        writes += [Write("blkio", file, f"{device(row)} {limit(row, 'rate')}") for row in rows]
    return writes


def _hugetlb(rows: "list[dict[str, Any]]") -> "list[Write]":
    writes = []
    for row in rows:
        size, value = row["pageSize"], row.get("limit") or 0
        writes.append(Write("hugetlb", f"hugetlb.{size}.limit_in_bytes", value))
        # reservations are counted on their own since Linux 5.7
        writes.append(Write("hugetlb", f"hugetlb.{size}.rsvd.limit_in_bytes", value, IF_THERE))
    return writes


def _rdma(rdma: "dict[str, Any]") -> "list[Write]":
    return [Write("rdma", "rdma.max", value) for value in rdma_values(rdma)]


def rdma_values(rdma: "dict[str, Any]") -> "list[str]":
    """The lines of rdma.max, the same in v1 and v2."""
    lines = []
    for name, row in rdma.items():
        words = [name]
        if row.get("hcaHandles") is not None:
            words.append(f"hca_handle={row['hcaHandles']}")
        if row.get("hcaObjects") is not None:
            words.append(f"hca_object={row['hcaObjects']}")
        if len(words) > 1:
            lines.append(" ".join(words))
    return lines


def _network(network: "dict[str, Any]") -> "list[Write]":
    writes = []
    if classid := limit(network, "classID"):
        writes.append(Write("net_cls", "net_cls.classid", classid))
    for row in network.get("priorities") or []:
        value = f"{row['name']} {row.get('priority') or 0}"
        writes.append(Write("net_prio", "net_prio.ifpriomap", value))
    return writes
