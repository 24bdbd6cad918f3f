"""A container's cgroups as a unit of systemd: a transient scope, whose limits are its properties too.

systemd makes and removes the unit's directory; freezing, listing and what no property stands for are
done on the directory itself, as with the drivers of the two versions (`inner`).
"""

import os
import time

from ocimig import log
from ocimig.runtime.cgroups import layout
from ocimig.runtime.errors import InvalidCgroupsPath, NoSystemd, UnitFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocimig.runtime.cgroups.dbus import Connection
    from ocimig.runtime.cgroups.layout import Layout
    from ocimig.runtime.cgroups.mounts import Piece
    from ocimig.runtime.cgroups.v1 import CgroupV1
    from ocimig.runtime.cgroups.v2 import CgroupV2

    Resources = dict[str, Any]

BOOTED = "/run/systemd/system"  # sd_booted(3)
_NAME = "org.freedesktop.systemd1"
_OBJECT = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_SECONDS = 30.0
_EMPTY_SECONDS = 1.0
_PREFIX = "ocimig"
# unit names may hold these and letters and digits; others are written \xNN (systemd-escape(1))
_UNIT_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"
)


def open_unit(
    here: "Layout", wanted: str, id: str, resources: "Resources", *, rootless: bool
) -> "SystemdCgroup":
    """The unit that cgroupsPath ("slice:prefix:name") names. Asks nobody, makes nothing."""
    if not os.path.isdir(BOOTED):
        raise NoSystemd(reason=f"{BOOTED} does not exist")
    slice, unit = names(wanted, id, user=rootless)
    place = expand(slice) + "/" + unit
    inner: CgroupV1 | CgroupV2
    if here.version == 2:
        from ocimig.runtime import cgroups

        inner = cgroups.at(here, place, explicit=True, rootless=rootless, resources=resources)
    else:
        inner = _v1(place, resources, rootless=rootless)
    return SystemdCgroup(inner, unit, slice, user=rootless)


def _v1(place: str, resources: "Resources", *, rootless: bool) -> "CgroupV1":
    """systemd's tree starts at PID 1's own cgroup, which is not the root where PID 1 is in a container."""
    from ocimig.runtime.cgroups.v1 import CgroupV1 as V1

    init = layout.read("1")
    paths: dict[str, str] = {}
    for hierarchy in [*init.v1, *([init.unified] if init.unified else [])]:
        root = hierarchy.here().removesuffix("/init.scope")
        paths.update(dict.fromkeys(hierarchy.controllers, root + place))
    return V1(paths, rootless=rootless, resources=resources)


def names(wanted: str, id: str, *, user: bool = False) -> "tuple[str, str]":
    """Slice and unit. A name that ends in .slice is a slice itself; everything else is a scope."""
    slice, prefix, name = "", _PREFIX, id
    if wanted:
        parts = wanted.split(":")
        if len(parts) != 3 or not parts[2] or "/" in wanted:
            raise InvalidCgroupsPath(
                path=wanted,
                reason='expected the form "slice:prefix:name" with --systemd-cgroup',
            )
        slice, prefix, name = parts
    slice = slice or ("user.slice" if user else "system.slice")
    if name.endswith(".slice"):
        return slice, escape(name)
    return slice, escape(f"{prefix}-{name}.scope" if prefix else f"{name}.scope")


def escape(name: str) -> str:
    """A name with what no unit name may hold as \\xNN."""
    if _UNIT_CHARACTERS.issuperset(name):
        return name
    raw = name.encode()
    return "".join(chr(c) if chr(c) in _UNIT_CHARACTERS else f"\\x{c:02x}" for c in raw)


def expand(slice: str) -> str:
    """A slice's place: a-b.slice is /a.slice/a-b.slice, -.slice is the root."""
    stem = slice.removesuffix(".slice")
    if slice == "-.slice":
        return ""
    if stem == slice or not stem or "/" in slice or "" in stem.split("-"):
        raise InvalidCgroupsPath(path=slice, reason="invalid slice name")
    path, so_far = "", ""
    for part in stem.split("-"):
        so_far += part
        path += f"/{so_far}.slice"
        so_far += "-"
    return path


