"""Cgroups of a container: which driver this machine needs, and how to find one again. Makes nothing itself.

    cgroup = open_cgroup(spec["linux"], id)    decides, touches nothing
    cgroup.create(pid)                         directories, and the process in them
    cgroup.apply(resources)                    limits and devices
    from_facts(state.cgroups)                  the same one, later

The driver that the machine does not need is never imported.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocimig.runtime.cgroups.layout import Hierarchy, Layout
    from ocimig.runtime.cgroups.systemd import SystemdCgroup
    from ocimig.runtime.cgroups.v1 import CgroupV1
    from ocimig.runtime.cgroups.v2 import CgroupV2

    Cgroup = CgroupV1 | CgroupV2 | SystemdCgroup

_NOT_CONTROLLERS = ("driver", "mountpoint", "slice", "unit", "user")


def open_cgroup(
    spec_linux: "dict[str, Any]", id: str, *, systemd: bool = False, rootless: bool = False
) -> "Cgroup":
    """The cgroup that config.json asks for, on this machine. Nothing is made yet."""
    from ocimig.runtime.cgroups import layout

    here = layout.read()
    wanted = spec_linux.get("cgroupsPath") or ""
    resources = spec_linux.get("resources") or {}
    if systemd:
        from ocimig.runtime.cgroups import systemd as manager

        return manager.open_unit(here, wanted, id, resources, rootless=rootless)
    name = clean(wanted, id)
    return at(here, name, explicit=bool(wanted), rootless=rootless, resources=resources)


def clean(wanted: str, id: str) -> str:
    """cgroupsPath without dots and double slashes, never above where it starts; the id where it is empty."""
    from ocimig.runtime.cgroups.errors import InvalidCgroupsPath

    if not wanted:
        return id
    inside = os.path.normpath("/" + wanted).strip("/")
    if not inside:
        raise InvalidCgroupsPath(path=wanted, reason="a container cannot be the root of a hierarchy")
    return "/" + inside if wanted.startswith("/") else inside


def at(
    here: "Layout", name: str, *, explicit: bool, rootless: bool, resources: "dict[str, Any]"
) -> "CgroupV1 | CgroupV2":
    """The cgroup `name` of each hierarchy: from its root, or from our own cgroup when it is relative."""
    if here.version == 2 and here.unified is not None:
        from ocimig.runtime.cgroups.v2 import CgroupV2

        mountpoint = here.unified.mountpoint
        path = mountpoint + name if name.startswith("/") else _beside(here.unified) + "/" + name
        return CgroupV2(
            path, mountpoint, explicit=explicit, rootless=rootless, resources=resources
        )
    from ocimig.runtime.cgroups.v1 import CgroupV1

    paths = {}
    for hierarchy in [*here.v1, *([here.unified] if here.unified else [])]:
        path = hierarchy.mountpoint + name if name.startswith("/") else hierarchy.here() + "/" + name
        paths.update(dict.fromkeys(hierarchy.controllers, path))
    return CgroupV1(paths, explicit=explicit, rootless=rootless, resources=resources)


def _beside(hierarchy: "Hierarchy") -> str:
    """The parent of our own v2 cgroup: ours holds processes, so no controller could be on below it."""
    own = hierarchy.here()
    return own if own == hierarchy.mountpoint else os.path.dirname(own)


def from_facts(facts: "dict[str, str]", *, rootless: bool = False) -> "Cgroup":
    """The cgroup whose facts() these are. Nothing is checked: it may be gone."""
    paths = {name: path for name, path in facts.items() if name not in _NOT_CONTROLLERS}
    inner: CgroupV1 | CgroupV2
    if "mountpoint" in facts:
        from ocimig.runtime.cgroups.v2 import CgroupV2

        inner = CgroupV2(paths.get("unified", ""), facts["mountpoint"], rootless=rootless)
        inner.joined = "unified" in paths
    else:
        from ocimig.runtime.cgroups.v1 import CgroupV1

        inner = CgroupV1(paths, rootless=rootless)
    if facts.get("unit"):
        from ocimig.runtime.cgroups.systemd import SystemdCgroup

        return SystemdCgroup(inner, facts["unit"], facts["slice"], user=bool(facts.get("user")))
    return inner
