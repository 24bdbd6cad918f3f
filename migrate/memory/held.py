"""What this host holds of a container that is on its way: one sparse memfd a space, offset = address.

What is held may be stale or more than needed: the source knows which pages changed since, and CRIU which
it needs. Here every number that came from outside is checked before it is used, and refused as
BrokenFrame. Never asks for pages and never gives them to a process.
"""

import errno
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby

import zstandard

from ocimig.errors import NoSpace
from ocimig.migrate.errors import BrokenFrame
from ocimig.migrate.memory import frames, memfd
from ocimig.migrate.memory.frames import PRESENT, SAME, ZERO, Entry, Pages
from ocimig.migrate.memory.limit import memory_and_swap
from ocimig.migrate.memory.retained import Retained
from ocimig.migrate.memory.runs import PAGE, Run, intersect, merge, subtract, union
from ocimig.migrate.wire import Frame, Wire
from ocimig.runtime.linux.fallocate import punch_hole

Data = bytes | bytearray | memoryview
_LOG = 64  # entries that are not worth a look
MOST_SPACES = 32768


class _Space:
    """One memfd and what is known of it. Its lists are guarded by the lock of Held."""

    __slots__ = ("allocated", "candidates", "fd", "forgotten", "held", "log", "users", "zeros")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.held: list[Run] = []
        self.zeros: list[Run] = []  # of what is held: holes in the memfd
        self.candidates: list[
            Run
        ] = []  # bytes from an earlier stay, worth something once confirmed
        self.log: list[Entry] = []  # taken since the lists were brought up to date
        self.allocated = 0  # bytes, when last asked
        self.users = 0
        self.forgotten = False

    def settle(self) -> None:
        """Bring the lists up to date. Costs as much as they are long, so not for each frame."""
        if not self.log:
            return
        taken, self.log = self.log, []
        self.held = union(self.held, merge((start, end) for start, end, _ in taken))
        for zeros, others in _in_order(taken):
            self.zeros = subtract(union(self.zeros, zeros), others)
        if self.candidates:
            gone = merge((start, end) for start, end, kind in taken if kind != SAME)
            self.candidates = subtract(self.candidates, gone)


