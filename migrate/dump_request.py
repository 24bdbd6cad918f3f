"""What a checkpoint is asked for, whether it can be done at all, and the same as options of CRIU. Reads only, but for address_file."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ocimig import files
from ocimig.criu_images import options
from ocimig.criu_images.errors import BadOption
from ocimig.files import Fd
from ocimig.migrate import blockers, descriptors, inside, watched
from ocimig.migrate.errors import NotCheckpointable
from ocimig.migrate.external import External
from ocimig.runtime import cgroups
from ocimig.runtime import state as facts
from ocimig.runtime.errors import Held, NotRunning
from ocimig.runtime.linux import namespaces, proc
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store

NAMESPACE_KEYS = {"network": "extRootNetNS", "pid": "extRootPidNS"}
_FREEZERS = ("freezer", "unified")
_PASSED_ON = ("leave_running", "tcp_established", "tcp_skip_in_flight", "tcp_close", "link_remap",
              "ext_unix_sk", "shell_job", "file_locks", "auto_dedup", "lazy_pages")  # fmt: skip
_KEPT = ("tcp_established", "tcp_close", "tcp_skip_in_flight", "ext_unix_sk", "shell_job", "file_locks",
         "link_remap")  # fmt: skip


@dataclass(frozen=True, slots=True)
class CheckpointOptions:
    """As the options of `ocimig checkpoint`, which have runc's names and meaning.

    `seal` false leaves hashing and the manifest to whoever carries the files away. `keep` leaves the
    (stopped) container's record and cgroup in place. `before_freeze` is called when everything is warm.
    `confirm_late` leaves it to `on_frozen` to call Frozen.confirm before another copy of it may run.
    """

    image_path: str = "checkpoint"
    work_path: str = ""
    parent_path: str = ""
    leave_running: bool = False
    tcp_established: bool = False
    tcp_skip_in_flight: bool = False
    tcp_close: bool = False
    link_remap: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    lazy_pages: bool = False
    page_server: str = ""
    status_fd: int = -1
    file_locks: bool = False
    pre_dump: bool = False
    manage_cgroups_mode: str = ""
    empty_ns: tuple[str, ...] = ()
    auto_dedup: bool = False
    network_lock: str = ""
    seal: bool = True
    keep: bool = False
    before_freeze: Callable[[], None] | None = None
    confirm_late: bool = False


def refuse(
    wanted: CheckpointOptions, store: Store, state: ContainerState, spec: Mapping[str, Any]
) -> None:
    """Raise what stands in the way, while nothing was touched yet."""
    status = facts.status(state, store)
    if status == facts.CREATED:
        raise NotCheckpointable(
            reason="Container cannot be checkpointed in created state",
            remedy=f"first: ocimig start {state.id}",
        )
    if status not in {facts.RUNNING, facts.PAUSED}:
        raise NotRunning(id=state.id, status=status)
    if os.geteuid():
        raise NotCheckpointable(reason="criu needs root", remedy="run this as root")
    _refuse_options(wanted)
    if held := state.extra.get("held"):
        raise Held(id=state.id, migration=str(held))
    for entry in spec.get("linux", {}).get("namespaces") or []:
        if entry.get("path") and entry["type"] in {"user", "mount", "time", "cgroup"}:
            raise NotCheckpointable(
                reason=f"criu cannot restore into a {entry['type']} namespace given by path",
                remedy="give the container its own",
            )
    found = descriptors.unsupported([state.pid, *proc.descendants(state.pid)])
    if found:
        raise NotCheckpointable(
            reason="criu cannot save what these processes hold: " + ", ".join(found),
            remedy="turn it off in the program, or deny it by seccomp",
        )
    _refuse_deadly(state, spec)
    outside = descriptors.foreign_sockets(state.pid, state.descriptors)
    if outside:
        raise NotCheckpointable(
            reason=f"descriptor {outside[0]} is a socket of the host, which criu cannot save",
            remedy="start the container with a pipe or a file there",
        )


def _refuse_deadly(state: ContainerState, spec: Mapping[str, Any]) -> None:
    """What CRIU would wait for as long as it is patient, or lose without a word."""
    things = blockers.deadly(state.pid, [state.pid, *proc.descendants(state.pid)], spec)
    found = list(inside.findings(things, None))
    if found:
        raise NotCheckpointable(
            reason="criu cannot save this container: " + "; ".join(each.text for each in found),
            remedy="; ".join(dict.fromkeys(each.fix for each in found)),
        )


def refuse_mounts(mounts: Iterable[External]) -> None:
    """Raise for mounts of no place that can be named: restored, they would show something else."""
    lost = [mount.target for mount in mounts if mount.nowhere]
    if lost:
        raise NotCheckpointable(
            reason=f"criu cannot save what is mounted at {', '.join(lost)}",
            remedy="unmount it in the container, or mount it by config.json from a directory of the host",
        )


def _refuse_options(wanted: CheckpointOptions) -> None:
    if os.path.isabs(wanted.parent_path):
        raise BadOption(option="parent-path", reason="it has to be relative to the image path")
    if wanted.network_lock not in {"", *options.LOCKS}:
        raise BadOption(
            option="network-lock",
            reason=f"no such method: {wanted.network_lock}",
            remedy="use one of: " + ", ".join(options.LOCKS),
        )
    options.empty_namespaces(wanted.empty_ns)
    _address(wanted.page_server)


def kept(wanted: CheckpointOptions) -> dict[str, Any]:
    """What a restore has to be asked for likewise."""
    return {name: True for name in _KEPT if getattr(wanted, name)}


def values(wanted: CheckpointOptions, state: ContainerState) -> dict[str, Any]:
    """The plain fields of CRIU's options."""
    found: dict[str, Any] = {
        "pid": state.pid,
        "root": state.rootfs,
        "orphan_pts_master": True,
        "ghost_limit": descriptors.GHOST_LIMIT,
        "timeout": options.FREEZE_SECONDS,
        "ext_masters": True,
    }
    found.update({name: True for name in _PASSED_ON if getattr(wanted, name)})
    if names := watched.paths(state.pid, [state.pid, *proc.descendants(state.pid)]):
        found["irmap_scan_paths"] = names
    if wanted.parent_path:
        found["parent_img"] = os.path.join("..", wanted.parent_path)
    if wanted.parent_path or wanted.pre_dump:
        found["track_mem"] = True
    if wanted.status_fd >= 0:
        found["status_fd"] = wanted.status_fd
    if freezer := _freezer(state):
        found["freeze_cgroup"] = freezer
    return found