class SystemdCgroup:
    """The unit, and the directories behind it."""

    __slots__ = ("inner", "slice", "unit", "user")

    def __init__(
        self, inner: "CgroupV1 | CgroupV2", unit: str, slice: str, *, user: bool = False
    ) -> None:
        self.inner = inner
        self.unit = unit
        self.slice = slice
        self.user = user

    @property
    def version(self) -> int:
        """Of the cgroups behind it."""
        return self.inner.version

    def facts(self) -> "dict[str, str]":
        """What from_facts needs to find it again."""
        facts = {**self.inner.facts(), "unit": self.unit, "slice": self.slice}
        return {**facts, "user": "yes"} if self.user else facts

    # -- making and joining ------------------------------------------------------------------

    def create(self, pid: int = 0, owner: int = -1) -> None:
        """Start the unit with `pid` in it. A scope cannot be without a process."""
        properties: list[tuple[str, tuple[str, Any]]] = [
            ("Description", ("s", f"ocimig container {self.unit}")),
            ("DefaultDependencies", ("b", False)),
            ("MemoryAccounting", ("b", True)),
            ("CPUAccounting", ("b", True)),
            ("IOAccounting" if self.version == 2 else "BlockIOAccounting", ("b", True)),
            ("TasksAccounting", ("b", True)),
        ]
        if self.unit.endswith(".slice"):
            properties.append(("Wants", ("as", [self.slice])))
        else:
            properties.append(("Slice", ("s", self.slice)))
            properties.append(("Delegate", ("b", True)))
        if pid:
            properties.append(("PIDs", ("au", [pid])))
        bus = self._connect()
        try:
            self._start(bus, properties)
        finally:
            bus.close()
        try:
            self.inner.adopt(pid, self.unit, owner)
        except BaseException:
            self.delete()
            raise

    def _start(self, bus: "Connection", properties: "list[tuple[str, tuple[str, Any]]]") -> None:
        from ocimig.runtime.cgroups.dbus import CallFailed

        for attempt in (1, 2):
            try:
                self._job(
                    bus, "start", _SECONDS, "StartTransientUnit", "ssa(sv)a(sa(sv))", properties, []
                )
                return
            except OSError as error:
                raise UnitFailed(verb="start", unit=self.unit, reason=str(error)) from error
            except CallFailed as error:
                # A unit of that name that failed and was never looked at is in the way only until reset.
                if attempt == 2 or not error.name.endswith(".UnitExists"):
                    raise UnitFailed(verb="start", unit=self.unit, reason=str(error)) from error
                self._reset(bus)

    def joins(self) -> "list[tuple[str, str]]":
        """Nothing: systemd puts the process into the unit."""
        return []

    def fork_into(self) -> str:
        """Nowhere: the unit is made for a process that exists."""
        return ""

    def add(self, pid: int, within: "list[str] | None" = None) -> None:
        """Put a process into the unit's directories; they are delegated, so systemd need not be asked."""
        self.inner.add(pid, within)

    # -- limits --------------------------------------------------------------------------------

    def plan(self, resources: "Resources", *, update: bool = False) -> "list[tuple[str, str]]":
        """Every value apply() would write: the unit's properties, then the files."""
        from ocimig.runtime.cgroups import properties

        rows = [
            (f"{self.unit} {name}", str(value))
            for name, (_, value) in properties.of(resources, self.version, update=update)
        ]
        return rows + self.inner.plan(resources, update=update)

    def apply(self, resources: "Resources", *, update: bool = False) -> None:
        """Set the properties, so that a reload of systemd keeps them, then what only files can say."""
        from ocimig.runtime.cgroups import properties
        from ocimig.runtime.cgroups.dbus import CallFailed

        rows = properties.of(resources, self.version, update=update)
        if rows:
            bus = self._connect()
            try:
                bus.call(
                    _NAME, _OBJECT, _MANAGER, "SetUnitProperties", "sba(sv)", self.unit, True, rows
                )
            except (CallFailed, OSError) as error:
                raise UnitFailed(verb="change", unit=self.unit, reason=str(error)) from error
            finally:
                bus.close()
        self.inner.apply(resources, update=update)

    # -- the end -------------------------------------------------------------------------------

    def delete(self, timeout: float = 5.0) -> None:
        """Stop the unit, which ends what still runs in it, and remove what systemd does not know of."""
        if not self._ends_by_itself():
            self._stop(timeout)
        self.inner.delete(timeout)

    def _ends_by_itself(self) -> bool:
        """A scope whose last process has ended goes away; a stop that races with that is lost at times."""
        if self.unit.endswith(".slice") or self.inner.pids():
            return False
        places = [path for path in self._places() if os.path.isdir(path)]
        deadline = time.monotonic() + _EMPTY_SECONDS
        while any(os.path.isdir(path) for path in places):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def _places(self) -> "list[str]":
        """The directory in which systemd looks for the unit's processes."""
        facts = self.inner.facts()
        return [facts[name] for name in ("name=systemd", "unified") if name in facts][:1]

    def _stop(self, timeout: float) -> None:
        from ocimig.runtime.cgroups.dbus import CallFailed

        try:
            bus = self._connect()
        except NoSystemd as error:  # it went away while the container ran: the directories are left
            log.warning(str(error))
            return
        try:
            self._job(bus, "stop", timeout, "StopUnit", "ss")
        except (CallFailed, UnitFailed, OSError) as error:
            if not getattr(error, "name", "").endswith(".NoSuchUnit"):
                log.warning(f"unable to stop unit {self.unit}: {error}")
        finally:
            self._reset(bus)
            bus.close()

    # -- asking systemd ------------------------------------------------------------------------

    def _connect(self) -> "Connection":
        from ocimig.runtime.cgroups import dbus

        return dbus.connect(user=self.user)

    def _job(
        self,
        bus: "Connection",
        verb: str,
        seconds: float,
        method: str,
        signature: str,
        *more: "Any",
    ) -> None:
        """Call what makes a job, and wait until systemd says that it is done. Raises UnitFailed."""
        bus.socket.settimeout(seconds)
        if not bus.direct:
            bus.call(_NAME, _OBJECT, _MANAGER, "Subscribe")
            rule = f"type='signal',interface='{_MANAGER}',member='JobRemoved'"
            bus.call(
                "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                "AddMatch", "s", rule,
            )  # fmt: skip
        (job,) = bus.call(_NAME, _OBJECT, _MANAGER, method, signature, self.unit, "replace", *more)
        while True:
            signal = bus.signal("JobRemoved", seconds)
            if signal is None:
                self._reset(bus)
                raise UnitFailed(verb=verb, unit=self.unit, reason=f"no answer in {seconds:.0f} s")
            if signal.body[1] == job:
                break
        if signal.body[3] != "done":
            self._reset(bus)
            raise UnitFailed(verb=verb, unit=self.unit, reason=f"systemd says {signal.body[3]!r}")

    def _reset(self, bus: "Connection") -> None:
        from ocimig.runtime.cgroups.dbus import CallFailed

        try:
            bus.call(_NAME, _OBJECT, _MANAGER, "ResetFailedUnit", "s", self.unit)
        except (CallFailed, OSError):
            pass  # it did not fail, or is gone: there is nothing to reset

    # -- what the directories can do by themselves -----------------------------------------------

    def freeze(self, timeout: float = 10.0) -> None:
        """Stop every process."""
        self.inner.freeze(timeout)

    def thaw(self) -> None:
        """Let them run again."""
        self.inner.thaw()

    def frozen(self) -> bool:
        """Whether they are stopped."""
        return self.inner.frozen()

    def pids(self, recursive: bool = True) -> "list[int]":
        """The container's processes."""
        return self.inner.pids(recursive)

    def kill_all(self, sig: int = 9) -> None:
        """Send a signal to every process."""
        self.inner.kill_all(sig)

    def mount_points(self, *, cgroup_namespace: bool) -> "list[Piece]":
        """What a mount of type "cgroup" is made of for this container."""
        return self.inner.mount_points(cgroup_namespace=cgroup_namespace)

    def stats(self) -> "dict[str, Any]":
        """Usage, in the form of runc's events."""
        return self.inner.stats()
