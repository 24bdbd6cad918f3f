"""Post-copy, at the destination: pages come while the container runs, first those that it waits for.

Held writes them where the page handler finds them; this tells the handler which have come. When the link
ends before the last one, the container is ended by the handler (`lost`): it must never read zeros. The
frames are those of push.py.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

from ocimig.errors import OcimigError
from ocimig.migrate.errors import BrokenFrame, LinkLost
from ocimig.migrate.lazy.handler import PageHandler, Source
from ocimig.migrate.lazy.pieces import Piece, Pieces
from ocimig.migrate.lazy.push import END, FOLLOW, HERE, LEFT, WANT
from ocimig.migrate.memory import frames, spaces
from ocimig.migrate.memory.held import Held
from ocimig.migrate.memory.runs import PAGE, Run, merge, total
from ocimig.migrate.wire import Frame, Wire


class Pull:
    """What one container still lacks, and the stream that it comes over.

    `run` is for the thread that serves the stream, `serve` for the one that restores.
    """

    def __init__(self, held: Held) -> None:
        self.failure = ""  # why not all of it came
        self.pages = 0
        self._held = held
        self._missing: dict[int, Pieces] = {}
        self._announced = threading.Event()
        self._ended = threading.Event()
        self._closed = False
        self._lock = threading.Lock()
        self._handler: PageHandler | None = None
        self._wire: Wire | None = None

    def close(self) -> None:
        """Before the handler and what is held are closed: the container has its memory, or is dead."""
        with self._lock:
            self._handler = None
            self._closed = True

    # ---- the restore

    def missing(self, timeout: float) -> dict[int, list[Run]]:
        """What is to come, by pid in the container, once the source has said it. Raises LinkLost."""
        if not self._announced.wait(timeout) or self.failure:
            raise LinkLost(
                host=self._held.host, reason=self.failure or "it does not say what follows"
            )
        with self._lock:
            return self._lacking()

    def _lacking(self) -> dict[int, list[Run]]:
        return {
            pid: merge((piece.start, piece.end) for piece in pieces)
            for pid, pieces in self._missing.items()
        }

    def serve(
        self,
        handler: PageHandler,
        spaces: Mapping[int, Sequence[Source]],
        hot: Mapping[int, Sequence[Run]],
    ) -> None:
        """PageHandler.serve, with what has not come by now as what comes later."""
        with self._lock:
            self._handler = handler
            handler.serve(spaces, hot, self._lacking())
            if self.failure:
                handler.fail(self.failure)

    def want(self, pid: int, run: Run) -> None:
        """Somebody waits for these pages. The page handler's `want`."""
        if self._wire is not None:
            with suppress(LinkLost):  # run() finds out too, and ends the container
                payload = frames.pack_runs([run])
                self._wire.send(WANT, {"space": spaces.of_process(pid)}, payload, timeout=60.0)

    def wait(self, timeout: float | None = None) -> bool:
        """Whether all of it came, or never will (`failure`); False when time is up."""
        return self._ended.wait(timeout)

    # ---- the stream

    def run(self, wire: Wire, first: Frame | None = None, *, silence: float = 60.0) -> None:
        """Take what comes, `first` when it was read already, until all is there. When it raises before
        that, the container has been ended."""
        self._wire = wire
        try:
            frame = first or wire.receive(silence)
            while frame.kind == LEFT:
                self._lacks(wire, frame)
                frame = wire.receive(silence)
            if frame.kind != FOLLOW:
                raise BrokenFrame(host=wire.host, reason=f"{frame.kind!r} before {FOLLOW}")
            self._announced.set()
            while (frame := wire.receive(silence)).kind != END:
                self._take(wire, frame)
            if any(self._missing.values()):
                raise BrokenFrame(host=wire.host, reason="not all pages came")
            wire.send(HERE, timeout=silence)
        except (OcimigError, OSError) as error:
            with self._lock:
                if not self._announced.is_set() or any(self._missing.values()):
                    self.failure = f"its memory was still on {wire.host}: {error}"
                if self.failure and self._handler is not None:
                    self._handler.fail(self.failure)
            raise
        finally:
            self._announced.set()
            self._ended.set()

    def _lacks(self, wire: Wire, frame: Frame) -> None:
        try:
            space = spaces.check(frame.header.get("space"))
            if not spaces.is_process(space):
                raise ValueError("only processes can wait for memory")
            runs = frames.unpack_runs(frame.payload)
            pieces = self._missing.setdefault(spaces.number(space), Pieces())
            if (last := pieces.last()) and runs and runs[0][0] < last.end:
                raise ValueError("a run begins before the one before it ends")
            pieces.put(Piece(start, end, 0, start) for start, end in runs)
        except ValueError as error:
            raise BrokenFrame(host=wire.host, reason=f"{frame.kind}: {error}") from None

    def _take(self, wire: Wire, frame: Frame) -> None:
        if frame.kind == frames.ASK:
            self._held.hear(wire, frame)
            return
        if frame.kind != frames.PAGES:
            raise BrokenFrame(host=wire.host, reason=f"{frame.kind!r} while memory follows")
        try:
            pages = frames.read(frame.header, frame.payload if frame.lent is None else frame.lent)
        except ValueError as error:
            raise BrokenFrame(host=wire.host, reason=f"{frame.kind}: {error}") from None
        pid = spaces.number(pages.space) if spaces.is_process(pages.space) else 0
        runs = merge((start, end) for start, end, _ in pages.entries)
        with self._lock:
            lacking = self._missing.get(pid, Pieces())
            taken = [piece for start, end in runs for piece in lacking.cut(start, end)]
            try:
                if sum(piece.end - piece.start for piece in taken) < total(runs):
                    # What the container has already is its own: nobody may write over it.
                    raise BrokenFrame(host=wire.host, reason="pages came that nobody lacks")
                if self._closed:
                    raise LinkLost(host=wire.host, reason="nobody takes it any more")
                self._held.hear(wire, frame)
            except BaseException:
                lacking.put(taken)
                raise
            self.pages += total(runs) // PAGE
            if self._handler is not None:
                self._handler.arrived(pid, runs)
