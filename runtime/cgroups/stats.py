"""What a container's cgroups have used, in the form of runc's events. Reads only."""

import os

from ocimig.runtime.cgroups import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NO_LIMIT = (1 << 64) - 1
_CPUSET_NUMBERS = (
    ("cpu_exclusive", "cpu_exclusive"),
    ("mem_hardwall", "mem_hardwall"),
    ("mem_exclusive", "mem_exclusive"),
    ("memory_migrate", "memory_migrate"),
    ("memory_spread_page", "memory_spread_page"),
    ("memory_spread_slab", "memory_spread_slab"),
    ("memory_pressure", "memory_pressure"),
    ("sched_load_balance", "sched_load_balance"),
    ("sched_relax_domain_level", "sched_relax_domain_level"),
)
_BLKIO = (
    ("ioServiceBytesRecursive", "io_service_bytes_recursive"),
    ("ioServicedRecursive", "io_serviced_recursive"),
)
_IO_STAT = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}


def number(path: str, default: int = 0) -> int:
    """A file with one number; "max" is the largest one."""
    text = tree.read(path)
    if text == "max":
        return _NO_LIMIT
    try:
        return int(text)
    except ValueError:
        return default


def table(path: str) -> "dict[str, int]":
    """A file of `name number` lines."""
    rows = (line.split() for line in tree.read(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def ranges(text: str) -> "list[int]":
    """A kernel list of numbers: 0-2,7 → 0 1 2 7."""
    found: list[int] = []
    for part in text.split(",") if text else []:
        low, _, high = part.partition("-")
        found.extend(range(int(low), int(high or low) + 1))
    return found


def v1(paths: "dict[str, str]") -> "dict[str, Any]":
    """All controllers that are there; a section without its controller holds zeros."""
    stats: dict[str, Any] = {"cpu": _cpu_v1(paths)}
    if "cpuset" in paths:
        stats["cpuset"] = _cpuset(paths["cpuset"])
    stats["memory"] = _memory_v1(paths["memory"]) if "memory" in paths else {}
    stats["pids"] = _pids(paths["pids"]) if "pids" in paths else {}
    stats["blkio"] = _blkio_v1(paths["blkio"]) if "blkio" in paths else {}
    stats["hugetlb"] = _hugetlb(paths.get("hugetlb", ""), "usage_in_bytes", "max_usage_in_bytes")
    stats["network_interfaces"] = None
    return stats


def _cpu_v1(paths: "dict[str, str]") -> "dict[str, Any]":
    usage: dict[str, Any] = {"total": 0, "kernel": 0, "user": 0}
    if "cpuacct" in paths:
        path = paths["cpuacct"]
        ticks = table(f"{path}/cpuacct.stat")
        nanoseconds = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        per_cpu = tree.read(f"{path}/cpuacct.usage_percpu").split()
        rows = [row.split() for row in tree.read(f"{path}/cpuacct.usage_all").splitlines()[1:]]
        usage = {
            "total": number(f"{path}/cpuacct.usage"),
            "percpu": [int(word) for word in per_cpu],
            "percpu_kernel": [int(row[2]) for row in rows],
            "percpu_user": [int(row[1]) for row in rows],
            "kernel": ticks.get("system", 0) * nanoseconds,
            "user": ticks.get("user", 0) * nanoseconds,
        }
    held = table(f"{paths['cpu']}/cpu.stat") if "cpu" in paths else {}
    return {"usage": usage, "throttling": _throttling(held, "throttled_time", 1)}


def _throttling(held: "dict[str, int]", time: str, factor: int) -> "dict[str, int]":
    return {
        "periods": held.get("nr_periods", 0),
        "throttledPeriods": held.get("nr_throttled", 0),
        "throttledTime": held.get(time, 0) * factor,
    }


def _cpuset(path: str) -> "dict[str, Any]":
    section: dict[str, Any] = {
        "cpus": ranges(tree.read(f"{path}/cpuset.cpus")),
        "mems": ranges(tree.read(f"{path}/cpuset.mems")),
    }
    for name, file in _CPUSET_NUMBERS:
        section[name] = number(f"{path}/cpuset.{file}")
    return section


def _memory_v1(path: str) -> "dict[str, Any]":
    raw = table(f"{path}/memory.stat")
    return {
        "cache": raw.get("cache", 0),
        "usage": _memory_part(path, "memory"),
        "swap": _memory_part(path, "memory.memsw"),
        "kernel": _memory_part(path, "memory.kmem"),
        "kernelTCP": _memory_part(path, "memory.kmem.tcp"),
        "raw": raw,
    }


def _memory_part(path: str, name: str) -> "dict[str, int]":
    return {
        "limit": number(f"{path}/{name}.limit_in_bytes"),
        "usage": number(f"{path}/{name}.usage_in_bytes"),
        "max": number(f"{path}/{name}.max_usage_in_bytes"),
        "failcnt": number(f"{path}/{name}.failcnt"),
    }


def _pids(path: str) -> "dict[str, int]":
    limit = number(f"{path}/pids.max")
    return {
        "current": number(f"{path}/pids.current"),
        "limit": 0 if limit == _NO_LIMIT else limit,  # runc's word for no limit
    }


def _blkio_v1(path: str) -> "dict[str, Any]":
    section = {}
    for name, file in _BLKIO:
        rows = _blkio_rows(f"{path}/blkio.bfq.{file}")
        section[name] = rows or _blkio_rows(f"{path}/blkio.throttle.{file}")
    return section


def _blkio_rows(path: str) -> "list[dict[str, Any]]":
    rows = []
    for line in tree.read(path).splitlines():
        words = line.replace(":", " ").split()
        if len(words) == 4:  # the last line is a total without a device
            major, minor, op, value = words
            rows.append({"major": int(major), "minor": int(minor), "op": op, "value": int(value)})
    return rows


def _hugetlb(path: str, usage: str, most: str) -> "dict[str, dict[str, int]]":
    section: dict[str, dict[str, int]] = {}
    try:
        names = os.listdir(path) if path else []
    except FileNotFoundError:
        return section
    for name in sorted(names):
        size = name.removeprefix("hugetlb.").removesuffix("." + usage)
        if name == f"hugetlb.{size}.{usage}" and "rsvd" not in size:
            section[size] = {
                "usage": number(f"{path}/{name}"),
                "max": number(f"{path}/hugetlb.{size}.{most}"),
                "failcnt": number(f"{path}/hugetlb.{size}.failcnt")
                or table(f"{path}/hugetlb.{size}.events").get("max", 0),
            }
    return section


def v2(path: str) -> "dict[str, Any]":
    """The same form as v1, with what v2 counts."""
    cpu = table(f"{path}/cpu.stat")
    stats: dict[str, Any] = {
        "cpu": {
            "usage": {
                "total": cpu.get("usage_usec", 0) * 1000,
                "kernel": cpu.get("system_usec", 0) * 1000,
                "user": cpu.get("user_usec", 0) * 1000,
            },
            "throttling": _throttling(cpu, "throttled_usec", 1000),
            **_pressure(path, "cpu"),
        },
        "memory": {**_memory_v2(path), **_pressure(path, "memory")},
        "pids": _pids(path),
        "blkio": {**_blkio_v2(path), **_pressure(path, "io")},
        "hugetlb": _hugetlb(path, "current", "max"),
        "network_interfaces": None,
    }
    if not os.path.exists(f"{path}/pids.current"):  # the controller is off: count what is there
        stats["pids"] = {"current": len(tree.pids(path)), "limit": 0}
    return stats


def _memory_v2(path: str) -> "dict[str, Any]":
    raw = table(f"{path}/memory.stat")
    usage, swap = _part_v2(path, "memory"), _part_v2(path, "memory.swap")
    # v1, and so runc's form, counts memory and swap together
    if swap["limit"] != _NO_LIMIT and usage["limit"] != _NO_LIMIT:
        swap["limit"] += usage["limit"]
    swap["usage"] += usage["usage"]
    swap["max"] = 0
    events = table(f"{path}/memory.events")
    usage["failcnt"] = events.get("max", 0)
    return {"cache": raw.get("file", 0), "usage": usage, "swap": swap, "raw": raw}


def _part_v2(path: str, name: str) -> "dict[str, int]":
    return {
        "limit": number(f"{path}/{name}.max"),
        "usage": number(f"{path}/{name}.current"),
        "max": number(f"{path}/{name}.peak"),
        "failcnt": 0,
    }


def _blkio_v2(path: str) -> "dict[str, list[dict[str, Any]]]":
    section: dict[str, list[dict[str, Any]]] = {
        "ioServiceBytesRecursive": [],
        "ioServicedRecursive": [],
    }
    for line in tree.read(f"{path}/io.stat").splitlines():
        device, _, rest = line.partition(" ")
        major, _, minor = device.partition(":")
        for word in rest.split():
            key, _, value = word.partition("=")
            if key in _IO_STAT and major.isdigit() and minor.isdigit():
                name, op = _IO_STAT[key]
                row = {"major": int(major), "minor": int(minor), "op": op, "value": int(value)}
                section[name].append(row)
    return section


def _pressure(path: str, name: str) -> "dict[str, Any]":
    """{"psi": {"some": {"avg10": …, "avg60": …, "avg300": …, "total": …}, "full": …}} where the kernel has it."""
    try:
        text = tree.read(f"{path}/{name}.pressure")
    except OSError:  # EOPNOTSUPP: psi=0 on the kernel's command line
        return {}
    section = {}
    for line in text.splitlines():
        kind, *words = line.split()
        values = dict(word.split("=", 1) for word in words)
        section[kind] = {
            name: int(value) if name == "total" else float(value) for name, value in values.items()
        }
    return {"psi": section} if section else {}
