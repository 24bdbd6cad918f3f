"""A channel to a process of this host. What it is (a shell, ssh) is its caller's business."""

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence

from ocimig.migrate.transport import STDERR_TAIL
from ocimig.migrate.transport.stdio import enlarge, lost_link, read_some, write_whole

_PATIENCE = 2.0  # seconds a process gets to end by itself, and again after SIGTERM


class Tail:
    """The last bytes of a stream, filled by one thread and read by another."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._lock = threading.Lock()

    def add(self, data: bytes) -> None:
        """Append, forgetting what is too old."""
        with self._lock:
            self._data += data
            del self._data[:-STDERR_TAIL]

    def text(self) -> str:
        """What is kept, as text."""
        with self._lock:
            return bytes(self._data).decode(errors="replace").strip()


class ProcessChannel:
    """Standard streams of a child that leads its own process group."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        host: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.host = host
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        for stream in (self._stdin, self._stdout):
            os.set_blocking(stream.fileno(), False)
            enlarge(stream.fileno())
        self._tail = Tail()
        self._listener = threading.Thread(target=self._listen, name="stderr", daemon=True)
        self._listener.start()

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """See Channel."""
        with lost_link(self.host, self._why):
            return read_some(self._stdout.fileno(), size, timeout)

    def write(self, data: bytes | memoryview, timeout: float | None = None) -> None:
        """See Channel."""
        with lost_link(self.host, self._why):
            write_whole(self._stdin.fileno(), data, timeout)

    def close_write(self) -> None:
        """See Channel."""
        self._stdin.close()

    def wait(self, timeout: float | None = None) -> int:
        """See Channel. A program ended by a signal counts as 128 and its number."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError("the program still runs") from None
        self._listener.join(1.0)  # what it said last belongs to the answer
        return status if status >= 0 else 128 - status

    def stderr_tail(self) -> str:
        """See Channel."""
        return self._tail.text()

    def close(self) -> None:
        """See Channel. What does not end by itself is ended, with its whole process group."""
        self._stdin.close()
        self._stdout.close()
        if not self._ends():
            self.end()
        self._listener.join(0.2)  # a grandchild may hold the pipe: the thread then outlives us

    def end(self) -> None:
        """End the process group now."""
        self._signal(signal.SIGTERM)
        if not self._ends():
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _ends(self) -> bool:
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:  # else its number may belong to somebody else
            os.killpg(self._process.pid, number)

    def _listen(self) -> None:
        with self._stderr:  # closed by its only reader, never under it
            while data := os.read(self._stderr.fileno(), 1 << 16):
                self._tail.add(data)

    def _why(self) -> str:
        """What the process said last, once it is over."""
        if self._process.poll() is None:
            return ""
        self._listener.join(1.0)
        return self._tail.text().rpartition("\n")[2]
