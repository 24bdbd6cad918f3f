"""One of the wires that pages leave by: the buffers, and what was sent without having been confirmed.

Never decides what is sent.
"""

from collections import deque
from dataclasses import dataclass, field

from ocimig.migrate.errors import BrokenFrame
from ocimig.migrate.memory import frames, spaces
from ocimig.migrate.memory.reader import Reader
from ocimig.migrate.memory.runs import PAGE, Run
from ocimig.migrate.memory.squeeze import Squeeze
from ocimig.migrate.wire import Frame, Wire
from ocimig.runtime.linux.memory import address

FRAME = 1 << 20  # bytes of pages a frame is planned for
TABLE = frames.ENTRY * (FRAME // PAGE)


@dataclass(slots=True)
class Piece:
    """What one frame is to bring."""

    space: str
    pid: int
    runs: list[Run]
    size: int  # bytes
    again: bool  # this space was read before


class Buffer:
    """Room for the pages of one frame, and for their table right before them."""

    __slots__ = ("address", "pages", "whole")

    def __init__(self) -> None:
        data = bytearray(TABLE + FRAME)
        self.whole = memoryview(data)
        self.pages = self.whole[TABLE:]
        self.address = address(data) + TABLE


@dataclass(slots=True)
class Load:
    """A piece as it was read: what its frame says, and how many bytes of data it has in the buffer."""

    piece: Piece
    buffer: Buffer
    read: int  # bytes
    entries: list[frames.Entry]
    size: int


@dataclass(slots=True)
class Stream:
    """One wire with its buffers and what it has sent without having been confirmed."""

    wire: Wire
    squeeze: Squeeze
    buffers: list[Buffer] = field(default_factory=lambda: [Buffer(), Buffer()])
    loaded: deque[Piece] = field(default_factory=deque)  # read, and not on its way yet
    unconfirmed: deque[tuple[int, Piece]] = field(default_factory=deque)
    unasked: int = 0
    _reader: Reader | None = None
    _reads: tuple[str, int] = ("", 0)

    def reader(self, piece: Piece) -> Reader:
        """The reader of the piece's space. Each stream has its own, for one space at a time."""
        if self._reader is None or self._reads != (piece.space, piece.pid):
            self.put_down()
            if spaces.is_process(piece.space):
                self._reader = Reader(piece.pid)
                if piece.again:
                    self._reader.pin()
            else:
                self._reader = Reader.of_file(piece.pid)
            self._reads = (piece.space, piece.pid)
        return self._reader

    def put_down(self) -> None:
        """Read no more of that space."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def listen(self) -> None:
        """Hear what has come already. Raises FarFailure where the far side cannot go on."""
        while (frame := self.wire.receive_now()) is not None:
            self.confirm(frame)

    def confirm(self, frame: Frame) -> int:
        """Hear what the far side has taken: the number it names."""
        if frame.kind != frames.TAKEN:
            reason = f"{frame.kind!r} came where {frames.TAKEN} belongs"
            raise BrokenFrame(host=self.wire.host, reason=reason)
        try:
            seq = frames.number(frame.header, "seq", 1 << 62)
        except ValueError as error:
            raise BrokenFrame(host=self.wire.host, reason=f"{frame.kind}: {error}") from None
        while self.unconfirmed and self.unconfirmed[0][0] < seq:
            self.unconfirmed.popleft()
        return seq
