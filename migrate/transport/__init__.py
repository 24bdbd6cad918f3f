"""Byte streams to programs on another host. Never knows what travels on them.

Four implementations pass one contract suite (tests/contract/test_transport.py): paramiko (`ssh`),
the OpenSSH program (`openssh`), a process on this host (`local`) and one in this process (`memory`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from ocimig.migrate.errors import InvalidTarget

TRANSPORTS = ("paramiko", "openssh", "local")
STDERR_TAIL = 64 << 10  # bytes of the far program's stderr that are kept

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._%:-]*[A-Za-z0-9])?\.?")
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@\\+-]*\$?")


class Channel(Protocol):
    """One program on the far side: its standard input, output, the end of its stderr, its status.

    One thread may read while another writes. `timeout` is the longest wait, in seconds, for any
    progress at all; None waits for ever, 0 does not wait. A wait that is too long raises
    TimeoutError; a connection that breaks raises LinkLost.
    """

    host: str

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """Up to `size` bytes of the program's output, at least one; b"" once it has ended."""
        ...

    def write(self, data: bytes | memoryview, timeout: float | None = None) -> None:
        """All of `data` to the program's input."""
        ...

    def close_write(self) -> None:
        """End the program's input; its output can still be read."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """The exit status of the program, as its login shell gives it."""
        ...

    def stderr_tail(self) -> str:
        """The last lines the program, or what starts it, wrote to stderr so far."""
        ...

    def close(self) -> None:
        """Give up both directions and whatever runs here for it. Can be called twice."""
        ...


@runtime_checkable
class Filling(Protocol):
    """A channel that can also read to where its caller wants the bytes."""

    def read_into(self, into: memoryview, timeout: float | None = None) -> int:
        """As Channel.read, up to the size of `into`: how many bytes came, 0 at the end."""
        ...


class Connection(Protocol):
    """A way to start programs on one host."""

    host: str

    def open(self, argv: Sequence[str], *, separate: bool = False) -> Channel:
        """Start a program. `separate` gives it a connection of its own, for bulk data."""
        ...

    def close(self) -> None:
        """End all channels. Can be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Target:
    """Which host, as whom, and how it is recognised. Empty fields are left to ~/.ssh/config."""

    host: str
    user: str = ""
    port: int = 0
    identity: str = ""
    known_hosts: str = ""
    config: str = ""
    accept_new: bool = False
    connect_timeout: float = 10.0

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        port: int = 0,
        identity: str = "",
        known_hosts: str = "",
        config: str = "",
        accept_new: bool = False,
        connect_timeout: float = 10.0,
    ) -> "Target":
        """Read `[ssh://][user@]host[:port]`; a port in `text` and another in `port` is a mistake."""
        rest = text.removeprefix("ssh://").removesuffix("/") if text.startswith("ssh://") else text
        user, at, rest = rest.rpartition("@")
        if (at and not user) or (user and not _USER.fullmatch(user)):
            raise InvalidTarget(target=text, reason="the user name is not one")
        host, written = _split_port(rest, text)
        if not _HOST.fullmatch(host):
            raise InvalidTarget(target=text, reason="the host name is not one")
        if written and port and written != port:
            raise InvalidTarget(target=text, reason=f"it names port {written}, and -p names {port}")
        return cls(
            host=host,
            user=user,
            port=_checked_port(written or port, text),
            identity=identity,
            known_hosts=known_hosts,
            config=config,
            accept_new=accept_new,
            connect_timeout=connect_timeout,
        )


def _split_port(rest: str, text: str) -> tuple[str, int]:
    if rest.startswith("["):
        host, closed, tail = rest[1:].partition("]")
        if not closed or (tail and not tail.startswith(":")):
            raise InvalidTarget(target=text, reason="the bracket does not end")
        return host, _number(tail[1:], text) if tail else 0
    if rest.count(":") != 1:  # a bare IPv6 address has no room for a port
        return rest, 0
    host, _, port = rest.partition(":")
    return host, _number(port, text)


def _number(port: str, text: str) -> int:
    if not (port.isascii() and port.isdigit()):
        raise InvalidTarget(target=text, reason=f"{port!r} is not a port")
    return _checked_port(int(port[:6]), text) or _checked_port(-1, text)


def _checked_port(port: int, text: str) -> int:
    if not 0 <= port <= 65535:
        raise InvalidTarget(target=text, reason="a port is between 1 and 65535")
    return port


def connect(target: Target, *, transport: str = "paramiko") -> Connection:
    """Reach the host by one of TRANSPORTS. The host key is checked before anything is said."""
    if transport == "paramiko":
        from ocimig.migrate.transport import ssh

        return ssh.connect(target)
    if transport == "openssh":
        from ocimig.migrate.transport import openssh

        return openssh.connect(target)
    if transport == "local":
        from ocimig.migrate.transport import local

        return local.LocalConnection()
    raise InvalidTarget(target=target.host, reason=f"there is no transport {transport!r}")
