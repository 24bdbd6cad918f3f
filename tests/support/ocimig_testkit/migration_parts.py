"""Parts of a world without a kernel: memory that is a page of ours, and a channel that breaks where a test says."""

import ctypes
import mmap
import os
from collections.abc import Callable, Sequence

from ocimig.migrate.errors import LinkLost
from ocimig.migrate.memory.runs import PAGE, Run
from ocimig.migrate.rounds import RoundStats
from ocimig.migrate.transport import Channel
from ocimig.migrate.wire import Wire


class FakeMemory:
    """A page of our own memory, which every round finds written anew."""

    name = "fake"

    def __init__(self, writes: int) -> None:
        self.writes = writes
        self.notes: list[str] = []
        self.post_copy = False
        self.stopped: Callable[[], None] = lambda: None
        self.page = mmap.mmap(-1, PAGE)
        self.page[:] = b"\x5a" * PAGE

    def round(self) -> RoundStats:
        """See Memory."""
        return RoundStats(1, self.writes, PAGE, 1.0, 1)

    def reopen(self, streams: Sequence[Wire]) -> None:
        """See Memory."""

    def left(self) -> list[tuple[str, int, list[Run]]]:
        """See Memory."""
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.page))
        return [("p1", os.getpid(), [(start, start + PAGE)])]

    def confirm(self) -> None:
        """See Memory."""

    def close(self) -> None:
        """See Memory."""


class Cut:
    """A channel that ends after so many frames in one direction, as a cable that is pulled."""

    def __init__(self, channel: Channel, *, writes: int = -1, reads: int = -1) -> None:
        self.channel = channel
        self.host = channel.host
        self.writes = writes
        self.reads = reads
        self.written = 0
        self.seen = 0

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """See Channel."""
        self._end_after_reads()
        data = self.channel.read(size, timeout)
        self._end_after_reads()  # it may have been cut while nothing had come
        self.seen += 1
        return data

    def _end_after_reads(self) -> None:
        if 0 <= self.reads <= self.seen:
            self.channel.close()
            raise LinkLost(host=self.host, reason="cut")

    def write(self, data: bytes | memoryview, timeout: float | None = None) -> None:
        """See Channel."""
        if self.written == self.writes:
            self.channel.close()
            raise LinkLost(host=self.host, reason="cut")
        self.channel.write(data, timeout)
        self.written += 1

    def close_write(self) -> None:
        """See Channel."""
        self.channel.close_write()

    def wait(self, timeout: float | None = None) -> int:
        """See Channel."""
        return self.channel.wait(timeout)

    def stderr_tail(self) -> str:
        """See Channel."""
        return self.channel.stderr_tail()

    def close(self) -> None:
        """See Channel."""
        self.channel.close()
