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
    from typing import Any, TypeAlias

    from ocimig.runtime.cgroups.layout import Hierarchy, Layout
    from ocimig.runtime.cgroups.systemd import SystemdCgroup
    from ocimig.runtime.cgroups.v1 import CgroupV1
    from ocimig.runtime.cgroups.v2 import CgroupV2

    Cgroup: TypeAlias = CgroupV1 | CgroupV2 | SystemdCgroup

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
    from ocimig.runtime.errors import InvalidCgroupsPath

    if not wanted:
        return id
    inside = os.path.normpath("/" + wanted).strip("/")
    if not inside:
        raise InvalidCgroupsPath(
            path=wanted, reason="a container cannot be the root of a hierarchy"
        )
    return "/" + inside if wanted.startswith("/") else inside


def at(
    here: "Layout", name: str, *, explicit: bool, rootless: bool, resources: "dict[str, Any]"
) -> "CgroupV1 | CgroupV2":
    """The cgroup `name` of each hierarchy: from its root, or from our own cgroup when it is relative."""
    if here.version == 2 and here.unified is not None:
        from ocimig.runtime.cgroups.v2 import CgroupV2

        mountpoint = here.unified.mountpoint
        path = mountpoint + name if name.startswith("/") else _beside(here.unified) + "/" + name
        return CgroupV2(path, mountpoint, explicit=explicit, rootless=rootless, resources=resources)
    from ocimig.runtime.cgroups.v1 import CgroupV1

    paths = {}
    for hierarchy in [*here.v1, *([here.unified] if here.unified else [])]:
        path = (
            hierarchy.mountpoint + name if name.startswith("/") else hierarchy.here() + "/" + name
        )
        paths.update(dict.fromkeys(hierarchy.controllers, path))
    return CgroupV1(paths, explicit=explicit, rootless=rootless, resources=resources)


def _beside(hierarchy: "Hierarchy") -> str:
    """The parent of our own v2 cgroup: ours holds processes, so no controller could be on below it."""
    own = hierarchy.here()
    return own if own == hierarchy.mountpoint else os.path.dirname(own)


def from_facts(facts: "dict[str, str]", *, rootless: bool = False) -> "Cgroup":
    """The cgroup whose facts() these are. Nothing is checked: it may be gone."""
    paths = {name: path for name, path in facts.items() if name not in _NOT_CONTROLLERS}
    inner = _v2(facts, paths, rootless) if "mountpoint" in facts else _v1(paths, rootless)
    if facts.get("unit"):
        from ocimig.runtime.cgroups.systemd import SystemdCgroup

        return SystemdCgroup(inner, facts["unit"], facts["slice"], user=bool(facts.get("user")))
    return inner


def _v1(paths: "dict[str, str]", rootless: bool) -> "CgroupV1":
    from ocimig.runtime.cgroups.v1 import CgroupV1

    return CgroupV1(paths, rootless=rootless)


def _v2(facts: "dict[str, str]", paths: "dict[str, str]", rootless: bool) -> "CgroupV2":
    from ocimig.runtime.cgroups.v2 import CgroupV2

    cgroup = CgroupV2(paths.get("unified", ""), facts["mountpoint"], rootless=rootless)
    cgroup.joined = "unified" in paths
    return cgroup


def frozen(facts: "dict[str, str]") -> bool:
    """from_facts(facts).frozen() without loading a driver: `state`, the verb callers poll, asks only this."""
    freezer = facts.get("freezer")
    if freezer is None:
        return "unified" in facts and _word(facts["unified"] + "/cgroup.freeze") == b"1"
    # FROZEN also where only a cgroup above is; FREEZING on the way there
    if _word(freezer + "/freezer.state") not in {b"FROZEN", b"FREEZING"}:
        return False
    return _word(freezer + "/freezer.self_freezing") != b"0"


def _word(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.read(fd, 64).strip()
    except OSError:  # the cgroup is being removed
        return b""
    finally:
        os.close(fd)
