"""Pages of one address space put into place, by fault or ahead of it. Never reads events.

UFFDIO_COPY puts nothing over what is there, and refuses with EAGAIN while an event waits to be read:
so whoever calls this reads all events first, and one thread does both.
"""

import errno
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from operator import itemgetter

from ocimig.migrate.lazy import events
from ocimig.migrate.lazy.pieces import Piece, Pieces
from ocimig.migrate.memory.runs import PAGE, Run, merge, subtract
from ocimig.runtime.linux import mapping, userfaultfd

LEAST = 64 << 10  # put into place at once after a fault
MOST = 1 << 20  # while nobody waits: 0.3 ms
_APART = 1 << 30  # pieces of a file that are farther apart are mapped each for itself
_EVERYTHING = 1 << 16, (1 << 47) - (2 << 16)  # start and length of what a process may map
_GONE = (errno.ESRCH, errno.ENOSPC)  # the second on kernels before 4.11


class TaskGone(Exception):
    """The address space has ended."""


class NoMemory(Exception):
    """There was no page for it just now: its cgroup or the host is full."""


class Files:
    """Where the pages lie, mapped."""

    def __init__(self) -> None:
        self._parts: dict[int, list[tuple[int, int, int]]] = {}  # file -> (offset, end, address)
        self._holes: dict[int, list[Run]] = {}  # file -> what had no data when it was added
        self._punched: set[int] = set()

    def add(
        self,
        number: int,
        fd: int,
        pieces: Iterable[Piece],
        *,
        punch: bool,
        holes: list[Run] | None = None,
    ) -> None:
        """Map what the pieces need of a file; with `punch` it is given back as it gets into place.

        `holes` is where it has no data, if that is known. The descriptor is ours from now on.
        """
        parts: list[list[int]] = []
        for offset, size in sorted((piece.offset, piece.end - piece.start) for piece in pieces):
            if parts and offset - parts[-1][1] < _APART:
                parts[-1][1] = max(parts[-1][1], offset + size)
            else:
                parts.append([offset, offset + size])
        self._parts[number] = [
            (offset, end, mapping.map_file(fd, offset, end - offset, writable=punch))
            for offset, end in parts
        ]
        if holes is None:
            # Once for all: a search for the end of data goes through all of it.
            holes = [hole for offset, end in parts for hole in _holes(fd, offset, end)]
        self._holes[number] = holes
        os.close(fd)
        if punch:
            self._punched.add(number)

    def address(self, piece: Piece) -> int:
        """Where its first byte is mapped here."""
        for offset, end, address in self._parts[piece.file]:
            if offset <= piece.offset < end:
                return address + piece.offset - offset
        raise ValueError(f"page {piece.start:#x} lies in no file")

    def parts(self, piece: Piece) -> Iterator[tuple[Piece, bool]]:
        """The piece in parts, and whether each is a hole: reading one would fill it with zeros."""
        moved = piece.start - piece.offset
        at, stop = piece.offset, piece.offset + piece.end - piece.start
        holes = self._holes[piece.file]
        index = bisect_right(holes, at, key=itemgetter(1))
        while index < len(holes) and holes[index][0] < stop:
            start, end = holes[index]
            if start > at:
                yield piece.cut(at + moved, start + moved), False
            yield piece.cut(max(at, start) + moved, min(end, stop) + moved), True
            at = min(end, stop)
            index += 1
        if at < stop:
            yield piece.cut(at + moved, stop + moved), False

    def expect(self, pieces: Iterable[Piece]) -> None:
        """These are still to come: what is a hole now will have data."""
        for number in self._holes:
            runs = sorted(
                (piece.offset, piece.offset + piece.end - piece.start)
                for piece in pieces
                if piece.file == number
            )
            self._holes[number] = subtract(self._holes[number], merge(runs))

    def keep(self) -> None:
        """Nothing is given back any more: two address spaces need the same pages."""
        self._punched.clear()

    def punch(self, piece: Piece) -> None:
        """Its pages are in place: give back those of the file."""
        if piece.file in self._punched:
            mapping.punch(self.address(piece), piece.end - piece.start)


def _holes(fd: int, at: int, end: int) -> Iterator[Run]:
    """What has no data between two places of a file."""
    while at < end:
        data = min(_seek(fd, at, os.SEEK_DATA, end), end)
        if data > at:
            yield at, data
        at = min(_seek(fd, data, os.SEEK_HOLE, end), end) if data < end else end


def _seek(fd: int, offset: int, whence: int, end: int) -> int:
    """lseek(2) for data or a hole; behind the last data there is nothing but a hole."""
    try:
        return os.lseek(fd, offset, whence)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return end


