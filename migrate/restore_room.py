"""The limits of a container while CRIU works in its cgroup, and those it gets afterwards.

CRIU and its helpers are charged to the container, from which the restored processes must be born. Near a
limit of its own that would cost the container its life: the kernel's OOM killer takes CRIU or what it has
restored, fork(2) fails, and a small share of the processor makes everybody wait for CRIU.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ocimig import log
from ocimig.errors import OcimigError

if TYPE_CHECKING:
    from ocimig.runtime.cgroups import Cgroup

BYTES = 128 << 20  # CRIU needs 10 to 30 MiB, and page tables of its own
PROCESSES = 64
Limits = Callable[[Mapping[str, Any]], dict[str, Any]]
_UNIFIED = ("memory.max", "memory.high", "pids.max", "cpu.max")


def wide(resources: Mapping[str, Any]) -> dict[str, Any]:
    """linux.resources with room for CRIU. Still bounded: whoever restores may die before `exact`."""
    found = dict(resources)
    if memory := found.get("memory"):
        more = {
            name: memory[name] + BYTES
            for name in ("limit", "swap")
            if isinstance(memory.get(name), int) and memory[name] > 0
        }
        found["memory"] = {**memory, **more}
    if pids := found.get("pids"):
        limit = pids.get("limit")
        if isinstance(limit, int) and limit > 0:
            found["pids"] = {**pids, "limit": limit + PROCESSES}
    if cpu := found.get("cpu"):
        found["cpu"] = {name: cpu[name] for name in cpu if name not in ("quota", "burst")}
    if unified := found.get("unified"):
        found["unified"] = {name: unified[name] for name in unified if name not in _UNIFIED}
    return found


def processor(resources: Mapping[str, Any]) -> dict[str, Any]:
    """What of `wide` is taken back as soon as the container runs: its share of the processor."""
    cpu = resources.get("cpu") or {}
    names = ("quota", "period", "burst")
    return {"cpu": {n: cpu[n] for n in names if n in cpu}} if cpu.get("quota") else {}


def exact(resources: Mapping[str, Any]) -> dict[str, Any]:
    """What is taken back when CRIU has left: everything that `wide` changed."""
    changed = wide(resources)
    found = {
        name: resources[name]
        for name in ("memory", "pids")
        if resources.get(name) and changed[name] != resources[name]
    }
    unified = resources.get("unified") or {}
    if set(_UNIFIED) & set(unified):
        found["unified"] = {name: unified[name] for name in unified if name in _UNIFIED}
    return {**found, **processor(resources)}


def take_back(group: "Cgroup", some: Limits, spec: Mapping[str, Any], id: str) -> None:
    """Set `exact` or `processor` of a container that runs: that it could not be set is nothing to kill it for."""
    resources = some((spec.get("linux") or {}).get("resources") or {})
    if not resources or not group.pids():
        return  # it has ended already
    try:
        group.apply(resources, update=True)
    except (OcimigError, OSError) as error:
        log.error(f"container {id} runs with wider limits than its own: {error}")
