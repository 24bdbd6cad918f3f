"""The network of a container locked while it is frozen, and never left locked. Knows nothing of CRIU.

The lock is journalled in the container's state directory before it is taken: whoever finds the journal
and nobody at work (`recover`) removes the lock. TCP sockets that a killed CRIU left in repair mode send
nothing even after the lock is gone; `clear_repair` brings them back.
"""

import os
import socket
from collections.abc import Iterable
from typing import Any

from ocimig import files, jsonio, log
from ocimig.files import Fd
from ocimig.runtime.linux import netlink, process

JOURNAL = "network-lock.json"
TCP_REPAIR = 19
TCP_REPAIR_OFF = 0


class NetworkLock:
    """One lock of one network namespace. `announce`, `take`, `release` (fast), `remove`."""

    __slots__ = ("held", "journal", "namespace")

    def __init__(self, state_directory: str, namespace: int) -> None:
        self.journal = os.path.join(state_directory, JOURNAL)
        self.namespace = namespace
        self.held = False

    def announce(self, facts: dict[str, Any], *, sync: bool = True) -> None:
        """Write down that the lock will be taken: before the freeze, where it waits for the disk (`sync`)."""
        info = os.fstat(self.namespace)
        document = {**facts, "device": info.st_dev, "inode": info.st_ino}
        files.write_atomic(self.journal, jsonio.dumps(document).encode(), sync=sync)

    def take(self) -> None:
        """Drop every packet from now on."""
        try:
            netlink.lock(self.namespace)
        except FileExistsError:
            log.debug("the network was locked already")
        self.held = True

    def release(self) -> None:
        """Let packets pass; `remove` is still needed."""
        if self.held:
            netlink.release(self.namespace)

    def remove(self, *, journal: bool = True) -> None:
        """Nothing of the lock is left."""
        if self.held:
            netlink.unlock(self.namespace)
            self.held = False
        if journal:
            forget(self.journal)


def forget(journal: str) -> None:
    """Remove a journal; fine when there is none."""
    try:
        os.unlink(journal)
    except FileNotFoundError:
        pass


def left_behind(state_directory: str) -> dict[str, Any] | None:
    """The journal of a lock whose owner did not get to remove it."""
    try:
        value = jsonio.loads(files.read(os.path.join(state_directory, JOURNAL)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def clear_repair(pids: Iterable[int]) -> int:
    """Take TCP sockets of these processes out of repair mode; how many there were."""
    count = 0
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        with Fd(pidfd):
            for number in _sockets(pid):
                count += _clear_one(pidfd, number)
    return count


def _sockets(pid: int) -> list[int]:
    directory = f"/proc/{pid}/fd"
    found = []
    for name in _listed(directory):
        try:
            if os.readlink(f"{directory}/{name}").startswith("socket:"):
                found.append(int(name))
        except OSError:
            continue  # closed just now
    return found


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []  # it ended


def _clear_one(pidfd: int, number: int) -> int:
    try:
        fd = process.pidfd_getfd(pidfd, number)
    except OSError:
        return 0
    # The family is said, or Python asks for the address: of an AF_XDP socket that is an error.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=fd) as copy:
        try:
            if not _is_tcp(copy) or not copy.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR):
                return 0
            copy.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF)
        except OSError as error:
            log.debug(f"descriptor {number}: {error}")
            return 0
    return 1


def _is_tcp(copy: socket.socket) -> bool:
    """Asked of the kernel: other protocols have another option by the number of TCP_REPAIR."""
    family = copy.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    protocol = copy.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
    return family in (socket.AF_INET, socket.AF_INET6) and protocol == socket.IPPROTO_TCP
