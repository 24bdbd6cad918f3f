"""What in a container CRIU cannot save or bring back, by process and descriptor, mount, socket or mapping.

Reads /proc only: nothing is stopped, traced or opened. Every rule was tried against CRIU 4.2 on a real
container (tests/criu/test_blockers.py); docs/adr/0021 says which suspicions turned out to be unfounded.
What it means and what helps is said in `inside`.
"""

import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ocimig import files
from ocimig.migrate import external, mountinfo, watched
from ocimig.migrate.blockers_open import (
    KERNELS_OWN,
    SAVED_DEVICES,
    Opened,
    Thing,
    anonymous,
    of_device,
)
from ocimig.runtime.cgroups import layout
from ocimig.runtime.linux import kcmp, proc

NESTED = ("user", "uts", "ipc", "cgroup", "time", "time_for_children", "pid")
SCHED_DEADLINE = 6
TRANSIENT = {"stuck process", "shared memory space", "queued messages", "waiting connections"}
LOOK_AGAIN = 0.05  # seconds: what passes by itself is gone then

_SUSPICIOUS = (b" (deleted)", b"anon_inode:", b" /dev/", b" /secretmem")
_ODD_MAPPING = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+ +(anon_inode:.*|/secretmem.*|/dev/(?!shm/).*|/.* \(deleted\))$",
    re.MULTILINE,
)


def look(init: int, pids: Sequence[int], spec: Mapping[str, Any]) -> list[Thing]:
    """Everything that is in the way; of what may pass by itself only what is still there a moment later."""
    found = _Look(init, pids, spec).all()
    if any(thing["kind"] in TRANSIENT for thing in found):
        time.sleep(LOOK_AGAIN)
        again = {_key(thing) for thing in _Look(init, pids, spec).all()}
        found = [thing for thing in found if thing["kind"] not in TRANSIENT or _key(thing) in again]
    return found


def deadly(init: int, pids: Sequence[int], spec: Mapping[str, Any]) -> list[Thing]:
    """Only what must not meet CRIU at all, in a few milliseconds: processes that it would wait for with the
    container frozen, and mounts that would be lost without a word."""
    found = _Look(init, pids, spec).deadly()
    if any(thing["kind"] in TRANSIENT for thing in found):
        time.sleep(LOOK_AGAIN)
        again = {_key(thing) for thing in _Look(init, pids, spec).deadly()}
        found = [thing for thing in found if _key(thing) in again]
    return found


def _key(thing: Thing) -> tuple[Any, ...]:
    return tuple(thing.get(name) for name in ("kind", "pid", "fd", "name"))


def configured(spec: Mapping[str, Any]) -> list[Thing]:
    """Namespaces given by path into which CRIU cannot restore."""
    return [
        {"kind": "given namespace", "name": str(entry["type"]), "path": str(entry["path"])}
        for entry in (spec.get("linux") or {}).get("namespaces") or ()
        if entry.get("path") and entry.get("type") in {"user", "mount", "time", "cgroup"}
    ]


def others(init: int, pids: Sequence[int], group: Sequence[int]) -> list[Thing]:
    """Processes in the container's cgroup that are not below its first one: they came by `exec`."""
    found: list[Thing] = []
    for pid in sorted(set(group) - {init, *pids}):
        there = proc.stat(pid)
        if there is not None and not there.ended:
            found.append({"kind": "exec", "pid": pid, "command": there.comm})
    return found


