"""ARP by hand: is an address taken, and who has it now. Never configures anything."""

import errno
import select
import socket
import struct
import time
from collections.abc import Callable

from ocimig.migrate.errors import BridgeMissing
from ocimig.migrate.network import NetworkConfig, inside

ETH_P_ARP = 0x0806
REQUEST, REPLY = 1, 2
ARPHRD_ETHER = 1
BROADCAST = b"\xff" * 6
FRAME = struct.Struct("!6s6sHHHBBH6s4s6s4s")  # ethernet header, then RFC 826

PROBES = 3  # RFC 5227 waits seconds between its probes; a bridge in the same room answers in one
PROBE_GAP = 0.1


def frame(operation: int, mac: bytes, ip: bytes, target_mac: bytes, target_ip: bytes) -> bytes:
    """One broadcast ARP frame sent by `mac`."""
    return FRAME.pack(
        BROADCAST, mac, ETH_P_ARP,
        ARPHRD_ETHER, 0x0800, 6, 4, operation, mac, ip, target_mac, target_ip,
    )  # fmt: skip


def sender(data: bytes) -> tuple[str, str] | None:
    """(MAC, IPv4 address) of who sent an ARP frame; None for anything else."""
    if len(data) < FRAME.size:
        return None
    values = FRAME.unpack_from(data)
    if values[2] != ETH_P_ARP or values[3:7] != (ARPHRD_ETHER, 0x0800, 6, 4):
        return None
    return values[8].hex(":"), socket.inet_ntoa(values[9])


def _listen(interface: str) -> socket.socket:
    channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP))
    try:
        channel.bind((interface, ETH_P_ARP))
    except OSError as error:
        channel.close()
        if error.errno == errno.ENODEV:
            raise BridgeMissing(bridge=interface) from None
        raise
    return channel


def holder(bridge: str, ip: str) -> str:
    """The MAC that answers for an address on the bridge's network; empty when nobody does.

    Asks as RFC 5227 does, from the address 0.0.0.0, so that no neighbour learns anything from it.
    A bridge that is down reaches nobody and finds nobody. The host's own addresses do not answer
    the host: `network.bridge_facts` names them.
    """
    with _listen(bridge) as channel:
        mac = channel.getsockname()[4]
        probe = frame(REQUEST, mac, bytes(4), bytes(6), socket.inet_aton(ip))
        for _ in range(PROBES):
            try:
                channel.send(probe)
            except OSError as error:
                if error.errno == errno.ENETDOWN:
                    return ""
                raise
            if found := _answer(channel, ip, time.monotonic() + PROBE_GAP):
                return found
    return ""


def _answer(channel: socket.socket, ip: str, until: float) -> str:
    while (left := until - time.monotonic()) > 0:
        readable, _, _ = select.select([channel], [], [], left)
        if not readable:
            break
        heard = sender(channel.recv(2048))
        if heard is not None and heard[1] == ip:
            return heard[0]
    return ""


def round_gaps(*, first: int = 50, step: int = 100, most: int = 550, rounds: int = 5) -> list[int]:
    """Milliseconds to wait before each round after the first: QEMU's announce timing."""
    return [min(first + step * number, most) for number in range(rounds - 1)]


class Announcer:
    """Tells the bridge's network that an address lives here now, with what QEMU's guests do.

    Made before the release, so that `first` is one write; `rest` repeats it for whoever missed it.
    """

    __slots__ = ("channel", "frames", "sent")

    def __init__(self, netns: int, config: NetworkConfig) -> None:
        mac = bytes.fromhex(config.mac.replace(":", ""))
        ip = socket.inet_aton(config.ip)
        # Some listen for the request, some only for the reply (arping has -U and -A for that).
        self.frames = (frame(REQUEST, mac, ip, bytes(6), ip), frame(REPLY, mac, ip, BROADCAST, ip))
        self.sent = 0
        with inside(netns):
            self.channel = _listen(config.interface)

    def first(self) -> None:
        """One round; an interface that refuses it does not stop the migration that just happened."""
        for data in self.frames:
            try:
                self.channel.send(data)
                self.sent += 1
            except OSError as error:
                if error.errno not in (errno.ENETDOWN, errno.ENOBUFS, errno.ENXIO):
                    raise

    def rest(self, wait: Callable[[float], None] = time.sleep) -> None:
        """The other rounds, in less than a second."""
        for gap in round_gaps():
            wait(gap / 1000)
            self.first()

    def close(self) -> None:
        """Close the socket; the announcer is of no more use."""
        self.channel.close()


def announce(netns: int, config: NetworkConfig) -> Announcer:
    """Send the first round now; the caller decides who waits for the others."""
    announcer = Announcer(netns, config)
    try:
        announcer.first()
    except BaseException:
        announcer.close()
        raise
    return announcer
