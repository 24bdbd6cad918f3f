"""The unix sockets of a network namespace with their other ends, by sock_diag(7). Reads only."""

import _socket
import errno
import os
import struct

from ocimig.runtime.linux.netlink import NLM_F_REQUEST, NLMSG_ERROR, Inside

NETLINK_SOCK_DIAG = 4
NLM_F_DUMP = 0x300
NLMSG_DONE = 3
SOCK_DIAG_BY_FAMILY = 20
UDIAG_SHOW_PEER = 0x4
UDIAG_SHOW_ICONS = 0x8
UNIX_DIAG_PEER = 2
UNIX_DIAG_ICONS = 3


class UnixSocket:
    """One socket. `peer` is the inode of its other end or 0, `waiting` those not yet accepted from it."""

    __slots__ = ("inode", "peer", "type", "waiting")

    def __init__(self, inode: int, type: int, peer: int, waiting: "tuple[int, ...]") -> None:
        self.inode = inode
        self.type = type
        self.peer = peer
        self.waiting = waiting


def sockets(namespace: int) -> "list[UnixSocket]":
    """All of the namespace. struct unix_diag_req and unix_diag_msg of <linux/unix_diag.h>."""
    show = UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS
    body = struct.pack("=BBHIIIII", _socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, show, 0, 0)
    head = struct.pack(
        "=IHHII", 16 + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0
    )
    with Inside(namespace):
        channel = _socket.socket(
            _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG
        )
    found: list[UnixSocket] = []
    try:
        channel.settimeout(10)
        channel.sendto(head + body, (0, 0))
        while _more(channel.recv(1 << 16), found):
            pass
    finally:
        channel.close()
    return found


def _more(data: bytes, found: "list[UnixSocket]") -> bool:
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if length < 16 or length > len(data):
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG), "sock_diag")
        if kind == NLMSG_DONE:
            return False
        if kind == NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", data, 16)
            raise OSError(-code, os.strerror(-code), "sock_diag")
        found.append(_socket_of(data[16:length]))
        data = data[(length + 3) & ~3 :]
    return True


def _socket_of(body: bytes) -> UnixSocket:
    _, type, _, _, inode, _, _ = struct.unpack_from("=BBBBIII", body)
    peer, waiting = 0, ()
    rest = body[16:]
    while len(rest) >= 4:
        length, kind = struct.unpack_from("=HH", rest)
        if length < 4:
            break
        value = rest[4:length]
        if kind == UNIX_DIAG_PEER:
            (peer,) = struct.unpack("=I", value)
        elif kind == UNIX_DIAG_ICONS:
            waiting = struct.unpack(f"={len(value) // 4}I", value)
        rest = rest[(length + 3) & ~3 :]
    return UnixSocket(inode, type, peer, waiting)
