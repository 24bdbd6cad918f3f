"""Pages leave: planned into frames, read, freed of zeros, compressed where it pays, spread over streams.

Never decides which pages, nor when a round is over. Pages are read into the buffer from which they are
written: in the common case nothing is copied between. Reading is a quarter of the time, so in a long round
a thread of each stream reads while the stream writes what it read before.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ocimig.migrate.errors import BrokenFrame, LinkLost
from ocimig.migrate.memory import frames
from ocimig.migrate.memory.ahead import ahead
from ocimig.migrate.memory.digests import Digests
from ocimig.migrate.memory.limit import Limit, memory_and_swap
from ocimig.migrate.memory.runs import PAGE, Run, merge, subtract, total
from ocimig.migrate.memory.sift import sift
from ocimig.migrate.memory.squeeze import Squeeze
from ocimig.migrate.memory.stream import FRAME, TABLE, Buffer, Load, Piece, Stream
from ocimig.migrate.wire import Wire

ASK_EVERY = 16 << 20  # bytes after which the far side is asked what it has taken

_SLOWEST = 0.1  # seconds a frame may take where the rate is limited


@dataclass(slots=True)
class Sent:
    """What one send() did."""

    pages: int = 0  # that travelled as bytes
    zero: int = 0  # pages that travelled as a word
    same: int = 0  # pages the far side had from an earlier stay
    missing: int = 0  # pages that were gone when they were to be read
    read_bytes: int = 0
    wire_bytes: int = 0
    seconds: float = 0.0

    def count(self, entries: Iterable[frames.Entry]) -> None:
        """Count the pages of one frame that did not travel as bytes."""
        for start, end, kind in entries:
            if kind == frames.ZERO:
                self.zero += (end - start) // PAGE
            elif kind == frames.SAME:
                self.same += (end - start) // PAGE

    def add(self, other: "Sent") -> None:
        """Count another's pages and bytes as ours; both took their time at once."""
        self.pages += other.pages
        self.zero += other.zero
        self.same += other.same
        self.missing += other.missing
        self.read_bytes += other.read_bytes
        self.wire_bytes += other.wire_bytes


Witness = Callable[[str, Sequence[Run], memoryview], None]


