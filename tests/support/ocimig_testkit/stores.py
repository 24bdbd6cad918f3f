"""Stores for tests of places: what to put in, another process that holds one, a far side in a thread."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ocimig.migrate.store import far, serve
from ocimig.migrate.store.place import KEYS, PACKS, SNAPSHOTS, Place
from ocimig.migrate.transport.memory import MemoryChannel, MemoryConnection
from ocimig.migrate.wire import Wire

PACK = "0123456789abcdef-00112233445566778899aabbccddeeff.pack"
OTHER = PACK.replace("01", "ab", 1)

_HOLDER = """
import sys
from ocimig.migrate.store.local import LocalPlace
place = LocalPlace(sys.argv[1])
with place.lock(exclusive=sys.argv[2] == "alone", purpose="a test"):
    for line in sys.stdin:
        with place.make(line.strip()) as making:
            making.write(b"data")
            print("written", flush=True)
            if sys.stdin.readline().strip() == "commit":
                making.commit(sys.stdin.readline().strip())
                print("committed", flush=True)
"""


def put(place: Place, room: str, name: str, data: bytes = b"data") -> None:
    """A file."""
    with place.make(room) as making:
        making.write(data)
        making.commit(name)


def work(place: Place) -> None:
    """Something of everything that changes a store."""
    put(place, KEYS, "a.key")
    put(place, PACKS, PACK)
    put(place, PACKS, OTHER)
    put(place, SNAPSHOTS, "s.snapshot")
    place.quarantine(PACKS, OTHER)
    for _ in range(2):
        place.remove(SNAPSHOTS, "s.snapshot")


def tree(store: Path) -> list[str]:
    """Every file below a directory, but for the lock."""
    files = [str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()]
    return sorted(name for name in files if name != "lock")


def start(store: Path, how: str = "shared", **environment: str) -> "subprocess.Popen[str]":
    """Another process that holds the store, "shared" or "alone". It reads lines: a room, for a file that it
    begins there; then `commit` and a name, or anything else."""
    return subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(store), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def tell(process: "subprocess.Popen[str]", text: str) -> None:
    """One or more lines."""
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.flush()


def end(process: "subprocess.Popen[str]") -> None:
    """By SIGKILL, as a crash would."""
    process.kill()
    process.communicate()


def connected(serving: Callable[[Wire], None]) -> MemoryConnection:
    """A far side in a thread."""

    def run(argv: Sequence[str], channel: MemoryChannel, complain: Callable[[bytes], None]) -> int:
        serving(Wire(channel))
        return 0

    return MemoryConnection(run)


def reach(directory: Path, confined: serve.Confined | None = None, **options: Any) -> far.FarPlace:
    """A place behind the real far side, in a thread."""

    def serving(wire: Wire) -> None:
        serve.Server(wire, confined or serve.Confined(), client="192.0.2.7").run()

    return far.reach(connected(serving), ["ocimig"], str(directory), **options)
