"""Signals, pause, resume and the end of a container. Never makes one and never runs a program but hooks."""

import errno
import os
import time

from ocimig import files, log
from ocimig.runtime import state as facts
from ocimig.runtime.errors import (
    Busy,
    Held,
    NoSuchContainer,
    NotPaused,
    NotRunning,
    NotStopped,
    StateUnreadable,
    StillThere,
)
from ocimig.runtime.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocimig.runtime.cgroups import Cgroup
    from ocimig.runtime.state import ContainerState
    from ocimig.runtime.store import Store

_END_SECONDS = 10
_BUSY_SECONDS = 10


def state_document(store: "Store", id: str) -> "dict[str, Any]":
    """What `state` prints: runc's names in runc's order. Raises NoSuchContainer."""
    return document(store, store.load(id))


def document(store: "Store", state: "ContainerState", *, owner: str = "") -> "dict[str, Any]":
    """The state of a loaded container."""
    status = facts.status(state, store)
    result: dict[str, Any] = {
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": 0 if status == facts.STOPPED else state.pid,
        "status": status,
        "bundle": state.bundle,
        "rootfs": state.rootfs,
        "created": state.created,
    }
    if state.annotations:
        result["annotations"] = state.annotations
    result["owner"] = owner
    return result


def hook_document(state: "ContainerState", status: str) -> "dict[str, Any]":
    """What a hook reads on stdin: the state of the specification, no more."""
    result: dict[str, Any] = {"ociVersion": state.oci_version, "id": state.id, "status": status}
    if status != facts.STOPPED:
        result["pid"] = state.pid
    result["bundle"] = state.bundle
    if state.annotations:
        result["annotations"] = state.annotations
    return result


def kill(store: "Store", id: str, signal: int, all: bool = False) -> None:
    """Signal the container's process, or with `all` every process in its cgroup.

    Raises NotRunning when there is nothing to signal; with `all` an empty container is fine.
    """
    state = store.load(id)
    if all or (signal == process.SIGKILL and not _own_pid_namespace(store, id)):
        # Without a pid namespace of its own the others outlive the first process: all are meant.
        group = _cgroup(state)
        if group is not None and _killable(group):
            group.kill_all(signal)
            if signal == process.SIGKILL and group.frozen():
                group.thaw()
            return
        if all:
            return
    _signal_init(state, signal)
    if signal == process.SIGKILL:
        group = _cgroup(state)
        if group is not None:
            _let_die(group)


def _signal_init(state: "ContainerState", signal: int) -> None:
    stopped = NotRunning(id=state.id, status=facts.STOPPED)
    if state.pid <= 0:
        raise stopped
    try:
        pidfd = process.pidfd_open(state.pid)
    except ProcessLookupError:
        raise stopped from None
    try:
        # Checked after the descriptor was opened: it is this process that the facts are true of.
        if not facts.alive(state):
            raise stopped
        process.pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        raise stopped from None
    finally:
        os.close(pidfd)


def _let_die(group: "Cgroup") -> None:
    """After SIGKILL to the first process: in a frozen cgroup of version 1 even that one waits.

    The others are killed too before the thaw, for they would run until the first has ended: a
    container that goes on elsewhere must not do one more thing here.
    """
    if group.frozen():
        group.kill_all(process.SIGKILL)
        group.thaw()


def _own_pid_namespace(store: "Store", id: str) -> bool:
    try:
        namespaces = store.config(id).get("linux", {}).get("namespaces") or []
    except (NoSuchContainer, StateUnreadable):
        return True  # nothing says otherwise: signal only what is known
    return any(each.get("type") == "pid" and not each.get("path") for each in namespaces)


def _cgroup(state: "ContainerState") -> "Cgroup | None":
    if not state.cgroups:
        return None
    from ocimig.runtime import cgroups

    return cgroups.from_facts(state.cgroups)


def _killable(group: "Cgroup") -> bool:
    """Whether it has processes and we are not among them: else the cgroup is not only theirs."""
    pids = group.pids(recursive=True)
    return bool(pids) and os.getpid() not in pids


def pause(store: "Store", id: str) -> None:
    """Freeze every process of the container. Raises NotRunning."""
    with _Exclusive(store, id):
        state = store.load(id)
        status = facts.status(state, store)
        if status not in {facts.RUNNING, facts.CREATED}:
            raise NotRunning(id=id, status=status)
        group = _cgroup(state)
        if group is None:
            raise NotRunning(id=id, status="running without a cgroup")
        group.freeze()


def resume(store: "Store", id: str) -> None:
    """Let a paused container run on. Raises NotPaused, or Held where another host may run it."""
    with _Exclusive(store, id):
        state = store.load(id)
        status = facts.status(state, store)
        group = _cgroup(state)
        if status != facts.PAUSED or group is None:
            raise NotPaused(id=id, status=status)
        if held := state.extra.get("held"):
            raise Held(id=id, migration=str(held))
        group.thaw()


def delete(store: "Store", id: str, force: bool = False) -> None:
    """Remove what is left of a container; with `force` end it first. A missing one is fine with `force`.

    Whatever a crash left behind can be deleted: each step finds its work done or does it, and the
    state directory goes last.
    """
    try:
        with _Exclusive(store, id):
            _delete_locked(store, id, force)
    except NoSuchContainer:
        if not force:
            raise


