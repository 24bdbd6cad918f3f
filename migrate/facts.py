"""What a host and a container are like, as JSON-able values for preflight. Never judges them."""

import errno
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ocimig import __version__
from ocimig.migrate import journal, mountinfo
from ocimig.runtime.linux import proc
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store

IMAGE_HOMES = ("/var/lib/ocimig", "/var/tmp")
PIPE_LIMIT = "/proc/sys/fs/pipe-max-size"


def host(store: Store, request: Mapping[str, Any]) -> dict[str, Any]:
    """All that preflight wants to know of this host. `request` says about which container.

    Used keys: id, bundle, paths (to exist), network (its configuration or None), probe_address.
    """
    return {
        "ocimig": __version__,
        "host": host_name(),
        "host_id": host_id(),
        "boot_id": proc.boot_id(),
        "uid": os.geteuid(),
        "machine": os.uname().machine,
        "kernel": os.uname().release,
        "page_size": os.sysconf("SC_PAGE_SIZE"),
        "cpu_flags": cpu_flags(),
        "clock": time.time(),
        "memory": memory(),
        "huge_free": huge_free(),
        "pipe_max_size": _number(PIPE_LIMIT),
        "cgroup": cgroup_layout(),
        "lsm": _text("/sys/kernel/security/lsm").split(","),
        "criu": criu(),
        "network_lock": network_lock(),
        "root": space(store.root),
        "images": [space(path) for path in image_homes(store)],
        "bundle": space(str(request["bundle"])),
        "taken": _taken(store, str(request["id"])),
        "epoch": journal.epoch(store, str(request["id"])),
        "missing": [path for path in request.get("paths", ()) if not os.path.exists(path)],
        "network": _network(request.get("network"), bool(request.get("probe_address"))),
    }


def host_name() -> str:
    """The name of this host, for messages."""
    return socket.gethostname()


def host_id() -> str:
    """What tells this host from others even when names repeat."""
    return _text("/etc/machine-id") or host_name()


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _number(path: str) -> int:
    text = _text(path)
    return int(text) if text.isdigit() else 0


def cpu_flags() -> list[str]:
    """The features of the processor that every core has."""
    common: set[str] | None = None
    for line in _text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            flags = set(value.split())
            common = flags if common is None else common & flags
    return sorted(common or ())