class _Look:
    """One pass over the processes."""

    def __init__(self, init: int, pids: Sequence[int], spec: Mapping[str, Any]) -> None:
        self.init = init
        self.pids = pids
        self.spec = spec
        self.mounts = _mounts(init)
        self.commands: dict[int, str] = {}
        self.networks: dict[str, int] = {}  # network namespace -> a process in it
        self.namespaces: set[str] = set()
        self.opened = Opened(
            init,
            watched.blind(self.mounts),
            any(mount.fstype == "overlay" for mount in self.mounts),
        )

    def all(self) -> list[Thing]:
        """What is in the way, once each."""
        found = [
            thing
            for source in (
                self._processes(),
                self._mounted(),
                self._opened(),
            )
            for thing in source
        ]
        for thing in found:
            if "pid" in thing:
                thing.setdefault("command", self.commands.get(thing["pid"], "?"))
        return found

    def deadly(self) -> list[Thing]:
        """See the function of that name."""
        found = list(self._lost_mounts())
        for pid in self.pids:
            there = proc.stat(pid)
            if there is not None and there.state != proc.ZOMBIE:
                self.commands[pid] = there.comm
                found += [*self._held_by_tracer(pid), *self._in_vfork(pid, there)]
        for thing in found:
            if "pid" in thing:
                thing["command"] = self.commands[thing["pid"]]
        return found

    # -- processes

    def _processes(self) -> Iterator[Thing]:
        own = _namespaces(self.init)
        for pid in self.pids:
            there = proc.stat(pid)
            if there is None:
                continue
            self.commands[pid] = there.comm
            if there.state == proc.ZOMBIE:
                if there.threads > 1:
                    yield {"kind": "ended leader", "pid": pid}
                continue
            yield from self._process(pid, there)
            yield from self._nested(pid, own)
            yield from self._mappings(pid)
            yield from self.opened.descriptors(pid)

    def _process(self, pid: int, there: proc.ProcStat) -> Iterator[Thing]:
        yield from self._held_by_tracer(pid)
        if there.state == "D":
            yield {"kind": "stuck process", "pid": pid}
        yield from self._in_vfork(pid, there)
        for thread in os.listdir(f"/proc/{pid}/task") if there.threads > 1 else (pid,):
            try:
                if os.sched_getscheduler(int(thread)) == SCHED_DEADLINE:
                    yield {"kind": "deadline scheduling", "pid": pid}
                    break
            except OSError:
                continue

    @staticmethod
    def _held_by_tracer(pid: int) -> Iterator[Thing]:
        if tracer := _tracer(pid):
            other = proc.stat(tracer)
            yield {"kind": "traced", "pid": pid, "by": tracer, "name": other.comm if other else "?"}

    def _in_vfork(self, pid: int, there: proc.ProcStat) -> Iterator[Thing]:
        if pid != self.init and kcmp.same_memory(pid, there.ppid):
            yield {"kind": "shared memory space", "pid": pid, "by": there.ppid}

    def _nested(self, pid: int, own: Mapping[str, str]) -> Iterator[Thing]:
        theirs = _namespaces(pid)
        self.namespaces.update(theirs.values())
        self.networks.setdefault(theirs.get("net", ""), pid)
        for name in NESTED:
            if name in theirs and theirs[name] != own.get(name):
                shown = name.replace("time_for_children", "time")
                if self.opened.new(("namespace", theirs[name])):
                    yield {"kind": "nested namespace", "pid": pid, "name": shown}

    # -- mappings

    def _mappings(self, pid: int) -> Iterator[Thing]:
        try:
            maps = files.read(f"/proc/{pid}/maps")
        except OSError:
            return
        if not any(
            word in maps for word in _SUSPICIOUS
        ):  # twenty times faster than looking at lines
            return
        for match in _ODD_MAPPING.finditer(maps):
            name = os.fsdecode(match[3])
            if name.startswith(KERNELS_OWN):
                continue
            area = f"{int(match[1], 16):x}-{int(match[2], 16):x}"
            yield from self._mapping(pid, area, name)

    def _mapping(self, pid: int, area: str, name: str) -> Iterator[Thing]:
        thing: Thing = {"pid": pid, "mapping": area, "name": name}
        if name.startswith("/secretmem"):
            yield {"kind": "secret memory", **thing}
            return
        if name.startswith("anon_inode:"):
            yield {"kind": anonymous(name) or "kernel object", **thing}
            return
        try:
            there = os.stat(f"/proc/{pid}/map_files/{area}")
        except OSError:
            return
        if stat.S_ISCHR(there.st_mode) and os.major(there.st_rdev) not in SAVED_DEVICES:
            yield {"kind": of_device(there), **thing}
        elif stat.S_ISREG(there.st_mode) and self.opened.new((there.st_dev, there.st_ino)):
            yield from self.opened.without_name(thing, there)

    # -- mounts

    def _mounted(self) -> Iterator[Thing]:
        yield from self._lost_mounts()
        for mount in self.mounts:
            if mount.fstype == "mqueue":
                yield from self._message_queues(mount.target)

    def _lost_mounts(self) -> Iterator[Thing]:
        own = layout.own_paths(files.read(f"/proc/{self.init}/cgroup"))
        found, _ = external.decide(self.mounts, mountinfo.read(), self.spec, own)
        kinds = {mount.target: mount.fstype for mount in self.mounts}
        for each in found:
            if each.nowhere:
                yield {"kind": "mount", "mount": each.target, "name": kinds.get(each.target, "?")}

    def _message_queues(self, target: str) -> Iterator[Thing]:
        try:
            names = os.listdir(f"/proc/{self.init}/root{target}")
        except OSError:
            return
        if names:
            yield {"kind": "message queues", "mount": target, "name": " ".join(sorted(names))}

    def _opened(self) -> Iterator[Thing]:
        """What can be said only when all processes were looked at."""
        yield from self.opened.ends(self.networks.values())
        yield from self.opened.lost_watches(self.mounts)
        yield from self.opened.left(self.namespaces)


def _mounts(pid: int) -> list[mountinfo.Mount]:
    try:
        return mountinfo.read(pid)
    except OSError:
        return []


def _namespaces(pid: int) -> dict[str, str]:
    found = {}
    for name in (*NESTED, "net", "mnt"):
        try:
            found[name] = os.readlink(f"/proc/{pid}/ns/{name}")
        except OSError:
            continue  # it ended, or the kernel has no such namespace
    return found


def _tracer(pid: int) -> int:
    try:
        status = files.read(f"/proc/{pid}/status")
    except OSError:
        return 0
    return int(status.partition(b"\nTracerPid:")[2].split(None, 1)[0])
