"""`inspect` for people: plain lines, the same with and without a terminal. Never prints."""

import time
from collections.abc import Iterator
from typing import Any

from ocimig.cli.inspect_document import PLACES, Document
from ocimig.cli.shown import amount, line, shown

_WORDS = {"saved": "here", "inherited": "in a parent", "elsewhere": "held elsewhere",
          "lost": "nowhere"}  # fmt: skip
_LONGEST = 160


def lines(document: Document) -> Iterator[str]:
    """The whole report, line by line."""
    yield from head_lines(document.head())
    wanted = document.wanted
    for found, (process, before, below) in zip(document.processes(), document.order, strict=True):
        yield shown(before) + _process(found)
        inner = below + "     "
        if wanted.environment:
            yield from _block(inner, "environment", map(shown, found["environment"]))
            yield from _block(inner, "rights", rights_lines(found))
        if wanted.files or wanted.sockets:
            title = "files" if wanted.files else "sockets"
            yield from _block(inner, title, files_lines(found, document))
        if wanted.memory:
            yield from _block(inner, "memory", map(mapping_line, document.mappings(process.pid)))
    if wanted.memory:
        shared = (f"object {each['number']}  {places(each)}" for each in document.shared())
        yield from _block("", "shared memory", shared)
    if wanted.mounts:
        yield from _block("", "mounts", map(_mount, document.mounts()))
        yield from _block("", "cgroups", map(cgroup_line, document.cgroups()))
    yield from tail_lines(document.tail())


def head_lines(head: dict[str, Any]) -> Iterator[str]:
    """What the checkpoint is."""
    known = head["checkpoint"]
    if known is None:
        yield f"checkpoint in {shown(head['path'])}, not made by ocimig"
    else:
        yield shown(
            f"checkpoint of {known['id']}, taken {known['created']} by criu {known['criu']} "
            f"on {known['architecture']}, Linux {known['kernel']}"
        )
    yield from map(shown, _origin(head))
    if head["parents"]:
        yield f"memory is based on {head['parents']} earlier checkpoints"


def _origin(head: dict[str, Any]) -> Iterator[str]:
    """Where it lies, unless that is a directory."""
    origin = head["origin"]
    if head["kind"] == "archive":
        of = f", from the image {origin['image']}" if origin["image"] else ""
        signed = "signed, by whom was not checked" if origin["signed"] else "not signed"
        yield f"in the archive {head['path']}, made by {origin['maker']}, {signed}: {origin['name']}{of}"
    elif head["kind"] == "snapshot":
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(origin["time"]))
        tags = f", tags {', '.join(origin['tags'])}" if origin["tags"] else ""
        yield (
            f"snapshot {origin['id']} of {origin['container']} on {origin['host']} at {at} in "
            f"{origin['store']}{tags}"
        )


def tail_lines(tail: dict[str, Any]) -> Iterator[str]:
    """The totals, and the statistics."""
    totals = tail["totals"]
    count = totals["processes"]
    yield f"{count} {'process' if count == 1 else 'processes'}, memory: {places(totals)}"
    for which, values in tail.get("statistics", {}).items():
        words = (
            f"{name} {value / 1000:g} ms" if name.endswith("_time") else f"{name} {value}"
            for name, value in values.items()
        )
        yield from _block("", f"statistics of the {which}", words)


def _block(before: str, title: str, inner: Iterator[str]) -> Iterator[str]:
    """Nothing where there is nothing."""
    first = next(inner, None)
    if first is None:
        return
    yield f"{before}{title}"
    yield f"{before}  {first}"
    for each in inner:
        yield f"{before}  {each}"


def _process(found: dict[str, Any]) -> str:
    command = line(found["command"]) or f"[{shown(found['name'])}]"
    if len(command) > _LONGEST:
        command = command[: _LONGEST - 1] + "…"
    notes = [] if found["state"] == "running" else [found["state"]]
    notes.append(f"uid {found['credentials']['uids'][1]}")
    if len(found["threads"]) > 1:
        notes.append(f"{len(found['threads'])} threads")
    if memory := found.get("memory"):
        notes.append(places(memory))
    return f"{found['pid']} {command}  ({', '.join(notes)})"


def rights_lines(found: dict[str, Any]) -> Iterator[str]:
    """Ids, capabilities, limits and namespaces of a process."""
    rights = found["credentials"]
    yield f"uids {' '.join(map(str, rights['uids']))}, gids {' '.join(map(str, rights['gids']))}"
    if rights["groups"]:
        yield f"groups {' '.join(map(str, rights['groups']))}"
    for which in ("effective", "permitted", "inheritable", "bounding", "ambient"):
        if rights[which]:
            yield f"{which} {' '.join(rights[which])}"
    filters = found["seccomp"]
    counts = f", {filters['filters']} filters" if filters["filters"] else ""
    yield f"seccomp {filters['mode']}{counts}"
    if rights["no_new_privileges"]:
        yield "no new privileges"
    for each in found["limits"]:
        soft, hard = ("unlimited" if each[k] < 0 else each[k] for k in ("soft", "hard"))
        yield f"{each['name']} {soft} {hard}"
    for kind, namespace in found["namespaces"].items():
        about = f" {shown(namespace['about'])}" if namespace["about"] else ""
        yield f"{kind} namespace {namespace['id']}{about}"


def files_lines(found: dict[str, Any], document: Document) -> Iterator[str]:
    """The descriptors of a process, or whose they are."""
    if found["files_of"] != found["pid"]:
        yield f"shared with process {found['files_of']}"
    yield from map(file_line, document.descriptors(found["pid"]))


def file_line(found: dict[str, Any]) -> str:
    """One descriptor on a line."""
    position = found["details"].get("position")
    at = f" at {position}" if position else ""
    flags = ",".join(found["flags"]) + (",cloexec" if found["close_on_exec"] else "")
    return f"{found['number']:>4} {found['kind']:<9} {shown(found['text'])}{at}  {flags}"


def mapping_line(found: dict[str, Any]) -> str:
    """One mapping on a line, addresses first."""
    kind = found["protection"] + found["kind"][0]
    name = f"  {shown(found['name'])}" if found["name"] else ""
    return (
        f"{found['start']}-{found['end']} {kind} {amount(found['size']):>10}  {places(found)}{name}"
    )


def places(found: dict[str, Any]) -> str:
    """Where the memory is, in words."""
    words = [f"{amount(found[place])} {_WORDS[place]}" for place in PLACES if found[place]]
    return ", ".join(words) or "none saved"


def _mount(found: dict[str, Any]) -> str:
    flags = ",".join(found["flags"])
    outside = ", from outside" if found["external"] else ""
    return (
        f"{shown(found['target'])}  {shown(found['filesystem'])}  {shown(found['source'])}"
        f"{shown(found['root'])}  ({flags}{outside})"
    )


def cgroup_line(found: dict[str, Any]) -> str:
    """One set of cgroups, or one cgroup with its values."""
    if "set" in found:
        paths = ", ".join(f"{name or 'unified'} {path}" for name, path in found["paths"].items())
        return shown(f"set {found['set']}: {paths}")
    values = ", ".join(f"{name}={value.strip()}" for name, value in found["properties"].items())
    return shown(f"{','.join(found['controllers'])} {found['path']}: {values}")
