"""Where the cgroup hierarchies of this machine are, and where we are in them. Reads only.

The three shapes of a machine: v1 (a mount per controller or group of controllers), hybrid (the same
and a v2 mount beside them, mostly at /sys/fs/cgroup/unified) and v2 (one mount for all).
"""

import os

from ocimig import files
from ocimig.runtime.errors import NoCgroups

MOUNTPOINT = "/sys/fs/cgroup"
UNIFIED = "unified"  # the key under which a v2 path stands beside the names of v1 controllers

# What a v1 mount may name that is an option and no controller.
_OPTIONS = frozenset({"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods"})  # fmt: skip


class Hierarchy:
    """One mounted hierarchy: its controllers ("unified" for v2), where it is, where we are in it."""

    __slots__ = ("controllers", "mountpoint", "own", "root")

    def __init__(
        self, controllers: "tuple[str, ...]", mountpoint: str, root: str, own: str
    ) -> None:
        self.controllers = controllers
        self.mountpoint = mountpoint
        self.root = root
        self.own = own

    def here(self) -> str:
        """Our own cgroup as a path below the mount; the mount itself where it does not show ours."""
        root = self.root.rstrip("/")
        if self.own == root or self.own.startswith(root + "/"):
            return self.mountpoint + self.own[len(root) :].rstrip("/")
        return self.mountpoint


class Layout:
    """What this machine has. `version` 2 means that v2 holds the controllers."""

    __slots__ = ("unified", "v1", "version")

    def __init__(self, version: int, v1: "list[Hierarchy]", unified: "Hierarchy | None") -> None:
        self.version = version
        self.v1 = v1
        self.unified = unified


def read(pid: str = "self") -> Layout:
    """The layout as this process sees it."""
    return parse(files.read("/proc/self/mountinfo"), files.read(f"/proc/{pid}/cgroup"))


def parse(mountinfo: bytes, own: bytes) -> Layout:
    """The layout that /proc/self/mountinfo and /proc/self/cgroup describe."""
    paths = own_paths(own)
    v1: dict[str, Hierarchy] = {}
    v2: list[Hierarchy] = []
    top = b""  # what is mounted last on /sys/fs/cgroup hides what was there before
    for line in mountinfo.split(b"\n"):
        if b" - cgroup" not in line and b" /sys/fs/cgroup " not in line:
            continue
        left, _, right = line.partition(b" - ")
        fields = left.split(b" ")
        fstype, _, rest = right.partition(b" ")
        root, mountpoint = _unescape(fields[3]), _unescape(fields[4])
        if mountpoint == MOUNTPOINT:
            top = fstype
        if fstype == b"cgroup2":
            v2.append(Hierarchy((UNIFIED,), mountpoint, root, paths.get(UNIFIED, "/")))
        elif fstype == b"cgroup":
            names = controllers_of(rest.rpartition(b" ")[2].decode())
            # a hierarchy mounted twice (a bind, a container's view): the first one is the host's
            if names and names[0] not in v1:
                own_path = paths.get(names[0], "/")
                v1[names[0]] = Hierarchy(names, mountpoint, root, own_path)
    return _decide(top, list(v1.values()), v2)


def _decide(top: bytes, v1: "list[Hierarchy]", v2: "list[Hierarchy]") -> Layout:
    if top == b"cgroup2" or (v2 and not v1):
        at_usual_place = [mount for mount in v2 if mount.mountpoint == MOUNTPOINT]
        return Layout(2, [], (at_usual_place or v2)[-1])
    if not v1:
        raise NoCgroups
    v1.sort(key=lambda hierarchy: hierarchy.controllers)
    return Layout(1, v1, v2[0] if v2 else None)


def controllers_of(options: str) -> "tuple[str, ...]":
    """The controllers a v1 mount's super options name: "rw,cpu,cpuacct" → cpu, cpuacct."""
    return tuple(
        option
        for option in options.split(",")
        if option.startswith("name=") or ("=" not in option and option not in _OPTIONS)
    )


def own_paths(text: bytes) -> "dict[str, str]":
    """/proc/PID/cgroup as controller → path; "name=systemd" by that name, v2 as "unified"."""
    paths = {}
    for line in filter(None, text.decode("utf-8", "surrogateescape").split("\n")):
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            paths[UNIFIED] = path
            continue
        for name in names.split(","):
            paths[name] = path
    return paths


def _unescape(field: bytes) -> str:
    if b"\\" not in field:
        return os.fsdecode(field)
    for code, byte in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(code, byte)
    return os.fsdecode(field)
