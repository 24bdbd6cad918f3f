"""A console socket as callers keep one: it receives the master side of a container's terminal."""

import array
import os
import select
import socket
import time
from pathlib import Path
from types import TracebackType


def receive_descriptors(connection: socket.socket, many: int = 1) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it."""
    size = array.array("i").itemsize
    data, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_LEN(many * size))
    found: list[int] = []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.extend(array.array("i", content[: len(content) - len(content) % size]))
    return data, found


class ConsoleSocket:
    """Listens on a path; `master()` waits for the terminal; reads and writes it with deadlines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.listener.settimeout(20)

    def master(self) -> int:
        """The master side, waiting for it."""
        if self.fd < 0:
            connection, _ = self.listener.accept()
            with connection:
                connection.settimeout(20)
                _, descriptors = receive_descriptors(connection)
            assert len(descriptors) == 1, descriptors
            self.fd = descriptors[0]
        return self.fd

    def write(self, text: str) -> None:
        """Type at the terminal."""
        os.write(self.master(), text.encode())

    def read_until(self, wanted: str, seconds: float = 10.0) -> str:
        """What the terminal shows, up to where `wanted` appears."""
        deadline = time.monotonic() + seconds
        shown = b""
        while wanted.encode() not in shown:
            left = deadline - time.monotonic()
            ready = select.select([self.master()], [], [], max(0.0, left))[0]
            assert ready, f"{wanted!r} did not appear on the terminal: {shown!r}"
            try:
                shown += os.read(self.fd, 65536)
            except OSError as error:  # EIO: the last process closed its side
                raise AssertionError(f"terminal closed before {wanted!r}: {shown!r}") from error
        return shown.decode(errors="replace")

    def close(self) -> None:
        """Hang up."""
        self.listener.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> "ConsoleSocket":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
