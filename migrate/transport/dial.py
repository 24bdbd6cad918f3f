"""The TCP connection under SSH, and what there is to say when no SSH comes of it. Knows no paramiko."""

import base64
import binascii
import socket
from dataclasses import dataclass

from ocimig.migrate.errors import HostUnreachable, NotLetIn

DEAD_AFTER = 15  # seconds without an acknowledgement after which the kernel gives the connection up


@dataclass(frozen=True, slots=True)
class Settings:
    """A target with everything ~/.ssh/config says about it."""

    host: str  # as the person named it
    address: str  # what is connected to
    key_name: str  # what known_hosts calls it
    port: int
    user: str
    identities: tuple[str, ...]
    only_these: bool
    known_hosts: tuple[str, ...]
    accept_new: bool
    timeout: float


def dial(found: Settings) -> socket.socket:
    """Connect to the address. Nothing is said on the connection yet."""
    try:
        sock = socket.create_connection((found.address, found.port), found.timeout)
    except TimeoutError:
        raise unreachable(found, f"no answer within {found.timeout:g} seconds") from None
    except socket.gaierror as error:
        raise unreachable(found, f"the name is not known ({error.strerror})") from None
    except OSError as error:
        raise unreachable(found, (error.strerror or str(error)).lower()) from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER * 1000)
    return sock


def unreachable(found: Settings, reason: str) -> HostUnreachable:
    """No SSH with this host came about."""
    return HostUnreachable(host=found.host, port=found.port, reason=reason)


def not_let_in(found: Settings, refusals: list[str]) -> NotLetIn:
    """Every key was refused, each for its reason."""
    reason = "; ".join(refusals)
    return NotLetIn(user=found.user, host=found.host, port=found.port, reason=reason)


def key_trouble(error: Exception) -> str:
    """Why a key file cannot be used, for a person."""
    text = str(error)
    if "password" in text.lower() or "encrypted" in text.lower():
        return "it needs a passphrase: ssh-add it"
    return text.split("\n")[0] or type(error).__name__


def public_half(path: str) -> set[bytes]:
    """The blob of a key that we cannot open: the agent may hold it opened."""
    try:
        with open(f"{path}.pub", "rb") as file:
            return {base64.b64decode(file.read(1 << 16).split()[1], validate=True)}
    except (OSError, IndexError, binascii.Error):
        return set()
