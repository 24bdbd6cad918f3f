"""Undo what a checkpoint or a restore left behind that was killed: thaw, unlock, take sockets out of repair mode."""

import os

from ocimig import log
from ocimig.files import Fd
from ocimig.migrate import netlock
from ocimig.migrate.errors import LockLeftBehind
from ocimig.runtime import cgroups
from ocimig.runtime import state as facts
from ocimig.runtime.linux import netlink
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store


def recover(store: Store, state: ContainerState) -> list[str]:
    """Make the container usable again; what was done, in words. The caller holds the container's lock.

    Raises LockLeftBehind when the lock cannot be removed.
    """
    directory = store.path(state.id)
    journal = netlock.left_behind(directory)
    if journal is None:
        return []
    done: list[str] = []
    if facts.alive(state):
        try:
            done += _unlock(state)
        finally:  # a network that stays locked is no reason to keep it frozen as well
            done += _thaw(state, paused=bool(journal.get("paused")))
    netlock.forget(os.path.join(directory, netlock.JOURNAL))
    for words in done:
        log.warning(f"container {state.id}: {words} after a checkpoint or restore that did not end")
    return done


def _thaw(state: ContainerState, *, paused: bool) -> list[str]:
    done: list[str] = []
    group = cgroups.from_facts(state.cgroups) if state.cgroups else None
    pids = group.pids() if group is not None else [state.pid]
    count = netlock.clear_repair(pids)
    if count:
        done.append(f"took {count} sockets out of repair mode")
    if group is not None and group.frozen() and not paused:
        group.thaw()
        done.append("thawed its processes")
    return done


def _unlock(state: ContainerState) -> list[str]:
    try:
        with Fd(os.open(f"/proc/{state.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
            return ["unlocked its network"] if netlink.unlock(namespace) else []
    except OSError as error:
        raise LockLeftBehind(id=state.id, reason=error.strerror or str(error)) from error
