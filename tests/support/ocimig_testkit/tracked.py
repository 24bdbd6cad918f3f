"""A process whose memory and calls a test commands (tests/system/tracked.c)."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ocimig_testkit.probes import ROOT

PAGE = os.sysconf("SC_PAGE_SIZE")


def compile_tracked(target: Path) -> Path:
    """The program, compiled."""
    source = ROOT / "tests/system/tracked.c"
    subprocess.run(["cc", "-O1", "-pthread", "-o", target, source], check=True)
    return target


class Tracked:
    """One run of it. Use as a context manager."""

    def __init__(
        self,
        program: Path,
        *,
        before: Sequence[str] = (),
        preexec_fn: Callable[[], object] | None = None,
    ) -> None:
        self._child = subprocess.Popen(
            [*before, str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=preexec_fn,
        )
        self.pid = self._child.pid
        self.answer()

    def __enter__(self) -> "Tracked":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def begin(self, *words: object) -> None:
        """Say what to do, without waiting."""
        assert self._child.stdin is not None
        text = " ".join(f"{word:x}" if isinstance(word, int) and word > 1 << 20 else str(word)
                        for word in words)  # fmt: skip
        self._child.stdin.write(text.encode() + b"\n")
        self._child.stdin.flush()

    def answer(self) -> tuple[int, int, int]:
        """The next line: a number or an address, two more numbers."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline().split()
        assert line, f"the process ended: {self._child.wait(10)}"
        first = int(line[0], 16)
        return first - (1 << 64) if first >> 63 else first, int(line[1]), int(line[2])

    def do(self, *words: object) -> int:
        """Say what to do, and the first number of the answer."""
        self.begin(*words)
        return self.answer()[0]

    def map(self, pages: int, *, written: bool = True) -> int:
        """The address of new memory."""
        address = self.do("map", 0, pages)
        if written:
            self.do("write", address, pages)
        return address

    def asleep(self, call: str = "") -> None:
        """Wait until its main thread sleeps in the kernel."""
        deadline = time.monotonic() + 10
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline, f"it never slept {call}"
            time.sleep(0.001)

    def alive(self) -> bool:
        """Whether it runs and answers."""
        return self._child.poll() is None and self.do("write", 0, 0) == 0