class PageSender:
    """Sends pages of spaces over one or more wires, on which meanwhile nothing else is received.

    `compress` is one of squeeze.MODES; `limit` is in bytes a second over all streams (0: none), and can
    be changed by limit.rate. `after` is a sender that went before on the first of these wires: what it
    learned of the link and of the spaces counts here too. `witness` is told what is sent, as it was read. One thread at a time may call it.
    """

    def __init__(
        self,
        streams: Sequence[Wire],
        *,
        compress: str = "auto",
        witness: Witness | None = None,
        limit: int = 0,
        timeout: float | None = 60.0,
        after: "PageSender | None" = None,
    ) -> None:
        self.limit = Limit(limit)
        self._compress = compress
        self._witness = witness
        self._timeout = timeout
        self._streams: list[Stream] = []
        self._seq = 0
        self._lost: list[tuple[str, int, list[Run]]] = []
        self.gone: list[tuple[str, list[Run]]] = []  # what the last send() could not read
        self._after = after
        self._known: set[str] = set() if after is None else after._known  # spaces read before
        self._digests: dict[str, Digests] = {}
        self._lock = threading.Lock()
        self.reopen(streams)

    # ---- pages

    def send(self, dirty: Iterable[tuple[str, int, list[Run]]]) -> Sent:
        """Send these runs as they are now. Each is (space, pid on this host, runs).

        For a shared object the number is a descriptor of it, and the runs are offsets. What is no more
        is counted as missing. Raises LinkLost; then lost() says what is to be sent again.
        """
        before = time.monotonic()
        work = list(dirty)
        self.gone = []
        pieces, sent = _Shared(self._pieces(work)), Sent()
        try:
            self._barrier()
            self._run(lambda stream: self._send_all(stream, pieces, sent))
        except BaseException:
            self._lost += [(piece.space, piece.pid, piece.runs) for piece in pieces.rest()]
            raise
        finally:
            for space, _, _ in work:  # what differs from an earlier stay is sent by now
                self._known.add(space)
                self._digests.pop(space, None)
        sent.seconds = time.monotonic() - before
        return sent

    def _barrier(self) -> None:
        """On one stream frames come in order; of several, one could overtake another."""
        if len(self._streams) > 1:
            self.settle(self._timeout)

    def _pieces(self, work: list[tuple[str, int, list[Run]]]) -> Iterator[Piece]:
        size = FRAME
        if self.limit.rate:
            slow = int(self.limit.rate * _SLOWEST) // PAGE * PAGE
            size = max(16 * PAGE, min(FRAME, slow))
        for space, pid, runs in work:
            for piece, length in frames.cut(runs, size):
                yield Piece(space, pid, piece, length, space in self._known)

    def _run(self, work: Callable[[Stream], None]) -> None:
        """Do it on every stream at once."""
        if len(self._streams) == 1:
            work(self._streams[0])
            return
        failures: list[BaseException] = []

        def guarded(stream: Stream) -> None:
            try:
                work(stream)
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                failures.append(error)

        threads = [
            threading.Thread(target=guarded, args=(stream,), name="pages", daemon=True)
            for stream in self._streams
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def _send_all(self, stream: Stream, pieces: "_Shared", sent: Sent) -> None:
        done = Sent()
        try:
            with ahead(
                pieces, lambda piece, buffer: self._load(stream, piece, buffer), stream.buffers
            ) as loads:
                for load in loads:
                    self._send_load(stream, load, done)
        except BaseException:
            pieces.stop()
            raise
        finally:
            stream.put_down()
            with self._lock:
                sent.add(done)

    def _load(self, stream: Stream, piece: Piece, buffer: Buffer) -> Load:
        """Read a piece. Touches nothing that a thread that sends meanwhile changes."""
        stream.loaded.append(piece)
        came = stream.reader(piece).read(piece.runs, buffer.pages, buffer.address)
        read = piece.size if came is piece.runs else total(came)
        if self._witness is not None:
            self._witness(piece.space, came, buffer.pages[:read])
        if came is not piece.runs:
            self.gone.append((piece.space, subtract(piece.runs, merge(came))))
        entries, size = sift(came, read, buffer.pages, self._digests.get(piece.space))
        return Load(piece, buffer, read, entries, size)

    def _send_load(self, stream: Stream, load: Load, done: Sent) -> None:
        stream.unconfirmed.append((self._seq, load.piece))
        stream.loaded.popleft()
        done.read_bytes += load.read
        done.missing += (load.piece.size - load.read) // PAGE
        done.pages += load.size // PAGE
        if load.size != load.read:
            done.count(load.entries)
        if not load.entries:
            return
        wire_before = stream.wire.sent
        self._write(stream, load)
        done.wire_bytes += stream.wire.sent - wire_before
        if stream.unasked >= ASK_EVERY:
            self._ask(stream)
        stream.listen()

    def _write(self, stream: Stream, load: Load) -> None:
        """One frame."""
        whole, size = load.buffer.whole, load.size
        table = frames.table(load.entries)
        small = stream.squeeze.compress(load.buffer.pages[:size])
        payload: bytes | memoryview
        if small is None:  # the table goes right before the data: one buffer, nothing copied
            first = TABLE - len(table)
            whole[first:TABLE] = table
            payload = whole[first : TABLE + size]
        else:
            payload = b"".join((table, small))
        header = frames.header(
            load.piece.space, len(load.entries), size, compressed=small is not None
        )
        self.limit.take(len(payload))
        before = time.monotonic()
        try:
            stream.wire.send(frames.PAGES, header, payload, timeout=self._timeout)
        except LinkLost:
            with suppress(LinkLost):
                stream.listen()  # the far side may have said why it takes no more
            raise
        stream.squeeze.sent(len(payload), time.monotonic() - before)
        stream.unasked += len(payload)

    # ---- what the far side has taken

    def _ask(self, stream: Stream) -> int:
        with self._lock:
            self._seq += 1
            seq = self._seq
        stream.wire.send(frames.ASK, {"seq": seq}, timeout=self._timeout)
        stream.unasked = 0
        return seq

    def settle(self, timeout: float | None) -> None:
        """Wait until the far side has taken everything. Raises LinkLost, or FarSideSilent."""
        asked = [(stream, self._ask(stream)) for stream in self._streams]
        end = None if timeout is None else time.monotonic() + timeout
        for stream, seq in asked:
            while stream.confirm(stream.wire.receive(deadline=end)) < seq:
                pass
            stream.unconfirmed.clear()

    def lost(self) -> list[tuple[str, int, list[Run]]]:
        """What was to be sent and is not known to have come, as send() takes it."""
        found: dict[tuple[str, int], list[Run]] = {}
        for space, pid, runs in self._lost:
            found.setdefault((space, pid), []).extend(runs)
        for stream in self._streams:
            for piece in (*stream.loaded, *(each for _, each in stream.unconfirmed)):
                found.setdefault((piece.space, piece.pid), []).extend(piece.runs)
        return [(space, pid, merge(runs)) for (space, pid), runs in found.items()]

    def reopen(self, streams: Sequence[Wire]) -> None:
        """Go on over these wires. What lost() named is forgotten: the caller sends it again."""
        if not streams:
            raise ValueError("no stream to send on")
        self._lost.clear()
        rate = self.limit.rate // len(streams)
        self._streams = [Stream(wire, Squeeze(self._compress, rate=rate)) for wire in streams]
        if self._after is not None:
            link = self._after._streams[0].squeeze.link
            self._streams[0].squeeze = Squeeze(self._compress, rate=rate, link=link)

    # ---- what the far side has from an earlier stay

    def learn(self, timeout: float | None = 60.0) -> int:
        """Ask what the far side has from an earlier stay, before the first send(): how many pages.

        What is the same there does not travel. `timeout` is how long it may be silent.
        """
        wire = self._streams[0].wire
        wire.send(frames.OFFER, timeout=self._timeout)
        found: dict[str, Digests] = {}
        pages = 0
        while True:
            frame = wire.receive(timeout)
            try:
                if frame.kind == frames.OFFERED:
                    break
                if frame.kind != frames.DIGESTS:
                    raise ValueError(f"it came where {frames.DIGESTS} belongs")
                for space, run, digests in frames.unpack_digests(frame.header, frame.payload):
                    found.setdefault(space, Digests()).add(run, digests)
                    pages += total([run]) // PAGE
                if pages * PAGE > memory_and_swap():
                    raise ValueError("more than any container here can have")
            except ValueError as error:
                raise BrokenFrame(host=wire.host, reason=f"{frame.kind}: {error}") from None
        self._digests = found
        return pages


class _Shared:
    """One iterator for several threads, which any of them can stop."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._stopped = False
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        with self._lock:
            if self._stopped:
                raise StopIteration
            return next(self._pieces)

    def stop(self) -> None:
        """There is no more for anybody."""
        with self._lock:
            self._stopped = True

    def rest(self) -> Iterator[Piece]:
        """What nobody took, once all have stopped."""
        return self._pieces
