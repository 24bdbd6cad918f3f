"""A container's cgroup on v2: one directory, with the controllers switched on along the way to it."""

import errno
import os
import time

from ocimig import log
from ocimig.runtime.cgroups import tree
from ocimig.runtime.errors import (
    CgroupBusy,
    CgroupDenied,
    CgroupFrozen,
    CgroupNotEmpty,
    DevicesRefused,
    NoSubCgroup,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocimig.runtime.cgroups.mounts import Piece
    from ocimig.runtime.cgroups.write import Write

    Resources = dict[str, Any]

UNIFIED = "unified"
SIGKILL = 9
FREEZE_SECONDS = 10.0
DELETE_SECONDS = 5.0
_DENIED = (errno.EPERM, errno.EACCES, errno.EROFS)

# What the owner of a delegated cgroup may write, where the kernel does not list it itself.
_DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")


class CgroupV2:
    """`path` is the directory, `mountpoint` the mount of v2 above it."""

    __slots__ = ("explicit", "joined", "mountpoint", "path", "resources", "rootless")
    version = 2

    def __init__(
        self,
        path: str,
        mountpoint: str,
        *,
        explicit: bool = True,
        rootless: bool = False,
        resources: "Resources | None" = None,
    ) -> None:
        self.path = path
        self.mountpoint = mountpoint
        self.explicit = explicit
        self.rootless = rootless
        self.resources = resources or {}
        self.joined = True

    def facts(self) -> "dict[str, str]":
        """What from_facts needs to find it again."""
        facts = {"driver": "v2", "mountpoint": self.mountpoint}
        if self.joined:
            facts[UNIFIED] = self.path
        return facts

    # -- making and joining ------------------------------------------------------------------

    def create(self, pid: int = 0, owner: int = -1) -> None:
        """Make the directory, switch controllers on above it, and put `pid` into it (0: nobody yet).

        `owner` becomes the owner of what a delegated cgroup's owner may write: a container with its
        own user and cgroup namespaces manages its own part of the tree.
        """
        made: list[str] = []
        try:
            self._make(made)
            if owner > 0:
                self._delegate(owner)
            if pid:
                self.add(pid)
        except OSError as error:
            self._undo(made)
            if self.rootless and error.errno in _DENIED and not self.explicit:
                self._go_without(error)
                return
            where = str(error.filename or self.path)
            raise CgroupDenied(path=where, reason=error.strerror or str(error)) from error
        except BaseException:
            self._undo(made)
            raise

    def _go_without(self, error: OSError) -> None:
        if any(name != "devices" and value for name, value in self.resources.items()):
            raise CgroupDenied(
                path=self.path,
                reason="rootless needs no limits + no cgrouppath when no permission is granted "
                f"for cgroups: {error.strerror}",
            ) from error
        self.joined = False

    def _undo(self, made: "list[str]") -> None:
        for path in reversed(made):
            try:
                os.rmdir(path)
            except OSError:
                pass  # the reason why create() failed is what the person must read

    def _make(self, made: "list[str]") -> None:
        current = self.mountpoint
        for name in self.path[len(self.mountpoint) :].strip("/").split("/"):
            enable(current)
            current = f"{current}/{name}"
            try:
                os.mkdir(current, 0o755)
            except FileExistsError:
                if current == self.path:
                    self._check_leftover()
            else:
                made.append(current)
            self._check_type(current)

    def _check_leftover(self) -> None:
        inside = tree.pids(self.path)
        if inside:
            shown = " ".join(map(str, inside[:8]))
            raise CgroupNotEmpty(count=len(inside), path=self.path, pids=shown)
        if self.frozen():
            raise CgroupFrozen(path=self.path)

    def _check_type(self, path: str) -> None:
        kind = tree.read(f"{path}/cgroup.type")
        if kind in {"domain", ""}:
            return
        from ocimig.runtime.cgroups import plan_v2

        if plan_v2.needs(self.resources):
            raise CgroupDenied(
                path=path,
                reason=f"cannot enter it with domain controllers: it is {kind}. "
                "A cgroup above it holds processes of its own",
            )
        if kind == "domain invalid":
            # Somebody above made a threaded subtree: cpu and pids limits work in it, memory and io do not.
            tree.write(f"{path}/cgroup.type", "threaded")

    def adopt(self, pid: int, unit: str, owner: int = -1) -> None:
        """Take over the directory that systemd made for its unit, with `pid` in it."""
        from ocimig.runtime.cgroups import layout

        here = layout.read(str(pid)).unified if pid else None
        if here is not None and here.own.endswith("/" + unit):
            self.path = here.here()  # a user's manager has a place of its own
        current = self.mountpoint
        for name in self.path[len(self.mountpoint) :].strip("/").split("/"):
            enable(current)
            current = f"{current}/{name}"
        if owner > 0:
            self._delegate(owner)

    def _delegate(self, owner: int) -> None:
        names = tree.read("/sys/kernel/cgroup/delegate").split() or _DELEGATED
        os.chown(self.path, owner, -1)
        for name in names:
            try:
                os.chown(f"{self.path}/{name}", owner, -1)
            except FileNotFoundError:
                pass  # a file of a controller that is not on here

    def joins(self) -> "list[tuple[str, str]]":
        """Nothing: v2 has no file that takes a process without the kernel's lock; see fork_into()."""
        return []

    def fork_into(self) -> str:
        """The directory for clone3(CLONE_INTO_CGROUP): the child starts in it, without the wait of add()."""
        return self.path if self.joined else ""

    def add(self, pid: int, within: "list[str] | None" = None) -> None:
        """Put a process into it; `within` is exec's --cgroup, a part below.

        A container's init may have moved into a cgroup it made (systemd does). Then ours takes no
        process any more (no internal processes) and the new one goes where the oldest is.
        """
        if not self.joined:
            return
        target = self._below(within) if within else self.path
        try:
            tree.write(f"{target}/cgroup.procs", str(pid))
        except OSError as error:
            home = "" if within or error.errno != errno.EBUSY else self._oldest()
            if not home:
                raise CgroupDenied(path=target, reason=error.strerror or str(error)) from error
            tree.write(f"{home}/cgroup.procs", str(pid))

    def _below(self, within: "list[str]") -> str:
        from ocimig.runtime.cgroups.join import inside, subgroups

        parts = subgroups(within)
        if parts.keys() - {""}:
            raise NoSubCgroup(text=within[0], reason="v2 has no controllers by name")
        return inside(self.path, parts.get("", ""))

    def _oldest(self) -> str:
        """The directory with the lowest pid."""
        found = [(tree.pids(path, recursive=False), path) for path in tree.below(self.path)]
        return min(((pids[0], path) for pids, path in found if pids), default=(0, ""))[1]

    # -- limits --------------------------------------------------------------------------------

    def plan(self, resources: "Resources", *, update: bool = False) -> "list[tuple[str, str]]":
        """Every value apply() would write, in its order; the device program as the rules it was made of."""
        rows = [(self._file(write), write.value) for write in self._writes(resources)]
        if not update or resources.get("devices") is not None:
            from ocimig.runtime.cgroups import devices

            allowed = devices.settle(resources.get("devices"))
            rules = [line for _, line in devices.lines_v1(allowed)[1:]]
            rows.append((f"{self.path} (BPF_CGROUP_DEVICE)", ", ".join(rules)))
        return rows

    def apply(self, resources: "Resources", *, update: bool = False) -> None:
        """Write the limits. A fresh cgroup gets the device program, an update only where it names devices."""
        if not self.joined:
            return
        writes = self._writes(resources)
        if writes:
            from ocimig.runtime.cgroups.write import perform

            perform(writes, self._file)
        if not update or resources.get("devices") is not None:
            self._apply_devices(resources)

    def _writes(self, resources: "Resources") -> "list[Write]":
        if not resources or resources.keys() == {"devices"}:
            return []
        from ocimig.runtime.cgroups import plan_v2
        from ocimig.runtime.cgroups.write import Cgroupfs

        return plan_v2.plan(resources, Cgroupfs(self._has, self._value))

    def _apply_devices(self, resources: "Resources") -> None:
        from ocimig.runtime.cgroups import device_filter, devices

        try:
            device_filter.install(self.path, devices.settle(resources.get("devices")))
        except OSError as error:
            if self.rootless:
                log.debug(f"no device filter: {error}")
                return
            raise DevicesRefused(reason=f"bpf: {error.strerror}") from error

    def _file(self, write: "Write") -> str:
        return f"{self.path}/{write.file}"

    def _has(self, _controller: str, file: str) -> bool:
        return os.path.exists(f"{self.path}/{file}")

    def _value(self, _controller: str, file: str) -> str:
        return tree.read(f"{self.path}/{file}")

    # -- freezing and processes ------------------------------------------------------------------

    def freeze(self, timeout: float = FREEZE_SECONDS) -> None:
        """Stop every process. Raises FreezeFailed, with all of them running, after `timeout` s."""
        from ocimig.runtime.cgroups import freezer

        freezer.freeze_v2(self.path, timeout)

    def thaw(self) -> None:
        """Let them run again; in a cgroup that is gone there is nobody to run."""
        from ocimig.runtime.cgroups import freezer

        freezer.thaw_v2(self.path)

    def frozen(self) -> bool:
        """Whether they are stopped by freeze() of this cgroup itself, not of one above it."""
        return tree.read(f"{self.path}/cgroup.freeze") == "1"

    def pids(self, recursive: bool = True) -> "list[int]":
        """The container's processes, those in cgroups it made itself too."""
        return tree.pids(self.path, recursive=recursive) if self.joined else []

    def kill_all(self, sig: int = SIGKILL) -> None:
        """Send a signal to every process; SIGKILL reaches also frozen ones and those being born."""
        if not self.joined:
            return
        if sig == SIGKILL:
            try:
                tree.write(f"{self.path}/cgroup.kill", "1")
            except OSError as error:
                # ENOENT: before Linux 5.14, or the cgroup is gone
                if error.errno not in {errno.ENOENT, errno.ENODEV}:
                    raise
            else:
                return
        tree.signal_all(self.path, sig)

    def delete(self, timeout: float = DELETE_SECONDS) -> None:
        """Remove it and what the container made below. Raises CgroupBusy after `timeout`."""
        if not self.joined:
            return
        try:
            tree.remove(self.path, deadline=time.monotonic() + timeout)
        except OSError as error:
            if self.rootless and error.errno in _DENIED:
                return
            path = str(error.filename)
            raise CgroupBusy(path=path, reason=f"{error.strerror}{tree.who(path)}") from error

    # -- views ---------------------------------------------------------------------------------

    def mount_points(self, *, cgroup_namespace: bool) -> "list[Piece]":
        """What a mount of type "cgroup" or "cgroup2" is made of for this container."""
        from ocimig.runtime.cgroups import mounts

        return mounts.view_v2(self.path, cgroup_namespace=cgroup_namespace)

    def stats(self) -> "dict[str, Any]":
        """Usage, in the form of runc's events."""
        from ocimig.runtime.cgroups import stats

        return stats.v2(self.path)


def enable(path: str) -> None:
    """Switch every controller a cgroup has on for those below it, as far as it lets us.

    It does not where it holds processes (no internal processes) or belongs to somebody else. A limit
    that then has no file is refused with its name when it is written.
    """
    have = tree.read(f"{path}/cgroup.controllers").split()
    on = tree.read(f"{path}/cgroup.subtree_control").split()
    missing = ["+" + name for name in have if name not in on]
    if not missing:
        return
    file = f"{path}/cgroup.subtree_control"
    try:
        tree.write(file, " ".join(missing))
    except OSError:
        for name in missing:
            try:
                tree.write(file, name)
            except OSError as error:
                log.debug(
                    f"controller {name} of {path} stays off for its children: {error.strerror}"
                )
