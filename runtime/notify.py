"""sd_notify between a container and whoever started us. Never speaks unless the container did.

create     makes <state dir>/notify, which is bind-mounted at /run/notify, and sets NOTIFY_SOCKET
start      binds notify.sock in it, then waits: container says READY=1
           -> to the host's NOTIFY_SOCKET: "READY=1", "MAINPID=<pid on the host>", then "BARRIER=1"
              with a pipe, so that we do not end before the host's manager has read them
"""

import _socket
import os
import select

from ocimig import log
from ocimig.runtime import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIRECTORY = "/run/notify"
SOCKET = DIRECTORY + "/notify.sock"
_BARRIER_SECONDS = 30


class Notify:
    """The container's side of the relay: a socket in its state directory."""

    __slots__ = ("directory", "host", "sock")

    def __init__(self, state_dir: str, host: str) -> None:
        """`host` is the NOTIFY_SOCKET of our own environment."""
        self.directory = os.path.join(state_dir, "notify")
        self.host = host
        self.sock: _socket.socket | None = None

    @classmethod
    def of(cls, state_dir: str) -> "Notify | None":
        """The relay of this environment; None where nobody asked for one."""
        host = os.environ.get("NOTIFY_SOCKET", "")
        return cls(state_dir, host) if host else None

    def prepare(self) -> None:
        """Make the directory that the container will see at /run/notify."""
        os.makedirs(self.directory, mode=0o755, exist_ok=True)

    def mount(self) -> "dict[str, Any]":
        """The bind mount for config.json's list."""
        return {
            "destination": DIRECTORY,
            "type": "bind",
            "source": self.directory,
            "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
        }

    def environment(self) -> str:
        """The variable for the container's environment."""
        return f"NOTIFY_SOCKET={SOCKET}"

    def bind(self) -> None:
        """Listen, before the container's program begins. A container made without a relay has none."""
        self.close()
        if os.path.isdir(self.directory):
            path = os.path.join(self.directory, "notify.sock")
            self.sock = sockets.bind(path, _socket.SOCK_DGRAM, 0o777)

    def close(self) -> None:
        """Listen no more."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def wait(self, pid: int, pidfd: int) -> bool:
        """Relay the READY of process `pid` to the host; False when it ended without one."""
        if self.sock is None:
            return False
        poller = select.poll()
        poller.register(self.sock.fileno(), select.POLLIN)
        poller.register(pidfd, select.POLLIN)
        while True:
            events = dict(poller.poll())
            if self.sock.fileno() in events and self.relay(pid):
                return True
            if pidfd in events and self.sock.fileno() not in events:
                return False

    def relay(self, pid: int) -> bool:
        """Take one message; when it says READY=, tell the host and answer True."""
        assert self.sock is not None
        # recv(2) drops descriptors that come with it
        ready = ready_line(self.sock.recv(65536))
        if not ready:
            return False
        try:
            tell(self.host, ready, pid)
        except OSError as error:
            log.warning(f"cannot tell {self.host} that the container is ready: {error.strerror}")
        return True


def ready_line(message: bytes) -> bytes:
    """The line of a message that begins with READY=, or nothing."""
    for line in message.split(b"\n"):
        if line.startswith(b"READY="):
            return line
    return b""


def tell(host: str, ready: bytes, pid: int) -> None:
    """Send READY and MAINPID to a manager and wait until it has taken them in."""
    sock = sockets.connect(host, _socket.SOCK_DGRAM)
    try:
        sock.send(ready + b"\n")
        sock.send(b"MAINPID=%d" % pid)
        _barrier(sock)
    finally:
        sock.close()


def _barrier(sock: "_socket.socket") -> None:
    """sd_notify_barrier(3): the manager closes the descriptor when it has read all before it."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            sockets.send(sock, b"BARRIER=1", [writer])
        finally:
            os.close(writer)
        poller = select.poll()
        poller.register(reader, 0)  # POLLHUP comes unasked
        if not poller.poll(_BARRIER_SECONDS * 1000):
            log.warning(f"no answer to BARRIER=1 within {_BARRIER_SECONDS} seconds")
    finally:
        os.close(reader)
