"""A far program with simple habits, for transports: run as a script, or called in a thread."""

import os
import sys
import time
from collections.abc import Callable, Sequence

Read = Callable[[int], bytes]
Write = Callable[[bytes], None]
PATTERN = bytes(range(256)) * 256  # every byte there is, 64 KiB


def run(argv: Sequence[str], read: Read, write: Write, complain: Write) -> int:
    """Do what `argv` says; the exit status."""
    verb, *rest = argv
    if verb == "echo":
        while data := read(1 << 16):
            write(data)
    elif verb == "flood":
        for _ in range(int(rest[0]) // len(PATTERN)):
            write(PATTERN)
    elif verb == "swallow":
        count = 0
        while data := read(1 << 16):
            count += len(data)
        write(str(count).encode())
    elif verb == "complain":
        for _ in range(int(rest[0]) // 64):
            complain(b"x" * 63 + b"\n")
        complain(b"the last line\n")
        write(b"done")
    elif verb == "exit":
        return int(rest[0])
    elif verb == "say":
        write(rest[0].encode())
    elif verb == "stall":
        time.sleep(float(rest[0]))
    else:
        return 127
    return 0


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


if __name__ == "__main__":
    sys.exit(
        run(
            sys.argv[1:],
            lambda size: os.read(0, size),
            lambda data: _write_all(1, data),
            lambda data: _write_all(2, data),
        )
    )