def memory() -> dict[str, int]:
    """Bytes of memory that can be had, and of swap."""
    found = {}
    for line in _text("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * 1024
    return {"available": found.get("MemAvailable", 0), "swap": found.get("SwapFree", 0)}


def huge_free() -> int:
    """Bytes in huge pages, of every size, that nobody has."""
    free = 0
    for name in _listed("/sys/kernel/mm/hugepages"):
        kib = name.removeprefix("hugepages-").removesuffix("kB")
        if kib.isdigit():
            free += _number(f"/sys/kernel/mm/hugepages/{name}/free_hugepages") * int(kib) * 1024
    return free


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []  # a kernel without them


def cgroup_layout() -> str:
    """`v2`, `v1` or `hybrid`, by what is mounted."""
    kinds = {mount.fstype for mount in mountinfo.read()} & {"cgroup", "cgroup2"}
    if kinds == {"cgroup2"}:
        return "v2"
    return "hybrid" if len(kinds) == 2 else "v1" if kinds else "none"


def criu() -> dict[str, Any]:
    """Which CRIU there is and what it can do; `problem` in words when it cannot be used."""
    from ocimig.criu_images import features
    from ocimig.errors import OcimigError

    try:
        found = features.probe()
    except (OcimigError, OSError) as error:
        advice = error.advice if isinstance(error, OcimigError) else ""
        return {"version": "", "problem": str(error), "fix": advice}
    return {
        "version": found.version, "problem": "", "fix": "", "withholds": found.withholds,
    }  # fmt: skip


def network_lock() -> str:
    """Empty when a network namespace can be locked here, else why not."""
    from ocimig.migrate import network
    from ocimig.runtime.linux import netlink

    try:
        namespace = network.new_namespace()
        try:
            netlink.lock(namespace)
            netlink.unlock(namespace)
        finally:
            os.close(namespace)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def image_homes(store: Store) -> list[str]:
    """Where the images of a migration may lie, best first."""
    return [journal.directory(store), *IMAGE_HOMES]


def space(path: str) -> dict[str, Any]:
    """A directory that is there or would be made: what holds it, and how much fits."""
    parent = os.path.abspath(path)
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    answer: dict[str, Any] = {
        "path": path,
        "exists": os.path.lexists(path),
        "empty": _is_empty(path),
        "parent": parent,
        "directory": os.path.isdir(parent),
        "problem": "",
        "free": 0,
        "inodes": -1,
        "memory": False,
    }
    try:
        there = os.statvfs(parent)
    except OSError as error:
        answer["problem"] = (error.strerror or str(error)).lower()
        return answer
    answer["free"] = there.f_bavail * there.f_frsize
    answer["inodes"] = there.f_favail if there.f_files else -1
    answer["memory"] = _on_tmpfs(parent)
    if there.f_flag & os.ST_RDONLY:
        answer["problem"] = os.strerror(errno.EROFS).lower()
    elif not os.access(parent, os.W_OK | os.X_OK):
        answer["problem"] = os.strerror(errno.EACCES).lower()
    return answer


def _is_empty(path: str) -> bool:
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def _on_tmpfs(path: str) -> bool:
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    kinds = (mount.fstype for mount in mountinfo.read() if mount.device == wanted)
    return next(kinds, "") in ("tmpfs", "ramfs")


def _taken(store: Store, id: str) -> str:
    """Who holds the name: empty, `container`, or a migration on its way here."""
    if store.exists(id):
        return "container"
    for entry in journal.of_container(store, id):
        if entry.side == "destination" and not entry.ended:
            return f"migration {entry.migration}"
    return ""


def _network(config: Mapping[str, Any] | None, probe: bool) -> dict[str, Any] | None:
    if config is None:
        return None
    from ocimig.migrate import network, network_arp

    wanted = network.from_facts(config)
    there = network.bridge_facts(wanted.bridge)
    there["holder"] = ""
    if probe and there["kind"] == "bridge" and there["up"]:
        there["holder"] = network_arp.holder(wanted.bridge, wanted.ip)
    return there


def container(state: ContainerState, spec: Mapping[str, Any]) -> dict[str, Any]:
    """All that preflight wants to know of the container; its processes are only looked at."""
    pids = [state.pid, *proc.descendants(state.pid)]
    sizes = [_sizes(pid) for pid in pids]
    return {
        "id": state.id,
        "pid": state.pid,
        "bundle": state.bundle,
        "rootfs": state.rootfs,
        "processes": len(pids),
        "memory": _memory_of(state, sizes),
        "huge": max((size["HugetlbPages"] for size in sizes), default=0),
        "network": dict(state.network) if state.network else None,
        "own_network": _own_network(spec),
        "annotations": dict(state.annotations),
        "binds": bind_sources(spec, state.bundle),
        "terminal": bool((spec.get("process") or {}).get("terminal")),
        "pid_namespace": any(
            entry.get("type") == "pid"
            for entry in (spec.get("linux") or {}).get("namespaces") or ()
        ),
        "pipes": [
            number
            for number, name in enumerate(state.descriptors[:3])
            if name.startswith(("pipe:", "socket:"))
        ],
        "objects": _blockers(state, spec, pids),
        "connections": connections(pids),
    }


def _blockers(
    state: ContainerState, spec: Mapping[str, Any], pids: Sequence[int]
) -> list[dict[str, Any]]:
    from ocimig.migrate import blockers, descriptors
    from ocimig.runtime import cgroups

    found = [*blockers.configured(spec), *blockers.look(state.pid, pids, spec)]
    known = {(thing.get("pid"), thing.get("fd")) for thing in found}
    found += [
        {"kind": "foreign socket", "pid": state.pid, "fd": fd, "name": state.descriptors[fd]}
        for fd in descriptors.foreign_sockets(state.pid, state.descriptors)
        if (state.pid, fd) not in known
    ]
    if state.cgroups:
        found += blockers.others(state.pid, pids, cgroups.from_facts(state.cgroups).pids())
    return found


def _own_network(spec: Mapping[str, Any]) -> bool:
    namespaces = (spec.get("linux") or {}).get("namespaces") or ()
    return any(entry.get("type") == "network" and not entry.get("path") for entry in namespaces)


def bind_sources(spec: Mapping[str, Any], bundle: str) -> list[str]:
    """The host's files and directories that the container sees; those of the bundle travel with it."""
    found = []
    for mount in spec.get("mounts") or ():
        options = mount.get("options") or ()
        if mount.get("type") == "bind" or "bind" in options or "rbind" in options:
            source = os.path.normpath(os.path.join(bundle, str(mount.get("source", ""))))
            if not (source + "/").startswith(bundle.rstrip("/") + "/"):
                found.append(source)
    return found


def _memory_of(state: ContainerState, sizes: Sequence[Mapping[str, int]]) -> int:
    """Bytes that have to be somewhere over there: private memory of each process, in RAM or swapped out,
    and once what they share, with the files of tmpfs mounts."""
    from ocimig.runtime.cgroups import stats

    shared = max((size["RssShmem"] for size in sizes), default=0)
    for controller in ("memory", "unified"):
        if path := state.cgroups.get(controller):
            found = stats.table(os.path.join(path, "memory.stat"))
            shared = max(shared, found.get("total_shmem", found.get("shmem", 0)))
    return shared + sum(size["RssAnon"] + size["VmSwap"] for size in sizes)


def _sizes(pid: int) -> dict[str, int]:
    fields = proc.status(pid) or {}
    sizes = {}
    for name in ("RssAnon", "RssShmem", "VmSwap", "HugetlbPages"):
        words = fields.get(name, "0").split()
        sizes[name] = int(words[0]) * 1024 if words and words[0].isdigit() else 0
    return sizes


def connections(pids: Sequence[int]) -> int:
    """How many established TCP connections these processes have to somebody outside."""
    established = set()
    for name in ("tcp", "tcp6"):
        for line in _text(f"/proc/{pids[0]}/net/{name}").splitlines()[1:]:
            words = line.split()
            if len(words) > 9 and words[3] == "01" and not _loopback(words[1]):
                established.add(f"socket:[{words[9]}]")
    return len(established & {name for pid in pids for name in _open_names(pid)})


def _open_names(pid: int) -> list[str]:
    found = []
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))  # noqa: PERF401  keeps what it has
    except OSError:
        pass  # it ended, or closed one just now
    return found


def _loopback(local: str) -> bool:
    """127.0.0.0/8 and ::1 as /proc/net/tcp writes them."""
    address = local.partition(":")[0]
    return address == "00000000000000000000000001000000" or (
        len(address) == 8 and address.endswith("7F")
    )


def tree_size(roots: Sequence[str]) -> dict[str, int]:
    """Bytes on disk and inodes below the directories, each file once; other file systems are not entered."""
    total, count = 0, 0
    seen: set[tuple[int, int]] = set()
    for root in roots:
        device = os.lstat(root).st_dev
        stack = [root]
        while stack:
            try:
                entries = list(os.scandir(stack.pop()))
            except OSError:
                continue
            for entry in entries:
                there = entry.stat(follow_symlinks=False)
                if there.st_dev != device or (there.st_dev, there.st_ino) in seen:
                    continue
                seen.add((there.st_dev, there.st_ino))
                total += there.st_blocks * 512
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
    return {"bytes": total, "inodes": count}
