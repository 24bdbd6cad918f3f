"""A container's cgroups on v1 and hybrid machines: one directory in every hierarchy.

On a hybrid machine it has one in v2 too. That one limits nothing; it ends all processes with one
write (cgroup.kill) and lets the kernel tell when the container is empty.
"""

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
    FreezeFailed,
    LimitRefused,
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

# Where the container's processes are listed, the best first. v2 comes last: who entered by joins() is
# not in it.
_LISTS = ("freezer", "devices", "pids", "memory", "cpu", UNIFIED)
_IGNORED = (errno.EPERM, errno.EACCES, errno.EROFS)


class CgroupV1:
    """`paths`: controller → directory; co-mounted controllers have the same one."""

    __slots__ = ("explicit", "paths", "resources", "rootless")
    version = 1

    def __init__(
        self,
        paths: "dict[str, str]",
        *,
        explicit: bool = True,
        rootless: bool = False,
        resources: "Resources | None" = None,
    ) -> None:
        self.paths = paths
        self.explicit = explicit
        self.rootless = rootless
        self.resources = resources or {}

    def facts(self) -> "dict[str, str]":
        """What from_facts needs to find it again."""
        return {"driver": "v1", **self.paths}

    def directories(self) -> "list[str]":
        """Every directory once."""
        return list(dict.fromkeys(self.paths.values()))

    # -- making and joining ------------------------------------------------------------------

    def create(self, pid: int = 0, owner: int = -1) -> None:
        """Make the directories and put `pid` into them (0: nobody yet)."""
        made: list[str] = []
        try:
            for controller, path in list(self.paths.items()):
                if path not in made:
                    self._make(controller, path, made)
            self._prepare()
            if pid:
                self.add(pid)
        except BaseException:
            for path in made:
                try:
                    os.rmdir(path)
                except OSError:
                    pass  # the reason why it failed is what the person must read
            raise

    def adopt(self, pid: int, unit: str, owner: int = -1) -> None:
        """Take over what systemd made for its unit; what it does not know of is made by the same name.

        Nothing is given to `owner`: v1 cannot be delegated safely.
        """
        from ocimig.runtime.cgroups import layout

        here = layout.read(str(pid)).unified if pid else None
        if here is None or not here.own.endswith("/" + unit):
            self.paths.pop(UNIFIED, None)  # systemd keeps its tree in name=systemd alone
        for path in self.directories():
            tree.make(path)
        self._prepare()
        if pid:
            self.add(pid)

    def _make(self, controller: str, path: str, made: "list[str]") -> None:
        try:
            if tree.make(path):
                made.append(path)
            else:
                self._check_leftover(controller, path)
        except OSError as error:
            if controller == UNIFIED:  # it is an extra: what it gives has another way on v1
                log.debug(f"no v2 cgroup beside the v1 ones: {error}")
                del self.paths[controller]
            elif self.rootless and not self.explicit and error.errno in _IGNORED:
                del self.paths[controller]
            else:
                raise CgroupDenied(path=path, reason=error.strerror or str(error)) from error

    def _check_leftover(self, controller: str, path: str) -> None:
        inside = tree.pids(path)
        if inside:
            shown = " ".join(map(str, inside[:8]))
            raise CgroupNotEmpty(count=len(inside), path=path, pids=shown)
        if controller == "freezer" and self.frozen():
            raise CgroupFrozen(path=path)

    def _prepare(self) -> None:
        """What must stand before the first process comes in."""
        if "cpuset" in self.paths:
            self._fill_cpuset(self.paths["cpuset"])
        if self.resources.get("cpu"):
            from ocimig.runtime.cgroups import plan_v1

            self._perform(plan_v1.before_joining(self.resources))

    def _fill_cpuset(self, path: str) -> None:
        """A new v1 cpuset is empty and lets nobody in: it gets what its parent has, and so upwards."""
        missing = [
            name for name in ("cpuset.cpus", "cpuset.mems") if not tree.read(f"{path}/{name}")
        ]
        if not missing:
            return
        above = os.path.dirname(path)
        if not os.path.exists(f"{above}/cpuset.cpus"):
            return
        self._fill_cpuset(above)
        for name in missing:
            tree.write(f"{path}/{name}", tree.read(f"{above}/{name}"))

    def joins(self) -> "list[tuple[str, str]]":
        """What a process with one thread writes to enter by itself; create() without a pid comes first.

        Moving another process takes a lock of the kernel's that waits for an RCU grace period, 6 to
        30 ms on a quiet machine. A thread that moves itself (0 to v1's `tasks`) does not need it: 0.4 ms.
        v2 has no such file: it is left out here, see fork_into().
        """
        unified = self.paths.get(UNIFIED)
        return [(f"{path}/tasks", "0") for path in self.directories() if path != unified]

    def fork_into(self) -> str:
        """The v2 directory for clone3(CLONE_INTO_CGROUP), which takes no lock either; "" without one."""
        return self.paths.get(UNIFIED, "")

    def add(self, pid: int, within: "list[str] | None" = None) -> None:
        """Put a process into every directory; `within` is exec's --cgroup: parts below them."""
        targets = self._below(within) if within else self.paths
        for target in dict.fromkeys(targets.values()):
            try:
                tree.write(f"{target}/cgroup.procs", str(pid))
            except OSError as error:
                if target != targets.get(UNIFIED):
                    raise CgroupDenied(path=target, reason=error.strerror or str(error)) from error
                if not within:
                    self._drop_unified(error)

    def _below(self, within: "list[str]") -> "dict[str, str]":
        from ocimig.runtime.cgroups.join import inside, subgroups

        parts = subgroups(within)
        unknown = [name for name in parts if name and name not in self.paths]
        if unknown:
            raise NoSubCgroup(text=unknown[0], reason="no such controller here")
        every = parts.get("", "")
        return {name: inside(path, parts.get(name, every)) for name, path in self.paths.items()}

    def _drop_unified(self, error: OSError) -> None:
        log.debug(f"not joined to v2: {error}")
        path = self.paths.pop(UNIFIED)
        try:
            os.rmdir(path)
        except OSError:
            pass  # busy: then it is in use after all, and delete() of whoever uses it removes it

    # -- limits --------------------------------------------------------------------------------

    def plan(self, resources: "Resources", *, update: bool = False) -> "list[tuple[str, str]]":
        """Every value apply() would write, in its order."""
        rows = [(self._file(write), write.value) for write in self._writes(resources, update)]
        rows += [
            (f"{self.paths.get('devices', '')}/{f}", v) for f, v in self._rules(resources, update)
        ]
        return rows

    def apply(self, resources: "Resources", *, update: bool = False) -> None:
        """Write the limits. A fresh cgroup gets the device rules, an update only those it names."""
        self._apply_devices(self._rules(resources, update))
        self._perform(self._writes(resources, update))

    def _writes(self, resources: "Resources", update: bool) -> "list[Write]":
        if not resources or resources.keys() == {"devices"}:
            return []
        from ocimig.runtime.cgroups import plan_v1
        from ocimig.runtime.cgroups.write import Cgroupfs

        return plan_v1.plan(resources, Cgroupfs(self._has, self._value if update else _nothing))

    def _rules(self, resources: "Resources", update: bool) -> "list[tuple[str, str]]":
        if update and resources.get("devices") is None:
            return []
        from ocimig.runtime.cgroups import devices

        return devices.lines_v1(devices.settle(resources.get("devices")))

    def _apply_devices(self, rules: "list[tuple[str, str]]") -> None:
        if not rules:
            return
        path = self.paths.get("devices")
        try:
            if path is None:
                raise DevicesRefused(reason="the devices controller is not mounted")
            _write_rules(path, rules)
        except (DevicesRefused, OSError) as error:
            if self.rootless:  # without root there is no device to be protected
                return
            if isinstance(error, DevicesRefused):
                raise
            raise DevicesRefused(reason=f"{error.filename}: {error.strerror}") from error

    def _perform(self, writes: "list[Write]") -> None:
        if writes:
            from ocimig.runtime.cgroups.write import perform

            perform(writes, self._file)

    def _file(self, write: "Write") -> str:
        path = self.paths.get(write.controller)
        if path is None:
            raise LimitRefused(
                controller=write.controller,
                reason="container could not join or create cgroup",
            )
        return f"{path}/{write.file}"

    def _has(self, controller: str, file: str) -> bool:
        return controller in self.paths and os.path.exists(f"{self.paths[controller]}/{file}")

    def _value(self, controller: str, file: str) -> str:
        return tree.read(f"{self.paths[controller]}/{file}") if controller in self.paths else ""

    # -- freezing ------------------------------------------------------------------------------

    def freeze(self, timeout: float = FREEZE_SECONDS) -> None:
        """Stop every process. Raises FreezeFailed, with all of them running, after `timeout` s."""
        from ocimig.runtime.cgroups import freezer

        if "freezer" in self.paths:
            freezer.freeze_v1(self.paths["freezer"], timeout)
        elif UNIFIED in self.paths:
            freezer.freeze_v2(self.paths[UNIFIED], timeout)
        else:
            raise FreezeFailed(path="-", seconds=0, detail=": the freezer is not mounted")

    def thaw(self) -> None:
        """Let them run again; in a cgroup that is gone there is nobody to run."""
        from ocimig.runtime.cgroups import freezer

        if "freezer" in self.paths:
            freezer.thaw_v1(self.paths["freezer"])
        elif UNIFIED in self.paths:
            freezer.thaw_v2(self.paths[UNIFIED])

    def frozen(self) -> bool:
        """Whether they are stopped by freeze() of this cgroup itself, not of one above it."""
        from ocimig.runtime import cgroups

        return cgroups.frozen(self.paths)

    # -- processes -----------------------------------------------------------------------------

    def pids(self, recursive: bool = True) -> "list[int]":
        """The container's processes, those in cgroups it made itself too."""
        return tree.pids(self._list(), recursive=recursive)

    def _list(self) -> str:
        for name in _LISTS:
            if name in self.paths:
                return self.paths[name]
        return next(iter(self.paths.values()), "/nonexistent")

    def kill_all(self, sig: int = SIGKILL) -> None:
        """Send a signal to every process; SIGKILL reaches also those that are being born."""
        killed = sig == SIGKILL and self._kill_unified()
        if not killed and "freezer" in self.paths and not self.frozen():
            # stopped, nobody can fork away between the listing and the signal
            try:
                self.freeze(1.0)
            except (FreezeFailed, OSError) as error:
                log.debug(f"killing without the freezer: {error}")
            try:
                tree.signal_all(self._list(), sig)
            finally:
                self.thaw()
            return
        tree.signal_all(self._list(), sig)
        if sig == SIGKILL:
            self.thaw()  # a v1 freezer keeps even the killed ones

    def _kill_unified(self) -> bool:
        path = self.paths.get(UNIFIED)
        if path is None or not set(self.pids()) <= set(tree.pids(path)):
            return False  # not all of them are in it
        try:
            tree.write(f"{path}/cgroup.kill", "1")
        except OSError:  # before Linux 5.14, or removed under us
            return False
        return True

    def delete(self, timeout: float = DELETE_SECONDS) -> None:
        """Remove every directory and what the container made below. Raises CgroupBusy after `timeout`."""
        deadline = time.monotonic() + timeout
        failed = None
        for path in self.directories():
            try:
                tree.remove(path, deadline=deadline)
            except OSError as error:
                if not (self.rootless and error.errno in _IGNORED):
                    failed = error
        if failed is not None:
            path = str(failed.filename)
            raise CgroupBusy(path=path, reason=f"{failed.strerror}{tree.who(path)}") from failed

    # -- views ---------------------------------------------------------------------------------

    def mount_points(self, *, cgroup_namespace: bool) -> "list[Piece]":
        """What a mount of type "cgroup" is made of for this container."""
        from ocimig.runtime.cgroups import mounts

        return mounts.view_v1(self.paths, cgroup_namespace=cgroup_namespace)

    def stats(self) -> "dict[str, Any]":
        """Usage, in the form of runc's events."""
        from ocimig.runtime.cgroups import stats

        return stats.v1(self.paths)


def _nothing(_controller: str, _file: str) -> str:
    return ""  # a new cgroup holds no value that a plan must mind


def _write_rules(path: str, rules: "list[tuple[str, str]]") -> None:
    """One open for all rules of a file: they are many, and each write(2) is one request."""
    opened: dict[str, int] = {}
    try:
        for name, rule in rules:
            file = f"{path}/{name}"
            if file not in opened:
                opened[file] = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(opened[file], rule.encode())
            except OSError as error:
                error.filename = f"{file} ({rule})"
                raise
    finally:
        for fd in opened.values():
            os.close(fd)
