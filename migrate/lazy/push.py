"""Post-copy, at the source: pages of a container that runs elsewhere already leave the frozen one it was.

    source                        destination
    pages-left {space}, runs   →                       what is still here, of every space, in order
    pages-follow {}            →                       that is all; from here on:
    pages …                    →                       the rest, in order, as many as the link takes at once
    pages-ask {seq}            →  pages-taken {seq}    how long that takes says how much may be under way
                               ←  pages-want {space}, runs      somebody there sleeps until they come
    pages-end {pages}          →  pages-here {}        all of them are there

On a stream of its own, from before the restore there begins: restoring touches memory, too. Never decides what is left, and never lets go of the frozen container: the caller does when this returns.
"""

import time
from collections import deque
from collections.abc import Sequence

from ocimig.migrate.errors import BrokenFrame
from ocimig.migrate.lazy.pieces import Piece, Pieces
from ocimig.migrate.memory import frames, spaces
from ocimig.migrate.memory.errors import MemoryGone
from ocimig.migrate.memory.reader import Reader
from ocimig.migrate.memory.runs import PAGE, Run, total
from ocimig.migrate.memory.sift import sift
from ocimig.migrate.wire import Frame, Wire
from ocimig.runtime.linux import memory

LEFT = "pages-left"
FOLLOW = "pages-follow"
WANT = "pages-want"
END = "pages-end"
HERE = "pages-here"

CHUNK = 256 << 10  # bytes in a frame that nobody waits for
AROUND = 64 << 10  # bytes sent around a page that somebody waits for
_LEAST = 2 * CHUNK  # bytes under way
_MOST = 32 << 20
_RUNS = 1 << 17  # in one frame: half of what its payload may be
_QUEUED = 0.01  # seconds a wanted page may stand behind others, beyond the way itself

Left = Sequence[tuple[str, int, list[Run]]]  # space, host pid, runs


class Push:
    """What is left of one container, sent over the link that the migration has."""

    def __init__(self, wire: Wire, left: Left, *, silence: float = 60.0) -> None:
        self.sent = 0  # bytes on the wire
        self.pages = 0
        self.wanted = 0  # pages that somebody waited for
        self._wire = wire
        self._silence = silence
        self._left: dict[str, Pieces] = {}
        self._pids: dict[str, int] = {}
        for space, pid, runs in left:
            self._left[space] = Pieces(Piece(start, end, 0, start) for start, end in runs)
            self._pids[space] = pid
        self._readers: dict[str, Reader] = {}
        self._buffer = bytearray(CHUNK)
        self._under_way: deque[tuple[int, int, float]] = deque()  # seq, bytes, when it left
        self._window = _LEAST
        self._quickest = 1e9  # seconds until a frame is taken
        self._seq = 0

    def run(self) -> None:
        """Until the destination has everything. Raises LinkLost, FarSideSilent, MemoryGone."""
        before = self._wire.sent
        try:
            for space, pieces in self._left.items():
                runs = [(piece.start, piece.end) for piece in pieces]
                for at in range(0, len(runs), _RUNS):
                    payload = frames.pack_runs(runs[at : at + _RUNS])
                    self._wire.send(LEFT, {"space": space}, payload, timeout=self._silence)
            self._wire.send(FOLLOW, timeout=self._silence)
            while any(self._left.values()) or self._under_way:
                frame = self._wire.receive_now()
                if frame is None and self._may_send():
                    self._send_next()
                    continue
                self._hear(frame or self._wire.receive(self._silence))
            self._wire.send(END, {"pages": self.pages}, timeout=self._silence)
            while (frame := self._wire.receive(self._silence)).kind != HERE:
                self._hear(frame)
        finally:
            self.sent = self._wire.sent - before
            for reader in self._readers.values():
                reader.close()

    def _may_send(self) -> bool:
        return any(self._left.values()) and sum(e[1] for e in self._under_way) < self._window

    def _send_next(self) -> None:
        """The next pages that nobody has asked for."""
        space, pieces = next((space, pieces) for space, pieces in self._left.items() if pieces)
        size, first = 0, 0
        for piece in pieces:
            size += piece.end - piece.start
            first = piece.end - max(0, size - CHUNK)
            if size >= CHUNK:
                break
        self._send(space, pieces.cut(0, first))

    def _hear(self, frame: Frame) -> None:
        if frame.kind == WANT:
            self._give(frame)
        elif frame.kind == frames.TAKEN:
            try:
                self._taken(frames.number(frame.header, "seq", 1 << 62))
            except ValueError as error:
                raise BrokenFrame(host=self._wire.host, reason=f"{frame.kind}: {error}") from None
        else:
            reason = f"{frame.kind!r} came where {WANT} or {frames.TAKEN} belongs"
            raise BrokenFrame(host=self._wire.host, reason=reason)

    def _give(self, frame: Frame) -> None:
        """Pages that somebody waits for, with what is left around them; the rest goes on behind them."""
        try:
            space = spaces.check(frame.header.get("space"))
            runs = frames.unpack_runs(frame.payload)
        except ValueError as error:
            raise BrokenFrame(host=self._wire.host, reason=f"{frame.kind}: {error}") from None
        pieces = self._left.get(space)
        if pieces is None:
            return
        for start, end in runs:
            self.wanted += (end - start) // PAGE
            taken = pieces.cut(start & -AROUND, -(-end // AROUND) * AROUND)
            if taken:  # else it is under way already
                self._send(space, taken)

    def _send(self, space: str, pieces: list[Piece]) -> None:
        """One frame or more."""
        for runs, size in frames.cut([(piece.start, piece.end) for piece in pieces], CHUNK):
            reader = self._readers.get(space)
            if reader is None:
                reader = self._readers[space] = Reader(self._pids[space])
                reader.pin()
            view = memoryview(self._buffer)
            came = reader.read(runs, view, memory.address(self._buffer))
            if total(came) != size:
                raise MemoryGone(pages=(size - total(came)) // PAGE)
            entries, kept = sift(came, size, view, None)
            table = frames.table(entries)
            header = frames.header(space, len(entries), kept, compressed=False)
            payload = b"".join((table, view[:kept]))
            self._seq += 1
            self._wire.send(frames.PAGES, header, payload, flush=False, timeout=self._silence)
            self._wire.send(frames.ASK, {"seq": self._seq}, timeout=self._silence)
            self._under_way.append((self._seq, len(payload), time.monotonic()))
            self.pages += size // PAGE

    def _taken(self, seq: int) -> None:
        """More may be under way while that makes nobody wait longer."""
        while self._under_way and self._under_way[0][0] <= seq:
            _, _, left = self._under_way.popleft()
            took = time.monotonic() - left
            self._quickest = min(self._quickest, took)
            if took < 2 * self._quickest + _QUEUED:
                self._window = min(_MOST, self._window + CHUNK)
            else:
                self._window = max(_LEAST, self._window * 3 // 4)
