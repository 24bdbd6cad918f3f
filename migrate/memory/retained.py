"""The memory of containers that left, kept for the case that they come back. Never needed, always checked.

    <root>/.migrations/.memory/<id>/p1     0600, one file a space (docs/formats/pages.md)

After a commit the source keeps what it has anyway. When the container returns, this host shows digests of
those pages, and the ones that are still the same do not travel. A file that is damaged shows the digests
of what is in it, which then fit nothing: it can cost time, never a byte. Its pages are the container's
secrets, so that root alone may read them, and only for EXPIRY seconds.
"""

import errno
import os
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocimig import files, log
from ocimig.migrate import journal
from ocimig.migrate.memory import frames, spaces
from ocimig.migrate.memory.digests import digests
from ocimig.migrate.memory.frames import PRESENT
from ocimig.migrate.memory.reader import Reader
from ocimig.migrate.memory.runs import PAGE, Run, merge, total
from ocimig.migrate.memory.sift import sift
from ocimig.migrate.wire import Wire
from ocimig.runtime.linux.memory import address
from ocimig.runtime.store import Store, check_id

if TYPE_CHECKING:
    from ocimig.migrate.memory.held import Held

EXPIRY = 24 * 3600
SHARE = 4  # no more than this part of what is free is taken: of the disk, or of the memory

_MAGIC = b"\x89OCIMEM\n"
_VERSION = 1
_END = struct.Struct("!QIHH8s")  # runs, page size, version, zero, magic: the end of a file
_PIECE = 1 << 20
_MOST_RUNS = 1 << 22
Work = Iterable[tuple[str, int, list[Run]]]


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept, or why nothing was."""

    pages: int = 0
    seconds: float = 0.0
    reason: str = ""


class Retained:
    """The memory of one container from its last stay on this host."""

    def __init__(self, store: Store, id: str) -> None:
        check_id(id)
        self._homes = os.path.join(journal.directory(store), ".memory")
        self.directory = os.path.join(self._homes, id)

    def keep(self, work: Work) -> Kept:
        """Copy these runs, as PageSender.send takes them, from processes that run no more.

        Replaces what was kept before. Takes about a second a gigabyte. Without room, or on any error,
        nothing is kept: this is a favour to the future, never a reason to fail.
        """
        began = time.monotonic()
        wanted = [(space, pid, runs) for space, pid, runs in work if runs]
        try:
            self.drop()
            expire(self._homes)
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            size, room = sum(total(runs) for _, _, runs in wanted), _room(self.directory)
            if size > room:
                self.drop()
                return Kept(reason=f"{size} bytes of memory, and room for {room}")
            pages = sum(self._keep(space, pid, runs) for space, pid, runs in wanted)
        except OSError as error:
            with suppress(OSError):
                self.drop()
            return Kept(reason=str(error))
        return Kept(pages, time.monotonic() - began)

    def _keep(self, space: str, pid: int, runs: list[Run]) -> int:
        path = os.path.join(self.directory, spaces.check(space))
        reader = Reader(pid) if spaces.is_process(space) else Reader.of_file(pid)
        buffer = bytearray(_PIECE)
        data, at = memoryview(buffer), address(buffer)
        kept: list[Run] = []
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            with files.Fd(os.open(f"{path}.new", flags, 0o600)) as fd:
                for piece, _ in frames.cut(runs, _PIECE):
                    came = reader.read(piece, data, at)
                    entries, size = sift(came, total(came), data, None)
                    files.write_all(fd, data[:size])
                    kept += [(start, end) for start, end, kind in entries if kind == PRESENT]
                kept = merge(kept)
                files.write_all(fd, frames.pack_runs(kept))
                files.write_all(fd, _END.pack(len(kept), PAGE, _VERSION, 0, _MAGIC))
                # Now, while nobody waits: else the next fsync(2) on this disk would, in some freeze.
                os.fdatasync(fd)
        finally:
            reader.close()
        os.rename(f"{path}.new", path)
        return total(kept) // PAGE

    def offer(self, held: "Held", wire: Wire) -> None:
        """Fill what is held with what was kept, and tell the source its digests.

        A file that cannot be read is passed over. What was kept stays until drop().
        """
        offered = 0
        expire(self._homes)
        try:
            names = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            names = []
        for name in names:
            try:
                spaces.check(name)
                with files.Fd(os.open(os.path.join(self.directory, name), _READING)) as fd:
                    offered += _offer(held, wire, name, fd)
            except (ValueError, OSError) as error:
                log.debug(f"{self.directory}/{name}: {error}")
        wire.send(frames.OFFERED, {"pages": offered})

    def drop(self) -> None:
        """Keep nothing any more."""
        files.remove_tree(self.directory)


_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


def _offer(held: "Held", wire: Wire, space: str, fd: int) -> int:
    """Offer one file: how many pages."""
    buffer = memoryview(bytearray(_PIECE))
    runs = _table(fd)
    position = 0
    with held.offer(space) as (memory, offered):
        for piece, size in frames.cut(runs, _PIECE):
            if os.preadv(fd, [buffer[:size]], position) != size:
                raise OSError(errno.EIO, "it ends early")
            position += size
            at = 0
            for start, end in piece:
                while start < end:
                    count = os.pwrite(memory, buffer[at : at + end - start], start)
                    start, at = start + count, at + count
            offered += piece
            payload = frames.pack_runs(piece) + digests(buffer[:size])
            wire.send(frames.DIGESTS, {"space": space, "runs": len(piece)}, payload, flush=False)
    return position // PAGE


def _table(fd: int) -> list[Run]:
    """The runs of a file. Raises ValueError where it is none of ours, or another page size's."""
    size = os.fstat(fd).st_size
    end = os.pread(fd, _END.size, max(0, size - _END.size))
    if len(end) != _END.size:
        raise ValueError("it is too short")
    count, page, version, zero, magic = _END.unpack(end)
    if (page, version, zero, magic) != (PAGE, _VERSION, 0, _MAGIC) or count > _MOST_RUNS:
        raise ValueError("it is not the memory of a container")
    first = size - _END.size - count * frames.ENTRY
    if first < 0:
        raise ValueError("it is too short for its table")
    runs = frames.unpack_runs(os.pread(fd, count * frames.ENTRY, first))
    if total(runs) != first:
        raise ValueError("its table is another file's")
    return runs


def expire(homes: str, *, seconds: float = EXPIRY) -> None:
    """Remove what was kept longer than this ago."""
    try:
        names = os.listdir(homes)
    except FileNotFoundError:
        return
    for name in names:
        path = os.path.join(homes, name)
        try:
            if time.time() - os.stat(path, follow_symlinks=False).st_mtime > seconds:
                files.remove_tree(path)
        except FileNotFoundError:  # somebody else was faster
            continue


def _room(directory: str) -> int:
    """How many bytes may be kept there."""
    from ocimig.migrate import facts

    there = facts.space(directory)
    free = int(there["free"])
    if there["memory"]:
        free = min(free, _available())
    return free // SHARE


def _available() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