class Task:
    """One address space that is being filled."""

    def __init__(
        self, serial: int, pid: int, uffd: int, pieces: Pieces, later: Pieces, files: Files
    ) -> None:
        self.serial = serial
        self.pid = pid
        self.uffd = uffd
        self.pieces = pieces
        self.later = later  # what is not in its file yet
        self.ahead = (
            False  # before CRIU is in post-restore not all of the memory is where it will be
        )
        self.hot: deque[Run] = deque()
        self.copied = 0  # bytes
        self.faults = 0
        self._files = files
        self._quantum = LEAST
        self._again: set[int] = set()
        self._asleep: set[int] = set()  # pages that somebody waits for and that are to come later

    # -- somebody waits -----------------------------------------------------------------------------

    def fault(self, address: int) -> Piece | None:
        """Put the page of this address into place, then its neighbours; or say which page has to come."""
        page = address & -PAGE
        self.faults += 1
        self._quantum = LEAST
        self._again.add(page)  # until it is there, whatever is raised
        if (missing := self.later.find(page)) is not None:
            self._again.discard(page)
            self._asleep.add(page)
            return missing.cut(page, page + PAGE)
        if self.pieces.find(page) is None:
            there = self._zero(page)
        else:
            there = self._place(self.pieces.cut(page, page + PAGE))
        if there:
            self._again.discard(page)
            if self.ahead:
                block = page & -LEAST
                self._place(self.pieces.cut(block, block + LEAST))
        return None

    def again(self) -> None:
        """Faults that could not be answered because an event came first."""
        for page in list(self._again):
            self.fault(page)

    def arrived(self, runs: list[Run]) -> None:
        """What lies at these places of its file is there now: whoever waits for it comes first."""
        for start, end in runs:
            for piece in self.later.within(start, end):
                self.pieces.put(self.later.cut(piece.start, piece.end))
        for page in [page for page in self._asleep if self.later.find(page) is None]:
            self._asleep.discard(page)
            self.fault(page)

    def changed(self, kind: int, first: int, second: int, third: int) -> None:
        """An event (events.py) changes what is still to come."""
        for pieces in (self.pieces, self.later):
            if kind == events.REMAP:
                pieces.move(first, second, third)
            elif kind in (events.REMOVE, events.UNMAP):
                pieces.cut(first, second)

    @property
    def waits(self) -> bool:
        """Whether somebody waits for a page that could not be put there yet."""
        return bool(self._again)

    def _zero(self, page: int) -> bool:
        """What was never written is zero; what is no longer watched needs only another try."""
        try:
            userfaultfd.zeropage(self.uffd, page, PAGE)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return False
            if error.errno not in (errno.EEXIST, errno.ENOENT):
                raise _meaning(error) from error
            self.wake(page)
        return True

    def wake(self, page: int = -1) -> None:
        """Let whoever waits for a page (or any page) try again."""
        start, length = _EVERYTHING if page < 0 else (page, PAGE)
        try:
            userfaultfd.wake(self.uffd, start, length)
        except OSError as error:
            if error.errno in _GONE:
                raise TaskGone from None
            raise

    # -- nobody waits -------------------------------------------------------------------------------

    def fill(self) -> None:
        """Put the next part into place."""
        if self.hot:
            start, end = self.hot.popleft()
            if end - start > self._quantum:
                self.hot.appendleft((start + self._quantum, end))
                end = start + self._quantum
        else:
            last = self.pieces.last()
            if last is None:
                return
            end = last.end
            start = (end - 1) & -self._quantum
        taken = self.pieces.cut(start, end)
        if self._place(taken):
            self._quantum = min(2 * self._quantum, MOST)
            for piece in taken:
                if piece.end - piece.start >= LEAST:
                    self._files.punch(piece)
        elif self.hot:
            self.hot.appendleft((start, end))

    def _place(self, pieces: list[Piece]) -> bool:
        """Whether all of it is there now; what is not is among the pieces again."""
        for index, piece in enumerate(pieces):
            left: Piece | None = piece
            try:
                left = self._copy(piece)
            finally:
                if left is not None:
                    self.pieces.put([left, *pieces[index + 1 :]])
            if left is not None:
                return False
        return True

    def _copy(self, piece: Piece) -> Piece | None:
        """What could not be put into place because an event has to be read first."""
        for part, hole in self._files.parts(piece):
            at = self._put(part, hole)
            if at < part.end:
                return piece.cut(at, piece.end)
        return None

    def _put(self, piece: Piece, hole: bool) -> int:
        """The address up to which its pages are there now."""
        distance = 0
        if not hole:
            source = self._files.address(piece)
            distance = source - piece.start
            if piece.end - piece.start >= LEAST:
                mapping.populate(source, piece.end - piece.start)
        at, stop = piece.start, piece.end
        while at < piece.end:
            try:
                if hole:
                    done = userfaultfd.zeropage(self.uffd, at, stop - at)
                else:
                    done = userfaultfd.copy(self.uffd, at, at + distance, stop - at)
                self.copied += done
                at += done
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    return at
                if error.errno == errno.ENOENT and stop - at > PAGE:
                    # The end of a mapping lies in between, or nothing is there any more.
                    stop = at + ((stop - at) // 2 & -PAGE)
                    continue
                if error.errno not in (errno.EEXIST, errno.ENOENT):
                    raise _meaning(error) from error
                self.wake(at)
                at += PAGE
            if at == stop:
                stop = piece.end
        return at


def _meaning(error: OSError) -> Exception:
    if error.errno in _GONE:
        return TaskGone()
    return NoMemory() if error.errno == errno.ENOMEM else error