class Held:
    """The memory that came. All methods may be called from several threads.

    `limit` is how many bytes it may take at most, by default what the host has of memory and swap;
    `retained` is what the container left here when it went, if it did.
    """

    def __init__(
        self,
        *,
        host: str = "the source",
        limit: int | None = None,
        retained: Retained | None = None,
    ) -> None:
        self.host = host
        self._retained = retained
        self.limit = memory_and_swap() if limit is None else limit
        self._spaces: dict[str, _Space] = {}
        self._allocated = 0
        self._lock = threading.Lock()
        self._local = threading.local()

    # ---- what comes

    def take(self, frame: Frame) -> int | None:
        """Do what a frame of frames.KINDS says. One that asks is answered by its number: see hear().

        Raises BrokenFrame where it breaks a rule, NoSpace where the host has no memory left.
        """
        try:
            if frame.kind == frames.PAGES:
                self._take(
                    frames.read(frame.header, frame.payload if frame.lent is None else frame.lent)
                )
                return None
            if frame.kind == frames.ASK:
                self._catch_up()
                return frames.number(frame.header, "seq", 1 << 62)
            raise ValueError("it is no frame of pages")
        except ValueError as error:
            raise BrokenFrame(host=self.host, reason=f"{frame.kind}: {error}") from None

    def hear(self, wire: Wire, frame: Frame) -> None:
        """take(), with the answer where one is due. Payloads that follow come without a copy."""
        wire.lent.add(frames.PAGES)
        if frame.kind == frames.OFFER:
            self._offer(wire)
            return
        seq = self.take(frame)
        if seq is not None:
            wire.send(frames.TAKEN, {"seq": seq})

    def _offer(self, wire: Wire) -> None:
        if self._retained is None:
            wire.send(frames.OFFERED, {"pages": 0})
            return
        with wire.beating():
            self._retained.offer(self, wire)

    def _catch_up(self) -> None:
        """Bring lists up to date while nobody waits: covers() is asked in the freeze."""
        with self._lock:
            for space in self._spaces.values():
                if len(space.log) > _LOG + len(space.held) // 8:
                    space.settle()

    def _take(self, pages: Pages) -> None:
        data = self._plain(pages)
        with self._use(pages.space) as space:
            self._check_room(space, pages)
            with _memory_lasts(self.host):
                _write(space.fd, pages.entries, data)
            self._note(space, pages.entries)

    def fill(self, space: str, parts: Iterable[tuple[int, Data]], zeros: list[Run]) -> None:
        """Hold what came by another way than frames: (address, bytes), and pages of zeros. Raises NoSpace."""
        with self._use(space) as found:
            entries: list[Entry] = [(start, end, ZERO) for start, end in zeros]
            with _memory_lasts(self.host):
                for start, data in parts:
                    entry = start, start + len(data), PRESENT
                    _write(found.fd, [entry], memoryview(data))
                    entries.append(entry)
            self._note(found, entries)

    def _plain(self, pages: Pages) -> memoryview:
        """The data, decompressed; never more than the header, which was checked, allows."""
        if not pages.compressed:
            return pages.data
        if not hasattr(self._local, "zstd"):
            self._local.zstd = zstandard.ZstdDecompressor()
        try:
            if zstandard.frame_content_size(pages.data) != pages.size:
                raise ValueError("the compressed data have another size")
            data = self._local.zstd.decompress(pages.data, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ValueError(f"the compressed data: {error}") from None
        if len(data) != pages.size:
            raise ValueError("the compressed data end early")
        return memoryview(data)

    def _check_room(self, space: _Space, pages: Pages) -> None:
        with self._lock:
            if self._allocated + pages.size > self.limit:
                raise ValueError(f"more than {self.limit} bytes of memory")
            if (len(space.held) + len(space.log)) * PAGE > self.limit + PAGE * frames.MOST_RUNS:
                space.settle()
                if len(space.held) * PAGE > self.limit:
                    raise ValueError("more runs than there are pages")
            if any(kind == SAME for _, _, kind in pages.entries):
                space.settle()
                same = merge((start, end) for start, end, kind in pages.entries if kind == SAME)
                if subtract(same, space.candidates):
                    raise ValueError("it calls pages the same that were never offered")

    # ---- what is here

    def spaces(self) -> list[str]:
        """The names of all spaces something is held of."""
        with self._lock:
            return list(self._spaces)

    def runs(self, space: str) -> list[Run]:
        """What is held of a space, pages of zeros included; nothing of an unknown one."""
        with self._lock:
            found = self._spaces.get(space)
            if found is None:
                return []
            found.settle()
            return list(found.held)

    def zeros(self, space: str) -> list[Run]:
        """What of it is pages of zeros: holes in its memfd."""
        with self._lock:
            found = self._spaces.get(space)
            if found is None:
                return []
            found.settle()
            return list(found.zeros)

    def covers(self, space: str, runs: list[Run]) -> list[Run]:
        """What of these runs is not held."""
        return subtract(runs, self.runs(space))

    def fd(self, space: str) -> int:
        """The memfd of a space, for reading and for punching holes. It stays ours. Raises KeyError.

        Pages of zeros are holes: lseek(2) with SEEK_DATA tells where there is anything else.
        """
        with self._lock:
            return self._spaces[space].fd

    def open(self, space: str) -> int:
        """As fd(), of a space of which nothing may have come yet."""
        with self._use(space) as found:
            return found.fd

    @property
    def bytes(self) -> int:
        """How much memory all of it takes."""
        with self._lock:
            found = list(self._spaces.values())
            return sum(os.fstat(space.fd).st_blocks * 512 for space in found)

    # ---- what goes

    def forget(self, space: str) -> None:
        """Hold nothing of this space any more: it is another process now, or none."""
        with self._lock:
            found = self._spaces.pop(space, None)
            if found is None:
                return
            self._allocated -= found.allocated
            found.forgotten = True
            if not found.users:
                os.close(found.fd)

    def close(self) -> None:
        """Give everything back."""
        for name in self.spaces():
            self.forget(name)

    # ---- an earlier stay

    @contextmanager
    def offer(self, space: str) -> Iterator[tuple[int, list[Run]]]:
        """A `with` block that writes pages of an earlier stay into the memfd it is given.

        It adds their runs to the list, before it tells the source of them. They count as held only once
        the source has called them the same.
        """
        with self._use(space) as found:
            offered: list[Run] = []
            try:
                yield found.fd, offered
            finally:
                with self._lock:
                    found.settle()
                    found.candidates = subtract(union(found.candidates, merge(offered)), found.held)
                    if not found.forgotten:
                        self._measure(found)

    def _note(self, space: _Space, entries: list[Entry]) -> None:
        """These were written."""
        with self._lock:
            if not space.forgotten:
                self._measure(space)
            space.log += entries

    def _measure(self, space: _Space) -> None:
        """Count what its memfd takes. Under the lock."""
        allocated = os.fstat(space.fd).st_blocks * 512
        self._allocated += allocated - space.allocated
        space.allocated = allocated

    # ---- one memfd

    @contextmanager
    def _use(self, name: str) -> Iterator[_Space]:
        """The space of that name, made where it is new, and not closed under us."""
        with self._lock:
            space = self._spaces.get(name)
            if space is None:
                if len(self._spaces) >= MOST_SPACES:
                    raise BrokenFrame(host=self.host, reason=f"more than {MOST_SPACES} spaces")
                space = self._spaces[name] = _Space(memfd.make(name))
            space.users += 1
        try:
            yield space
        finally:
            with self._lock:
                space.users -= 1
                if space.forgotten and not space.users:
                    os.close(space.fd)


def _write(fd: int, entries: list[Entry], data: memoryview) -> None:
    position = 0
    for start, end, kind in entries:
        if kind == PRESENT:
            stop = position + end - start
            while position < stop:
                position += os.pwrite(fd, data[position:stop], end - (stop - position))
        elif kind == ZERO:
            punch_hole(fd, start, end)


def _in_order(taken: list[Entry]) -> Iterator[tuple[list[Run], list[Run]]]:
    """(pages of zeros, others), so that what came later counts: at once, unless a page came as both."""
    zeros = merge((start, end) for start, end, kind in taken if kind == ZERO)
    others = merge((start, end) for start, end, kind in taken if kind != ZERO)
    if not intersect(zeros, others):
        yield zeros, others
        return
    for zero, group in groupby(taken, lambda entry: entry[2] == ZERO):
        runs = merge((start, end) for start, end, _ in group)
        yield (runs, []) if zero else ([], runs)


@contextmanager
def _memory_lasts(host: str) -> Iterator[None]:
    """Say in words that there is no more memory."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.ENOMEM}:
            raise NoSpace(path=f"the memory for {host}'s container") from None
        raise
