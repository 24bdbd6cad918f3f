"""The talk between the launcher and `init` over one stream socket. Never decides what is said when.

launcher                                          init (first in the host's namespaces)
------------------------------------------------  ----------------------------------------------
spawn it, put it into the cgroup
magic u32 | descriptors u32 | opens u32 | bytes ->
SCM_RIGHTS, 200 descriptors a byte              ->
the plan: step u64 | bytes u64 | its fields     ->  carries out step after step
                                                <-  SYNC code      waits
does what the code asks (id maps, hooks)
bytes u32 | a blob (the state, for hooks)       ->  goes on
                                                <-  PID n          it forked; the child goes on
                                                <-  FD what + SCM_RIGHTS (pty master, seccomp listener)
                                                <-  WARNING text
                                                <-  ERROR step i32 | errno i32 | text, then it ends
                                                <-  end of stream: execve(2) worked, or it waits

All numbers are in the machine's byte order: both ends are one machine. A message from init is
kind u32 | bytes u32 | the bytes. Fields of a step are numbers (u64), blobs (u64 length, the bytes,
a NUL) and lists (u64 count, then blobs).
"""

import _socket
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = 0x31494F43  # "COI1"
FD_BATCH = 200
SYNC, PID, FD, ERROR, WARNING = 1, 2, 3, 4, 5

# codes of SYNC: what init waits for
MAPS = 1  # the user namespace exists: write its id maps
HOOKS = 2  # the namespaces exist and the root is made: network, prestart and createRuntime hooks
READY = 3  # all is done but to wait for the start, or to execute
OFFSETS = 4  # the time namespace exists and nobody is in it yet: set its clocks
LIMITS = 5  # devices are made next: cgroup v1 denies all of them before it allows some
BY_THE_CHILD = (HOOKS, READY, LIMITS)

# codes of FD: what comes
CONSOLE = 1
LISTENER = 2


class Message:
    """One message of init, `fds` being the descriptors that came with it."""

    __slots__ = ("body", "fds", "kind")

    def __init__(self, kind: int, body: bytes, fds: "list[int]") -> None:
        self.kind = kind
        self.body = body
        self.fds = fds

    @property
    def number(self) -> int:
        """The number that SYNC, PID and FD carry."""
        return int(struct.unpack_from("=i", self.body)[0])


class Line:
    """Our end of the socket."""

    __slots__ = ("socket",)

    def __init__(self, socket: "_socket.socket") -> None:
        self.socket = socket

    def send_plan(self, plan: bytes, fds: "list[int]", opens: int) -> None:
        """Hand over the plan, the descriptors it needs, and how many more it opens itself."""
        self._send(struct.pack("=IIII", MAGIC, len(fds), opens, len(plan)))
        for start in range(0, len(fds), FD_BATCH):
            batch = fds[start : start + FD_BATCH]
            rights = struct.pack(f"={len(batch)}i", *batch)
            self.socket.sendmsg([b"f"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        self._send(plan)

    def go(self, blob: bytes = b"") -> None:
        """Let init go on after a SYNC."""
        self._send(struct.pack("=I", len(blob)) + blob)

    def _send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except BrokenPipeError:
            pass  # init has ended: what it said before, or the end of the stream, tells why

    def messages(self) -> "Iterator[Message]":
        """What init says, until it closes the socket."""
        fds: list[int] = []
        while head := self._read(8, fds):
            kind, length = struct.unpack("=II", head)
            yield Message(kind, self._read(length, fds), fds)
            fds = []

    def _read(self, count: int, fds: "list[int]") -> bytes:
        parts = b""
        while len(parts) < count:
            try:
                data, rights, _, _ = self.socket.recvmsg(
                    count - len(parts), _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC
                )
            except ConnectionResetError:
                return b""
            for _, _, raw in rights:
                fds.extend(struct.unpack(f"={len(raw) // 4}i", raw))
            if not data:
                return b""
            parts += data
        return parts

    def close(self) -> None:
        """End the talk: init, where it still waits for us, ends too."""
        self.socket.close()


def spawn(program: int, first: int) -> "tuple[int, Line]":
    """Start init from the descriptor of its sealed program; `first`: see init.c. Its pid, our end."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        os.set_inheritable(theirs.fileno(), True)
        argv = ["ocimig-init", str(theirs.fileno()), str(first)]
        pid = os.posix_spawn(f"/proc/self/fd/{program}", argv, {})
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return pid, Line(ours)
