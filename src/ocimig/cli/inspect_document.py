"""What `inspect` says, as plain values part by part (docs/formats/inspect.md). Decides nothing about how it
looks. Lists are iterators: a part is read when it is asked for, and never all of it held."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ocimig import jsonio
from ocimig.criu_images import descriptors, mappings, surroundings, tree
from ocimig.criu_images.errors import NoProcess
from ocimig.criu_images.opened import Images

VERSION = 1
_MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 16 << 20
PLACES = ("saved", "inherited", "elsewhere", "lost")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which details are asked for; `pid` 0 means all processes."""

    pid: int = 0
    files: bool = False
    sockets: bool = False
    mounts: bool = False
    memory: bool = False
    environment: bool = False
    statistics: bool = False


def ordered(processes: list[tree.Process]) -> Iterator[tuple[tree.Process, str, str]]:
    """Everybody before their children, by number: with what a drawing has in front of their line, and in front
    of the lines below it."""
    children: dict[int, list[tree.Process]] = {}
    for each in processes[1:]:
        children.setdefault(each.parent, []).append(each)
    waiting = [(processes[0], "", "")]
    while waiting:
        process, before, below = waiting.pop()
        yield process, before, below
        inner = sorted(children.get(process.pid, []), key=lambda each: -each.pid)
        deep = len(below) > 96  # a very deep tree is not drawn any deeper
        for number, child in enumerate(inner):
            last = number == 0
            add = ("└─ " if last else "├─ ", "" if deep else "   " if last else "│  ")
            waiting.append((child, below + add[0], below + add[1]))