def _freezer(state: ContainerState) -> str:
    """The cgroup that CRIU may freeze; "" where it stops the processes one by one.

    A process that SIGSTOP stopped does not answer ptrace while a version 1 freezer holds it: CRIU would
    wait for it for ever, and the container with it.
    """
    if state.cgroups.get("freezer"):
        for pid in cgroups.from_facts(state.cgroups).pids():
            found = proc.stat(pid)
            if found is not None and found.state == "T":
                return ""
    return next((state.cgroups[name] for name in _FREEZERS if state.cgroups.get(name)), "")


def declare_namespaces(
    wanted: CheckpointOptions, spec: Mapping[str, Any], pid: int
) -> tuple[list[str], int]:
    """External namespaces, and the flags of those that are left empty.

    The network is rebuilt, not saved: external where we can make it beforehand, empty where CRIU has to
    make it inside a user namespace.
    """
    declared: list[str] = []
    empty = 0
    given = {each["type"]: each.get("path") or "" for each in spec["linux"].get("namespaces") or []}
    for name, key in NAMESPACE_KEYS.items():
        flag, file = namespaces.NAMESPACES[name]
        path = given.get(name)
        if path is None or (not path and name != "network"):
            continue
        if not path and "user" in given:
            empty |= flag
        elif not path or not _same(path, f"/proc/self/ns/{file}"):
            inode = os.stat(f"/proc/{pid}/ns/{file}").st_ino
            declared.append(f"{file}[{inode}]:{key}")
    if wanted.empty_ns and not any(text.startswith("net[") for text in declared):
        empty |= options.empty_namespaces(wanted.empty_ns)
    return declared, empty


def page_server(wanted: CheckpointOptions) -> tuple[str, int] | None:
    """Where the pages go, when not into the directory."""
    return _address(wanted.page_server)


def _address(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadOption(option="page-server", reason=f"{text!r} is not ADDRESS:PORT")
    return host, int(port)


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def address_file(work: int, address: str) -> str:
    """A configuration file for CRIU that holds the address of its lazy page server, in its work directory.

    Asked over RPC for lazy pages CRIU reads only the port and listens on every address of the host, to
    whoever connects (criu/cr-service.c); a configuration file is believed.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with Fd(os.open("criu.conf", flags, 0o600, dir_fd=work)) as file:
        files.write_all(file, f"address {address}\n".encode())
    return f"/proc/{os.getpid()}/fd/{work}/criu.conf"
