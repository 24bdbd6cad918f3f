"""Which mounts of a container CRIU shall not save, and where they come from when it is restored.

CRIU saves mounts whose file systems live in the container (proc, sysfs, devpts, mqueue) and binds of
its own root. Everything else is declared external: it is bound at restore from a place that we name.

    kind      the mount is                                  at restore it is bound from
    bind      of a file system of the host                   `source` on the host
    null      the host's /dev/null (a masked file)           /dev/null
    cgroup    of a cgroup hierarchy                          the container's new cgroup there
    notify    the directory of the sd_notify socket          the container's new state directory
    tmpfs     a tmpfs of the container that holds no data    a tmpfs that we make, with the same names

Pure but for `source_of`; what a tmpfs holds is looked at in `tmpfs`.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ocimig.migrate.mountinfo import Mount, below, host_path

ATTRIBUTES = {"ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "nosymfollow"}
OWN = {"proc", "sysfs", "devpts", "mqueue"}  # made anew by CRIU from what it saved
CGROUPS = {"cgroup", "cgroup2"}
NOTIFY = "/run/notify"


@dataclass(frozen=True, slots=True)
class External:
    """One mount that CRIU leaves to us. `target` is inside the container, `key` names it in the images."""

    key: str
    kind: str
    target: str
    source: str = ""
    below: str = ""  # cgroup: the part below the container's own cgroup
    controller: str = ""
    attributes: tuple[str, ...] = ()  # ro, nosuid, … of the mount itself
    slave: bool = False  # mounts that the host makes there later shall appear in the container
    options: tuple[str, ...] = ()  # tmpfs: size=, mode= and so on
    content: tuple[dict[str, Any], ...] = field(default=())

    @property
    def nowhere(self) -> bool:
        """Whether there is no place that it could be bound from: the container made it itself."""
        return self.kind == "bind" and not self.source

    def declared(self) -> str:
        """For a dump."""
        return f"mnt[{self.target}]:{self.key}"

    def to_json(self) -> dict[str, Any]:
        """Only what is set."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "External":
        """Ignores what it does not know."""
        known = {item.name for item in fields(cls)}
        kept = {name: inner for name, inner in value.items() if name in known}
        for name in ("attributes", "options", "content"):
            kept[name] = tuple(kept.get(name, ()))
        return cls(**kept)


def decide(
    mounts: Iterable[Mount],
    host: Iterable[Mount],
    spec: Mapping[str, Any],
    cgroups: Mapping[str, str],
) -> tuple[list[External], list[Mount]]:
    """The external mounts, and the tmpfs mounts about which their content decides.

    `cgroups` is where the container's own cgroup is in each hierarchy, as /proc/PID/cgroup shows it:
    controller (or "unified") -> path.
    """
    mounts, host = list(mounts), list(host)
    sources = bind_sources(spec)
    root = next((mount for mount in mounts if mount.target == "/"), None)
    shared = _devices_seen_twice(mounts)
    external: list[External] = []
    undecided: list[Mount] = []
    for mount in mounts:
        key = f"m{mount.id}"
        if mount.target == "/":
            continue
        if mount.target in sources:
            source = sources[mount.target]
            external.append(External(key, "bind", mount.target, source=source, slave=mount.slave))
        elif mount.fstype in CGROUPS:
            external.append(_cgroup(mount, host, cgroups, key))
        elif mount.target == NOTIFY and mount.fstype != "tmpfs":
            external.append(External(key, "notify", mount.target))
        elif mount.fstype in OWN:
            continue
        elif _is_null(mount):
            external.append(External(key, "null", mount.target))
        elif mount.fstype == "tmpfs" and not host_path(mount, host):
            if mount.root == "/" and mount.device not in shared:
                undecided.append(mount)
        elif root is not None and mount.device == root.device and _under(mount.root, root.root):
            continue  # a bind of a part of the root file system, as readonlyPaths makes them
        else:
            external.append(_of_host(mount, host, sources, key))
    targets = {mount.target: mount for mount in mounts}
    return [_with_attributes(item, targets[item.target]) for item in external], undecided


def _with_attributes(item: External, mount: Mount) -> External:
    """CRIU sets the attributes of a mount only where it thinks they differ from another's of the same
    file system: a second read-only bind would come back writable. So the source has them already."""
    return replace(item, attributes=attributes(mount))


def attributes(mount: Mount) -> tuple[str, ...]:
    """The options of the mount, not of its file system."""
    return tuple(word for word in mount.options if word in ATTRIBUTES)


def bind_sources(spec: Mapping[str, Any]) -> dict[str, str]:
    """The bind mounts of config.json: destination -> source."""
    found = {}
    for mount in spec.get("mounts") or []:
        words = mount.get("options") or []
        if mount.get("type") == "bind" or "bind" in words or "rbind" in words:
            target = os.path.normpath("/" + str(mount["destination"]).lstrip("/"))
            found[target] = str(mount.get("source") or "")
    return found


def _under(path: str, directory: str) -> bool:
    return below(path, directory) is not None


def _is_null(mount: Mount) -> bool:
    return mount.fstype == "devtmpfs" and mount.root == "/null"


def _cgroup(mount: Mount, host: list[Mount], cgroups: Mapping[str, str], key: str) -> External:
    for name in ("unified",) if mount.fstype == "cgroup2" else mount.super_options:
        own = cgroups.get(name)
        if own is None:
            continue
        rest = below(mount.root, own)
        if rest is not None and own != "/":
            return External(key, "cgroup", mount.target, below=rest, controller=name)
    return External(key, "bind", mount.target, source=host_path(mount, host))


def _of_host(mount: Mount, host: list[Mount], sources: Mapping[str, str], key: str) -> External:
    """Something of the host that config.json does not name: below an rbind, or made by a hook."""
    for target in sorted(sources, key=len, reverse=True):
        rest = below(mount.target, target)
        if rest:
            return External(key, "bind", mount.target, source=os.path.join(sources[target], rest))
    return External(key, "bind", mount.target, source=host_path(mount, host))


def _devices_seen_twice(mounts: list[Mount]) -> set[str]:
    """File systems mounted whole at two places: to make each anew would part them.

    Not so where nobody can write: the directories of maskedPaths share one empty tmpfs.
    """
    whole = [mount for mount in mounts if mount.root == "/"]
    writable = {
        mount.device for mount in whole if "rw" in mount.options and "rw" in mount.super_options
    }
    seen = [mount.device for mount in whole]
    return {device for device in seen if seen.count(device) > 1 and device in writable}