class Document:
    """One checkpoint, read once from front to back: the totals come last."""

    def __init__(self, directory: Images, wanted: Wanted) -> None:
        self.directory = directory
        self.wanted = wanted
        self.files = descriptors.Files(directory)
        self.inventory = surroundings.inventory(directory)
        self.order = list(ordered(tree.processes(directory)))
        self._sums = dict.fromkeys(PLACES, 0)
        self._owners: dict[int, int] = {}
        manifest = self._manifest()
        keys = ("id", "created", "criu", "kernel", "architecture")
        self._known = {key: str(manifest.get(key, "")) for key in keys} if manifest else None
        self._outside = _outside(manifest.get("facts"))
        if wanted.pid:
            self.order = [each for each in self.order if each[0].pid == wanted.pid]
            if not self.order:
                raise NoProcess(pid=wanted.pid, path=directory.path)

    def head(self) -> dict[str, Any]:
        """What the whole is."""
        parents, at = 0, self.directory.parent()
        while at is not None:
            parents, at = parents + 1, at.parent()
        path = self.directory.path
        if self.directory.kind != "snapshot":
            path = os.path.abspath(path)
        return {
            "version": VERSION,
            "kind": self.directory.kind,
            "path": path,
            "origin": self.directory.origin() or None,
            "checkpoint": self._known,
            "inventory": asdict(self.inventory),
            "parents": parents,
        }

    def lists(self) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
        """Each list by its name."""
        pids = [process.pid for process, _, _ in self.order]
        yield "processes", self.processes()
        if self.wanted.files or self.wanted.sockets:
            yield "files", (each for pid in pids for each in self.descriptors(pid))
        if self.wanted.memory:
            yield "mappings", (each for pid in pids for each in self.mappings(pid))
            yield "shared_memory", self.shared()
        if self.wanted.mounts:
            yield "mounts", self.mounts()
            yield "cgroups", self.cgroups()

    def tail(self) -> dict[str, Any]:
        """What is known at the end."""
        found: dict[str, Any] = {"totals": {"processes": len(self.order), **self._sums}}
        if self.wanted.statistics:
            found["statistics"] = surroundings.timings(self.directory)
        return found

    def _manifest(self) -> dict[str, Any]:
        """Empty for checkpoints that are not ocimig's. The files are not compared with it here."""
        if not self.directory.exists(_MANIFEST):
            return {}
        try:
            value = jsonio.loads(self.directory.read(_MANIFEST, _LARGEST_MANIFEST))
        except (ValueError, RecursionError) as error:
            raise self.directory.refusal(_MANIFEST, error) from None
        if not isinstance(value, dict):
            raise self.directory.refusal(_MANIFEST, "it is no object")
        return value

    def processes(self) -> Iterator[dict[str, Any]]:
        """One after the other, as in `order`."""
        for process, _, _ in self.order:
            yield self._process(process)

    def _process(self, process: tree.Process) -> dict[str, Any]:
        directory, pid = self.directory, process.pid
        detail = tree.detail(directory, pid)
        found: dict[str, Any] = {
            **asdict(process), "name": detail.name, "state": detail.state,
            "command": tree.command(directory, pid),
            "machine": detail.machine, "exit_code": detail.exit_code, "nice": detail.nice,
            "oom_score_adj": detail.oom_score_adj, "credentials": asdict(detail.credentials),
            "limits": [
                {"name": name, "soft": soft, "hard": hard} for name, soft, hard in detail.limits
            ],
            "seccomp": self._seccomp(detail),
            "cgroup_set": detail.cgroup_set,
            "files_of": self.owner(detail.id_of.get("files_id", 0), pid),
            "namespaces": {
                kind: {"id": number, "about": about}
                for kind, number, about in surroundings.namespaces(directory, detail.id_of)
            },
        }  # fmt: skip
        if self.wanted.environment:
            found["environment"] = self.environment(pid)
        if mappings.has_memory(directory, pid):
            found["memory"] = self._memory(pid)
        return found

    def _seccomp(self, detail: tree.Detail) -> dict[str, Any]:
        if detail.seccomp != "filter":
            return {"mode": detail.seccomp, "filters": 0, "instructions": 0}
        count, instructions = tree.filters(self.directory, detail.seccomp_filter)
        return {"mode": detail.seccomp, "filters": count, "instructions": instructions}

    def descriptors(self, pid: int) -> Iterator[dict[str, Any]]:
        """The open files of one process, or only its sockets; none where it shares the table of another."""
        table = tree.detail(self.directory, pid).id_of.get("files_id", 0)
        if self.owner(table, pid) == pid:
            for each in self.files.of(table):
                if self.wanted.files or each.is_socket:
                    found = {"pid": pid, **asdict(each)}
                    if each.details.get("external") and each.text in self._outside:
                        found["text"] = found["details"]["outside"] = self._outside[each.text]
                    yield found

    def owner(self, table: int, pid: int) -> int:
        """The first process that was seen with that table of descriptors: it is shown there, once."""
        return self._owners.setdefault(table, pid) if table else pid

    def environment(self, pid: int) -> list[str]:
        """What a process was started with."""
        return tree.environment(self.directory, pid)

    def mappings(self, pid: int) -> Iterator[dict[str, Any]]:
        """The memory of one process by mapping."""
        if mappings.has_memory(self.directory, pid):
            for each in mappings.counted(self.directory, pid, self.files):
                yield {"pid": pid, **counted(each)}

    def _memory(self, pid: int) -> dict[str, Any]:
        layout = mappings.layout(self.directory, pid)
        sums: dict[str, Any] = dict.fromkeys(("size", *PLACES, "changed"), 0)
        for each in mappings.counted(self.directory, pid, self.files):
            sums["size"] += each.mapping.size
            sums["changed"] += each.changed
            for place in PLACES:
                sums[place] += getattr(each, place)
                self._sums[place] += getattr(each, place)
        return sums | {"executable": self.files.path(layout.executable)}

    def mounts(self) -> Iterator[dict[str, Any]]:
        """Every mount with the number of its namespace."""
        for namespace, mount in surroundings.mounts(self.directory):
            yield {"namespace": namespace, **asdict(mount)}

    def cgroups(self) -> Iterator[dict[str, Any]]:
        """Sets of paths, then the cgroups whose values were saved."""
        sets, saved = surroundings.cgroups(self.directory)
        for each in sets:
            yield {"set": each.number, "paths": dict(each.paths)}
        for one in saved:
            yield {
                "controllers": list(one.controllers),
                "path": one.path,
                "properties": dict(one.properties),
            }

    def shared(self) -> Iterator[dict[str, Any]]:
        """Every shared object."""
        for each in mappings.shared_objects(self.directory):
            for place in PLACES:
                self._sums[place] += getattr(each, place)
            yield asdict(each)


def _outside(facts: Any) -> dict[str, str]:
    """Paths on the host, by the key that stands for them in the images: files that were open from outside."""
    listed = facts.get("files") if isinstance(facts, dict) else None
    return {
        str(each.get("key")): str(each.get("path"))
        for each in (listed if isinstance(listed, list) else ())
        if isinstance(each, dict)
    }


def counted(each: mappings.Counted) -> dict[str, Any]:
    """A mapping as in the document: addresses as text, since 64 bits are more than JSON readers keep."""
    found = asdict(each.mapping)
    found |= {"start": f"{each.mapping.start:#x}", "end": f"{each.mapping.end:#x}"}
    found |= {"size": each.mapping.size, **{place: getattr(each, place) for place in PLACES}}
    return found | {"untouched": each.untouched, "changed": each.changed}


def json_text(document: Document) -> Iterator[str]:
    """The document as JSON, in pieces: one line for each item of a list."""
    head = jsonio.dumps(document.head())
    yield head[:-1]
    for name, items in document.lists():
        yield f',\n"{name}":['
        comma = "\n"
        for item in items:
            yield comma + jsonio.dumps(item)
            comma = ",\n"
        yield "]"
    yield ",\n" + jsonio.dumps(document.tail())[1:] + "\n"
