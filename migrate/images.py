"""Checkpoint images on their way to another host: a file is sent, hashed on both sides, compared.

image      {path, size, mode}                one file begins
image-data                        payload    its bytes, in order
image-end  {sha256}                          it is whole
images-end {count, bytes}                    all are there
"""

import hashlib
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ocimig.migrate.errors import BrokenFrame
from ocimig.migrate.wire import Frame, Wire

CHUNK = 1 << 20
_AHEAD = 8  # chunks that may wait for the hash


class _Hash:
    """SHA-256 in a thread of its own: hashing lets others run, so it costs a core and not time."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()
        self._queue: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            self._sum.update(data)

    def update(self, data: bytes) -> None:
        """Add bytes; waits when the thread is far behind."""
        self._queue.put(data)

    def hexdigest(self) -> str:
        """The sum of everything; ends the thread."""
        self._queue.put(None)
        self._thread.join()
        return self._sum.hexdigest()


def paths(directory: str) -> list[str]:
    """The regular files of an image, relative to its directory, the smallest first."""
    found = []
    for where, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(where, name)
            if os.path.isfile(path) and not os.path.islink(path):
                found.append((os.stat(path).st_size, os.path.relpath(path, directory)))
    return [path for _, path in sorted(found)]


def send(
    wire: Wire, directory: str, told: Callable[[int, int], None] = lambda _done, _total: None
) -> int:
    """Send every file of an image; returns how many bytes they have."""
    names = paths(directory)
    total = sum(os.stat(os.path.join(directory, name)).st_size for name in names)
    done = 0
    for name in names:
        fd = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            done = _send_file(wire, name, fd, lambda sent: told(sent, total), done)
        finally:
            os.close(fd)
    wire.send("images-end", {"count": len(names), "bytes": total})
    return total


def _send_file(wire: Wire, name: str, fd: int, told: Callable[[int], None], done: int) -> int:
    there = os.fstat(fd)
    wire.send(
        "image", {"path": name, "size": there.st_size, "mode": there.st_mode & 0o777}, flush=False
    )
    small = there.st_size <= CHUNK  # a thread costs more than the hash
    total = hashlib.sha256() if small else _Hash()
    while data := os.read(fd, CHUNK):
        total.update(data)
        wire.send("image-data", None, data, flush=False)
        done += len(data)
        told(done)
    wire.send("image-end", {"sha256": total.hexdigest()}, flush=False)
    return done


@dataclass(slots=True)
class _Open:
    path: str
    fd: int
    size: int
    left: int
    sum: Any


class Receiver:
    """Takes the frames of `send` into a directory that it made; `done` after the last one."""

    def __init__(self, directory: str, *, limit: int, host: str) -> None:
        os.makedirs(directory, mode=0o700)
        self.directory = directory
        self.bytes = 0
        self.digests: dict[str, str] = {}
        self.done = False
        self._host = host
        self._limit = limit
        self._open: _Open | None = None

    def handle(self, frame: Frame) -> None:
        """Take one frame; any that breaks the order or a limit is refused."""
        if frame.kind == "image" and self._open is None:
            self._begin(frame.header)
        elif frame.kind == "image-data" and self._open is not None:
            self._data(self._open, frame.payload)
        elif frame.kind == "image-end" and self._open is not None:
            self._end(self._open, str(frame.header.get("sha256")))
        elif frame.kind == "images-end" and self._open is None:
            if frame.header.get("count") != len(self.digests):
                raise self._broken(f"{frame.header.get('count')} files were announced")
            self.done = True
        else:
            raise self._broken(f"{frame.kind!r} is out of order")

    def _begin(self, header: dict[str, Any]) -> None:
        path, size, mode = header.get("path"), header.get("size"), header.get("mode")
        if not isinstance(path, str) or not isinstance(size, int) or not isinstance(mode, int):
            raise self._broken("a file without a name, a size or a mode")
        parts = path.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts) or len(parts) > 8:
            raise self._broken(f"{path!r} is no place for an image")
        if size < 0 or self.bytes + size > self._limit:
            raise self._broken(f"more than the {self._limit} bytes that were announced")
        full = os.path.join(self.directory, *parts)
        # The directory is new, ours and 0700, and nothing but this makes names in it: no links.
        os.makedirs(os.path.dirname(full), mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(full, flags, mode & 0o700)
        self._open = _Open(path, fd, size, size, hashlib.sha256() if size <= CHUNK else _Hash())

    def _data(self, file: _Open, data: bytes) -> None:
        if len(data) > file.left:
            raise self._broken(f"{file.path} is longer than announced")
        file.sum.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(file.fd, view) :]
        file.left -= len(data)
        self.bytes += len(data)

    def _end(self, file: _Open, wanted: str) -> None:
        os.close(file.fd)
        self._open = None
        if file.left:
            raise self._broken(f"{file.path} is shorter than announced")
        found = file.sum.hexdigest()
        if found != wanted:
            raise self._broken(f"{file.path} changed on its way")
        self.digests[file.path] = found

    def close(self) -> None:
        """Give up a file that is only half here."""
        if self._open is not None:
            os.close(self._open.fd)
            self._open.sum.hexdigest()
            self._open = None

    def _broken(self, reason: str) -> BrokenFrame:
        return BrokenFrame(host=self._host, reason=reason)