def _delete_locked(store: "Store", id: str, force: bool) -> None:
    try:
        state = store.load(id)
    except NoSuchContainer:
        store.remove(id)  # its maker died before there was anything to write down
        return
    except StateUnreadable as error:
        if not force:
            raise
        log.warning(f"{error}: what it made on this host may be left")
        store.remove(id)
        return
    status = facts.status(state, store)
    if status not in {facts.STOPPED, facts.CREATED} and not force:
        raise NotStopped(id=id, status=status)
    end(state)
    _unmount(state.mounts)
    hooks = _poststop_hooks(store, state)
    _let_go(state)
    store.remove(id)
    if hooks:  # of a container that is gone already, says the specification
        from ocimig.runtime import hooks as runner

        runner.run_all(hooks, hook_document(state, facts.STOPPED), "poststop")


def end(state: "ContainerState") -> None:
    """Kill every process of a container, wait until they are gone, and remove its cgroup.

    Raises StillThere after 10 seconds; then nothing was removed.
    """
    deadline = time.monotonic() + _END_SECONDS
    group = _cgroup(state)
    _end_init(state, group, deadline)
    if group is None:
        _remove_planned(state)
        return
    pids = group.pids(recursive=True)
    while pids:
        if os.getpid() in pids:
            log.warning(f"container {state.id}: its cgroup holds other processes too, it is left")
            return
        if time.monotonic() >= deadline:
            raise _still_there(state, pids)
        _end_all(pids, group, deadline)
        pids = group.pids(recursive=True)
    group.delete()


def _remove_planned(state: "ContainerState") -> None:
    """The cgroup of a container whose maker died while making it: only where nobody is in it."""
    planned = state.extra.get("planned_cgroups")
    if not isinstance(planned, dict):
        return
    from ocimig.runtime import cgroups

    group = cgroups.from_facts(planned)
    if not group.pids(recursive=True):
        group.delete()


def _end_init(state: "ContainerState", group: "Cgroup | None", deadline: float) -> None:
    if state.pid <= 0:
        return
    try:
        pidfd = process.pidfd_open(state.pid)
    except ProcessLookupError:
        return
    try:
        if not facts.alive(state):
            return
        process.pidfd_send_signal(pidfd, process.SIGKILL)
        if group is not None:
            _let_die(group)
        if not process.pidfd_wait(pidfd, deadline - time.monotonic()):
            raise _still_there(state, [state.pid])
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def _end_all(pids: "list[int]", group: "Cgroup", deadline: float) -> None:
    group.kill_all(process.SIGKILL)
    _let_die(group)
    for pid in pids:
        try:
            pidfd = process.pidfd_open(pid)
        except OSError:  # gone
            continue
        try:
            # Short: the number may be another's by now, and then the next look at the cgroup shows it.
            process.pidfd_wait(pidfd, min(1.0, max(0.0, deadline - time.monotonic())))
        finally:
            os.close(pidfd)


def _still_there(state: "ContainerState", pids: "list[int]") -> StillThere:
    shown = ", ".join(map(str, pids[:8])) + (" …" if len(pids) > 8 else "")
    return StillThere(id=state.id, pids=shown, seconds=_END_SECONDS)


def _unmount(paths: "list[str]") -> None:
    """Detach what was mounted on the host for this container and nothing else, last one first."""
    if not paths:
        return
    from ocimig.runtime.linux import mount

    for path in reversed(paths):
        try:
            mount.umount2(path, mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOENT}:  # not a mount point any more
                raise


def _let_go(state: "ContainerState") -> None:
    """Whoever is the last that stands on something takes it away."""
    if not state.shared:
        return
    from ocimig.runtime import shared

    for place in state.shared:
        try:
            shared.release(place, state.id)
        except OSError as error:
            log.warning(f"container {state.id}: {place} is left: {error.strerror}")


def _poststop_hooks(store: "Store", state: "ContainerState") -> "list[dict[str, Any]]":
    try:
        return (store.config(state.id).get("hooks") or {}).get("poststop") or []
    except (NoSuchContainer, StateUnreadable) as error:
        log.warning(f"container {state.id}: no poststop hooks were run: {error}")
        return []


class _Exclusive:
    """The container's lock, waited for a bounded time: a maker that hangs must not hang us."""

    __slots__ = ("_id", "_lock", "_store")

    def __init__(self, store: "Store", id: str) -> None:
        self._store = store
        self._id = id
        self._lock: files.Lock = store.lock(id, wait=False)

    def __enter__(self) -> None:
        deadline = time.monotonic() + _BUSY_SECONDS
        pause_for = 0.001
        while True:
            try:
                self._lock.__enter__()
                return
            except (FileNotFoundError, NotADirectoryError):
                raise NoSuchContainer(id=self._id, root=self._store.root) from None
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Busy(id=self._id) from None
            time.sleep(pause_for)  # flock(2) knows no timeout without a signal
            pause_for = min(0.05, pause_for * 2)

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__(None, None, None)
