"""Channels inside one process, for tests. Bytes still pass through the kernel, as they do elsewhere."""

import socket
import threading
from collections.abc import Callable, Sequence

from ocimig.migrate.closing import Closing
from ocimig.migrate.errors import LinkLost
from ocimig.migrate.transport.process import Tail
from ocimig.migrate.transport.stdio import lost_link, read_into, read_some, write_whole


class MemoryChannel:
    """One end of a socket pair."""

    def __init__(self, end: socket.socket, *, host: str = "memory") -> None:
        self.host = host
        self._socket = end
        self._tail = Tail()
        self._ended = threading.Event()
        self._status = 0
        end.setblocking(False)

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """See Channel."""
        with lost_link(self.host):
            return read_some(self._socket.fileno(), size, timeout)

    def read_into(self, into: memoryview, timeout: float | None = None) -> int:
        """See Filling."""
        with lost_link(self.host):
            return read_into(self._socket.fileno(), into, timeout)

    def write(self, data: bytes | memoryview, timeout: float | None = None) -> None:
        """See Channel."""
        with lost_link(self.host):
            write_whole(self._socket.fileno(), data, timeout)

    def close_write(self) -> None:
        """See Channel."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # the far end is gone already
            pass

    def wait(self, timeout: float | None = None) -> int:
        """See Channel."""
        if not self._ended.wait(timeout):
            raise TimeoutError("the program still runs")
        return self._status

    def stderr_tail(self) -> str:
        """See Channel."""
        return self._tail.text()

    def close(self) -> None:
        """See Channel."""
        self._socket.close()

    def end(self, status: int) -> None:
        """The program behind this channel is over."""
        self._status = status
        self._ended.set()

    def complain(self, data: bytes) -> None:
        """The program behind this channel wrote to stderr."""
        self._tail.add(data)


Program = Callable[[Sequence[str], MemoryChannel, Callable[[bytes], None]], int]


class MemoryConnection(Closing):
    """Runs `program(argv, its end, write to stderr)` in a thread for every channel."""

    def __init__(self, program: Program, *, host: str = "memory") -> None:
        self.host = host
        self._program = program
        self._channels: list[MemoryChannel] = []
        self._threads: list[threading.Thread] = []

    def open(self, argv: Sequence[str], *, separate: bool = False) -> MemoryChannel:
        """See Connection."""
        here, there = pair(host=self.host)
        thread = threading.Thread(target=self._run, args=(list(argv), here, there), daemon=True)
        self._channels.append(here)
        self._threads.append(thread)
        thread.start()
        return here

    def _run(self, argv: list[str], here: MemoryChannel, there: MemoryChannel) -> None:
        status = 255
        try:
            status = self._program(argv, there, here.complain)
        except (LinkLost, OSError) as error:
            here.complain(f"{error}\n".encode())
        finally:
            here.end(status)
            there.close()

    def close(self) -> None:
        """See Connection."""
        for channel in self._channels:
            channel.close()
        for thread in self._threads:
            thread.join(5.0)


def pair(*, host: str = "memory") -> tuple[MemoryChannel, MemoryChannel]:
    """Two channels, each of which reads what the other writes."""
    one, other = socket.socketpair()
    for end in (one, other):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
    return MemoryChannel(one, host=host), MemoryChannel(other, host=host)
