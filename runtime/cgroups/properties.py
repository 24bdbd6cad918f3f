"""linux.resources → properties of a systemd unit, as (name, (D-Bus type, value)). Pure.

Only what systemd would otherwise overwrite at its next reload. The files are written as well.
"""

from ocimig.runtime.cgroups import devices
from ocimig.runtime.cgroups.plan_v2 import cpu_weight, swap_of
from ocimig.runtime.cgroups.stats import ranges
from ocimig.runtime.cgroups.write import limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = tuple[str, tuple[str, Any]]
    Resources = dict[str, Any]

INFINITY = (1 << 64) - 1
_DEFAULT_PERIOD = 100000
_PERCENT = 10000  # CPUQuotaPerSecUSec counts in whole percents of a processor


def of(resources: "Resources", version: int, *, update: bool) -> "list[Row]":
    """The properties for cgroup v1 or v2."""
    rows = _memory(resources.get("memory") or {}, version)
    rows += _cpu(resources.get("cpu") or {}, version)
    pids = resources.get("pids") or {}
    if pids.get("limit") is not None:
        rows.append(("TasksMax", ("t", _most(max(pids["limit"], 1) if pids["limit"] >= 0 else -1))))
    if version == 1 and (weight := limit(resources.get("blockIO"), "weight")):
        rows.append(("BlockIOWeight", ("t", weight)))
    if not update or resources.get("devices") is not None:
        rows += _devices(devices.settle(resources.get("devices")))
    return rows


def _most(value: int) -> int:
    return INFINITY if value < 0 else value


def _memory(memory: "dict[str, Any]", version: int) -> "list[Row]":
    rows: list[Row] = []
    wanted = limit(memory, "limit")
    if wanted:
        rows.append(("MemoryLimit" if version == 1 else "MemoryMax", ("t", _most(wanted))))
    if version == 1:
        return rows
    if reservation := limit(memory, "reservation"):
        rows.append(("MemoryLow", ("t", _most(reservation))))
    if swap := swap_of(wanted, limit(memory, "swap")):
        rows.append(("MemorySwapMax", ("t", INFINITY if swap == "max" else int(swap))))
    return rows


def _cpu(cpu: "dict[str, Any]", version: int) -> "list[Row]":
    rows: list[Row] = []
    shares = limit(cpu, "shares")
    if version == 1 and shares:
        rows.append(("CPUShares", ("t", shares)))
    elif shares and cpu.get("idle") != 1:
        rows.append(("CPUWeight", ("t", cpu_weight(shares))))
    elif version == 2 and cpu.get("idle") == 1:
        rows.append(("CPUWeight", ("t", 0)))  # systemd's word for cpu.idle, since 252
    quota, period = limit(cpu, "quota"), limit(cpu, "period")
    if period:
        rows.append(("CPUQuotaPeriodUSec", ("t", period)))
    if quota or period:
        rows.append(("CPUQuotaPerSecUSec", ("t", per_second(quota, period or _DEFAULT_PERIOD))))
    if version == 2:
        for name, words in (("AllowedCPUs", "cpus"), ("AllowedMemoryNodes", "mems")):
            if cpu.get(words):
                rows.append((name, ("ay", mask(ranges(cpu[words])))))
    return rows


def per_second(quota: int, period: int) -> int:
    """Microseconds of processor time a second, rounded up: the unit may not be below what the file says."""
    if quota <= 0:
        return INFINITY
    exact = quota * 1000000 // period
    return (exact + _PERCENT - 1) // _PERCENT * _PERCENT


def mask(numbers: "list[int]") -> bytes:
    """Numbers as a bit mask, the lowest eight in the first byte."""
    bits = 0
    for number in numbers:
        bits |= 1 << number
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def _devices(allowed: "devices.Allowed") -> "list[Row]":
    if allowed.everything:
        # systemd has no list of what is denied; our own program in the cgroup has
        policy = "strict" if allowed.exceptions else "auto"
        return [("DeviceAllow", ("a(ss)", [])), ("DevicePolicy", ("s", policy))]
    entries = []
    for (kind, major, minor), access in allowed.exceptions.items():
        word = "block" if kind == "b" else "char"
        if major == devices.ANY:
            if minor != devices.ANY:
                continue  # "any major" is not in systemd's language
            entries.append((f"{word}-*", access))
        elif minor == devices.ANY:
            entries.append((f"{word}-{major}", access))
        else:
            entries.append((f"/dev/{word}/{major}:{minor}", access))
    return [
        ("DeviceAllow", ("a(ss)", [])),  # empties the list of an update
        ("DevicePolicy", ("s", "strict")),
        ("DeviceAllow", ("a(ss)", entries)),
    ]
