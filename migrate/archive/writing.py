"""A tar archive written member by member. The same members give the same bytes."""

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ocimig.migrate.archive.errors import CannotExport
from ocimig.migrate.archive.members import BLOCK, DIRECTORY, FILE, Member, pack, padding, sparse_map
from ocimig.migrate.archive.packing import Sink
from ocimig.migrate.archive.planning import Digest

_PIECE = 1 << 18
_MOST_RUNS = 50_000  # a file of more pieces is written whole: its map would be larger than is read


class Writer:
    """Members into a sink. `members` is what was written, with its digest, by path: for a manifest.

    A path that is added twice is a mistake of the caller. `close` writes the mark of the end.
    """

    def __init__(self, sink: Sink, shown: str) -> None:
        self._sink = sink
        self._shown = shown
        self.members: dict[str, tuple[Member, str]] = {}

    def add(self, member: Member, data: bytes = b"") -> None:
        """A member whose data is at hand."""
        self._begin(replace(member, size=len(data), stored=len(data)), [(0, data)])

    def add_file(self, member: Member, fd: int, *, holes: bool = False) -> None:
        """A file as an open descriptor shows it now; with `holes` what is not stored stays so.

        Raises CannotExport when it becomes shorter meanwhile.
        """
        status = os.fstat(fd)
        size = status.st_size
        runs = [(0, size)]
        if holes and status.st_blocks * 512 < size:
            runs = list(data_runs(fd, size))
        if len(runs) > _MOST_RUNS or runs == [(0, size)] or not size:
            self._begin(replace(member, size=size, stored=size), self._pieces(fd, [(0, size)]))
            return
        table = sparse_map(runs)
        stored = len(table) + sum(length for _, length in runs)
        told = replace(member, size=size, stored=stored, sparse=True)
        self._begin(told, self._pieces(fd, runs), table)

    def close(self) -> None:
        """The end of the archive and of its compression."""
        self._sink.write(bytes(2 * BLOCK))
        self._sink.close()

    def _begin(self, member: Member, data: Iterable[tuple[int, bytes]], table: bytes = b"") -> None:
        self._sink.write(pack(member))
        self._sink.write(table)
        digest = Digest()
        for offset, piece in data:
            self._sink.write(piece)
            digest.add(offset, piece)
        self._sink.write(padding(member.stored))
        path = os.fsdecode(member.path)
        assert path not in self.members
        self.members[path] = (member, digest.end(member.size) if member.type == FILE else "")

    def _pieces(self, fd: int, runs: list[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        for start, length in runs:
            end = start + length
            while start < end:
                piece = os.pread(fd, min(end - start, _PIECE), start)
                if not piece:
                    reason = "a file became shorter while it was read"
                    raise CannotExport(path=self._shown, reason=reason)
                yield start, piece
                start += len(piece)


def data_runs(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is data in a file of `size` bytes."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if start < position:
            yield start, position - start


def directory(path: bytes, mtime_ns: int) -> Member:
    """A directory of ours in an archive."""
    return Member(path, DIRECTORY, 0o700, mtime_ns=mtime_ns)
