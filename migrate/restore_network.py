"""The network of a container that comes back: a namespace, what is in it, and the lock on it."""

import os
from collections.abc import Mapping
from typing import Any

from ocimig.criu_images.errors import BadOption
from ocimig.files import Fd
from ocimig.migrate import netlock, restore_request
from ocimig.migrate.errors import RestoreFailed
from ocimig.migrate.restore_request import RestoreOptions
from ocimig.runtime.linux import namespaces, netlink


class RestoredNetwork:
    """Made before CRIU starts where that can be; in a user namespace when CRIU has made that one."""

    def __init__(
        self, spec: Mapping[str, Any], wanted: RestoreOptions, state_directory: str
    ) -> None:
        self.spec = spec
        self.wanted = wanted
        self.state_directory = state_directory
        self.namespace = -1
        self.facts: dict[str, Any] | None = wanted.network
        self._lock: netlock.NetworkLock | None = None
        given = restore_request.spaces(spec)
        self.own = given.get("network") == ""
        self._path = given.get("network", "")
        self._late = self.own and "user" in given and wanted.netns < 0

    def make(self) -> None:
        """The namespace, and everything in it."""
        if self.wanted.netns >= 0:
            self.namespace = os.dup(self.wanted.netns)
            self._set_sysctls()
        elif self._path:
            self.namespace = restore_request.open_namespace(self._path)
        elif self.own and not self._late:
            self.namespace = new_namespace()
            self._fill()

    def take_over(self, pid: int) -> bool:
        """The namespace CRIU made, when it was CRIU's to make; whether it was."""
        if not self._late or self.namespace >= 0:
            return False
        self.namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._fill()
        return True

    def _fill(self) -> None:
        netlink.loopback_up(self.namespace)
        self._set_sysctls()
        if self.wanted.connect is not None:
            self.facts = self.wanted.connect(self.namespace)

    def _set_sysctls(self) -> None:
        """Those of the network; the others are in the images."""
        wanted = (self.spec.get("linux") or {}).get("sysctl") or {}
        with netlink.Inside(self.namespace):
            for name, value in wanted.items():
                if name.startswith(("net.", "net/")):
                    _sysctl(name, str(value))

    def lock(self) -> None:
        """No packet in or out while sockets come back: a peer's would be answered with a reset."""
        if self.namespace >= 0:
            self._lock = netlock.NetworkLock(self.state_directory, self.namespace)
            self._lock.announce({}, sync=False)  # what a host forgets when it ends has ended too
            self._lock.take()

    def release(self) -> None:
        """Let packets pass."""
        if self._lock is not None:
            self._lock.release()

    def unlock(self) -> None:
        """Remove what is left of the lock."""
        if self._lock is not None:
            self._lock.remove()
            self._lock = None

    def abandon(self) -> None:
        """The restore failed. A namespace given by path stays locked: the connections wait in the image."""
        if self.own:
            self.unlock()

    def close(self) -> None:
        """The namespace lives on in the container, if there is one."""
        if self.namespace >= 0:
            os.close(self.namespace)
            self.namespace = -1


def new_namespace() -> int:
    """A descriptor of a new, empty network namespace."""
    with Fd(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as own:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        try:
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            namespaces.setns(own, namespaces.CLONE_NEWNET)


def _sysctl(name: str, value: str) -> None:
    path = name if "/" in name else name.replace(".", "/")
    if ".." in path.split("/"):
        raise BadOption(option="linux.sysctl", reason=f"{name!r} is no name")
    try:
        with Fd(os.open(f"/proc/sys/{path}", os.O_WRONLY | os.O_CLOEXEC)) as fd:
            os.write(fd, value.encode())
    except OSError as error:
        raise RestoreFailed(reason=f"sysctl {name}: {error.strerror}") from error
