"""Messages between the guard and the page handler: a small document with descriptors. Never interprets them."""

import array
import os
import socket
from collections.abc import Sequence
from typing import Any

from ocimig import jsonio
from ocimig.migrate.lazy.pieces import Piece
from ocimig.migrate.memory.runs import Run

_LARGEST = 64 << 10
_MOST = 64  # descriptors in one message


class Channel:
    """One end of a socket pair (SOCK_SEQPACKET)."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def fileno(self) -> int:
        """For poll(2)."""
        return self._socket.fileno()

    def send(self, document: dict[str, Any], fds: "list[int] | tuple[int, ...]" = ()) -> None:
        """Send one message; the descriptors stay the caller's."""
        data = [jsonio.dumps(document).encode()]
        if fds:
            socket.send_fds(self._socket, data, list(fds))
        else:
            self._socket.sendmsg(data)

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message, whose descriptors are the caller's; None at the end."""
        data, fds, flags, _ = socket.recv_fds(
            self._socket, _LARGEST, _MOST, socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            return None
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("a message of the page handler was cut short")
        return dict(jsonio.loads(data)), fds

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def pair() -> tuple[Channel, Channel]:
    """Both ends."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(other)


def table(pieces: "list[Piece]") -> int:
    """A descriptor of a file in memory that lists the pieces: it may be longer than a message."""
    fd = os.memfd_create("pieces", os.MFD_CLOEXEC)
    words = array.array("Q")
    for piece in pieces:
        words.extend(piece)
    data = memoryview(words).cast("B")
    while data:
        data = data[os.write(fd, data) :]
    return fd


def runs_table(runs: "Sequence[Run]") -> int:
    """The same of mere ranges."""
    return table([Piece(start, end, 0, 0) for start, end in runs])


def from_table(fd: int) -> list[Piece]:
    """The pieces that a table lists."""
    words = array.array("Q")
    data = b""
    offset = 0
    while part := os.pread(fd, 1 << 20, offset):
        data += part
        offset += len(part)
    words.frombytes(data)
    return [Piece(*words[index : index + 4]) for index in range(0, len(words), 4)]


def from_runs_table(fd: int) -> list[Run]:
    """The ranges that a table lists."""
    return [(piece.start, piece.end) for piece in from_table(fd)]
