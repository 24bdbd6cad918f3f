"""Unix sockets by path of any length, and descriptors sent over them. Knows nothing of what they carry."""

import _socket
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST = 107  # sun_path is 108 bytes with its NUL


def connect(path: str, kind: int = _socket.SOCK_STREAM) -> "_socket.socket":
    """A socket connected to `path`; a leading "@" means the abstract namespace."""
    sock = _socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC)
    try:
        _at(path, sock.connect)
    except BaseException:
        sock.close()
        raise
    return sock


def bind(path: str, kind: int, mode: int) -> "_socket.socket":
    """A socket bound to `path`, in place of one that an earlier process left there."""
    sock = _socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC)
    try:
        if os.path.lexists(path):
            os.unlink(path)
        _at(path, sock.bind)
        os.chmod(path, mode)
    except BaseException:
        sock.close()
        raise
    return sock


def _at(path: str, act: "Callable[[str], object]") -> None:
    if path.startswith("@"):
        act("\0" + path[1:])
        return
    if len(os.fsencode(path)) <= _LONGEST:
        act(path)
        return
    # A name relative to a directory descriptor is short however deep the directory is.
    directory, name = os.path.split(path)
    fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        act(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def send(sock: "_socket.socket", data: bytes, fds: "list[int]") -> None:
    """One message with descriptors; the receiver gets copies."""
    rights = struct.pack(f"{len(fds)}i", *fds)
    sock.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])


def receive(sock: "_socket.socket", size: int, most: int) -> "tuple[bytes, list[int]]":
    """One message and up to `most` descriptors, close-on-exec and owned by the caller."""
    room = _socket.CMSG_SPACE(4 * most)
    data, ancillary, _, _ = sock.recvmsg(size, room, _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, raw in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            count = len(raw) // 4
            fds += struct.unpack(f"{count}i", raw[: 4 * count])
    return data, fds
