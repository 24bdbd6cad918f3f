"""Frames over a channel: who speaks, in which version, in lengths that have a limit. Never knows what they mean.

    greeting   \\x89OCIMIG\\n  newest version u16  oldest version u16  zero u32         (each side, once)
    frame      kind length u8  zero u8  zero u16  header length u32  payload length u32
               kind (ASCII)  header (one JSON object)  payload (bytes)

All numbers in network order. docs/formats/wire.md is the whole description.
"""

import re
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ocimig import jsonio
from ocimig.errors import OcimigError
from ocimig.migrate import failpoints
from ocimig.migrate.beat import Beat
from ocimig.migrate.errors import (
    AgentMissing,
    BrokenFrame,
    FarFailure,
    FarSideSilent,
    LinkLost,
    NotOurProtocol,
    WireVersion,
)
from ocimig.migrate.noise import last_line, readable, shortened
from ocimig.migrate.transport import Channel, Filling

MAGIC = b"\x89OCIMIG\n"
VERSION = 1  # what this side speaks best
OLDEST = 1  # what it still speaks
MAX_HEADER = 1 << 20
MAX_PAYLOAD = 4 << 20
MAX_NOISE = 64 << 10  # what a login script may print before the greeting

_GREETING = struct.Struct("!8sHHI")
_PREFIX = struct.Struct("!BBHII")
_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}")
_CHUNK = 1 << 18  # one read from the channel
_AHEAD = 1 << 12  # the same where payloads are lent: what came with the head is copied once more
_FLUSH = 1 << 18  # small frames are gathered up to this size
_NOT_FOUND = (126, 127)  # a shell's statuses for a program it cannot start

_Got = TypeVar("_Got", bytes, int)
ERROR = "error"
PING = "ping"
PONG = "pong"
ALIVE = "alive"


@dataclass(frozen=True, slots=True)
class Frame:
    """One message."""

    kind: str
    header: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""
    lent: memoryview | None = None  # the payload instead, of kinds in Wire.lent


class Wire:
    """One end of a conversation. Any thread may send; one at a time may receive."""

    def __init__(self, channel: Channel, *, program: str = "ocimig") -> None:
        self.channel = channel
        self.host = channel.host
        self.noise = ""  # what the far side printed before its greeting; worth a warning
        self.version = 0  # agreed by greet()
        self.side = ""  # "source" or "destination", on the main link of a migration
        self.sent = 0
        self.received = 0
        self._program = program
        self.lent: set[str] = (
            set()
        )  # kinds whose payload lies where the next receive() writes again
        self._shelf = bytearray()
        self._filling = channel if isinstance(channel, Filling) else None
        self._in = bytearray()
        self._out = bytearray()
        self._sending = threading.Lock()

    # ---- greeting

    def greet(self, timeout: float | None = 15.0) -> None:
        """Say who we are and learn who they are, once, before the first frame.

        Both sides may do it at the same time. What comes before the far side's greeting (a motd, an
        echo of a login script) is kept in `noise`; a far side that never greets is named in words.
        """
        # a far side that is gone already has said why: reading will find out
        with suppress(LinkLost):
            self._write(_GREETING.pack(MAGIC, VERSION, OLDEST, 0), timeout)
        end = None if timeout is None else time.monotonic() + timeout
        start = self._find_greeting(end)
        self.noise = readable(self._in[:start])
        del self._in[:start]
        while len(self._in) < _GREETING.size:
            self._more(end, "the greeting ends early")
        _, newest, oldest, _ = _GREETING.unpack_from(self._in)
        del self._in[: _GREETING.size]
        self.version = min(newest, VERSION)
        if self.version < max(oldest, OLDEST):
            theirs, ours = f"{oldest} to {newest}", f"{OLDEST} to {VERSION}"
            raise WireVersion(host=self.host, theirs=theirs, ours=ours)

    def _find_greeting(self, end: float | None) -> int:
        while True:
            start = self._in.find(MAGIC)
            if start >= 0:
                return start
            if len(self._in) > MAX_NOISE:
                raise self._stranger("it prints without end")
            try:
                data = self.channel.read(_CHUNK, _left(end))
            except TimeoutError:
                raise self._stranger("it did not greet in time: a slow login script?") from None
            if not data:
                raise self._never_greeted()
            self._in += data

    def _never_greeted(self) -> OcimigError:
        try:
            status = self.channel.wait(2.0)
        except TimeoutError:
            return self._stranger("it closed its output")
        said = last_line(self.channel.stderr_tail())
        missing = "command not found" in said.lower() or "unknown command" in said.lower()
        if status in _NOT_FOUND or missing:
            reason = said or f"its shell answers with status {status}"
            return AgentMissing(host=self.host, program=self._program, reason=reason)
        return self._stranger(f"it ended with status {status}")

    def _stranger(self, what: str) -> NotOurProtocol:
        """An error that quotes whatever the far side said instead of a greeting."""
        noise = readable(self._in)
        said = last_line(self.channel.stderr_tail())
        reason = what
        if noise:
            reason += f", after printing {shortened(noise)!r}"
        if said:
            reason += f", stderr {shortened(said)!r}"
        return NotOurProtocol(host=self.host, reason=reason)

    # ---- sending

    def send(
        self,
        kind: str,
        header: dict[str, Any] | None = None,
        payload: bytes | bytearray | memoryview = b"",
        *,
        flush: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Send one frame. Without `flush` it may wait here for company; see flush()."""
        head = _head(kind, header, memoryview(payload).nbytes)
        with self._sending:
            if len(payload) > _FLUSH:
                self._flush(timeout)
                self._write(head, timeout)
                self._write(payload, timeout)
            else:
                self._out += head
                self._out += payload
                if flush or len(self._out) >= _FLUSH:
                    self._flush(timeout)
        failpoints.here(self.side, f"{kind}:sent")

    def flush(self, timeout: float | None = None) -> None:
        """Send what send(flush=False) kept back."""
        with self._sending:
            self._flush(timeout)

    def _flush(self, timeout: float | None) -> None:
        if self._out:
            data, self._out = self._out, bytearray()
            self._write(data, timeout)

    def _write(self, data: bytes | bytearray | memoryview, timeout: float | None) -> None:
        view = memoryview(data)
        try:
            self.channel.write(view, timeout)
        except TimeoutError:
            raise self._silent(timeout, "it takes no more data") from None
        self.sent += view.nbytes

    def send_error(self, error: BaseException, *, timeout: float | None = None) -> None:
        """Tell the far side what went wrong, in words a person there can use."""
        if isinstance(error, OcimigError):
            words = {"message": str(error), "hint": error.advice, "code": error.code}
        else:
            words = {"message": f"{type(error).__name__}: {error}", "hint": "", "code": 1}
        self.send(ERROR, {"name": type(error).__name__, **words}, timeout=timeout)

    # ---- receiving

    def receive(self, timeout: float | None = None, *, deadline: float | None = None) -> Frame:
        """The next frame. An error frame is raised as FarFailure.

        `timeout` is how long the far side may be silent: its `alive` frames (see beating) start the
        time anew. `deadline`, on time.monotonic(), is when it must be here in any case.
        """
        while True:
            end = None if timeout is None else time.monotonic() + timeout
            if deadline is not None:
                end = deadline if end is None else min(end, deadline)
            frame = self._next(end)
            if frame is not None:
                return frame

    def receive_now(self) -> Frame | None:
        """The next frame if it is here already, else None. An error frame is raised."""
        while True:
            needed = self._needed()
            while needed > len(self._in):
                try:
                    data = self.channel.read(_CHUNK, 0)
                except TimeoutError:
                    return None
                if not data:
                    raise self._ended("it ended in the middle" if self._in else "it ended")
                self.received += len(data)
                self._in += data
                needed = self._needed()
            frame = self._next(None)
            if frame is not None:
                return frame

    def expect(self, *kinds: str, timeout: float | None = None) -> Frame:
        """The next frame, which must be of one of `kinds`."""
        frame = self.receive(timeout)
        if frame.kind not in kinds:
            reason = f"{frame.kind!r} came where {' or '.join(kinds)} belongs"
            raise BrokenFrame(host=self.host, reason=reason)
        return frame

    def _needed(self) -> int:
        """How many bytes the frame at the head of the buffer has, as far as can be told."""
        if len(self._in) < _PREFIX.size:
            return _PREFIX.size
        kind, header, payload = self._prefix()
        return _PREFIX.size + kind + header + payload

    def _prefix(self) -> tuple[int, int, int]:
        kind, zero, zeros, header, payload = _PREFIX.unpack_from(self._in)
        if zero or zeros or not 1 <= kind <= 32:
            raise BrokenFrame(host=self.host, reason="it does not begin like one")
        if header > MAX_HEADER or payload > MAX_PAYLOAD:
            reason = f"it claims {header} and {payload} bytes"
            raise BrokenFrame(host=self.host, reason=reason)
        return kind, header, payload

    def _next(self, end: float | None) -> Frame | None:
        """One frame, or None when it was one of the wire's own."""
        while len(self._in) < _PREFIX.size:
            self._more(end, "it ended in the middle of a frame" if self._in else "it ended")
        kind_size, header_size, payload_size = self._prefix()
        start = _PREFIX.size + kind_size
        while len(self._in) < start + header_size:
            self._more(end, "it ended in the middle of a frame")
        kind = bytes(self._in[_PREFIX.size : start])
        header = self._header(kind, bytes(self._in[start : start + header_size]))
        name, at = kind.decode(), start + header_size
        if name in self.lent:
            return self._sorted_out(Frame(name, header, lent=self._lend(at, payload_size, end)))
        return self._sorted_out(Frame(name, header, self._payload(at, payload_size, end)))

    def _header(self, kind: bytes, raw: bytes) -> dict[str, Any]:
        if not _KIND.fullmatch(kind.decode("latin-1")):
            raise BrokenFrame(host=self.host, reason=f"{kind!r} is not a kind")
        if not raw:
            return {}
        try:
            header = jsonio.loads(raw)
        except ValueError as error:
            raise BrokenFrame(host=self.host, reason=f"its header: {error}") from None
        if not isinstance(header, dict):
            raise BrokenFrame(host=self.host, reason="its header is not an object")
        return header

    def _payload(self, start: int, size: int, end: float | None) -> bytes:
        """The payload that begins at `start` of the buffer; a large one is not copied through it."""
        if start + size <= len(self._in):
            payload = bytes(memoryview(self._in)[start : start + size])
            del self._in[: start + size]
            return payload
        parts = [bytes(memoryview(self._in)[start:])]
        self._in.clear()
        missing = size - len(parts[0])
        while missing:
            parts.append(
                self._read(min(missing, 1 << 20), end, "it ended in the middle of a frame")
            )
            missing -= len(parts[-1])
        return b"".join(parts)

    def _lend(self, start: int, size: int, end: float | None) -> memoryview:
        """The payload, read to where the last one lay: memory that is warm, and nobody's to free."""
        if size > len(self._shelf):
            self._shelf = bytearray(MAX_PAYLOAD)
        view = memoryview(self._shelf)[:size]
        filled = min(size, len(self._in) - start)
        view[:filled] = self._in[start : start + filled]
        del self._in[: start + filled]
        while filled < size:
            filled += self._read_into(view[filled:], end, "it ended in the middle of a frame")
        return view

    def _sorted_out(self, frame: Frame) -> Frame | None:
        if frame.kind == ALIVE:
            return None
        if frame.kind == PING:
            self.send(PONG, frame.header)
            return None
        if frame.kind == ERROR:
            raise self._failure(frame.header)
        failpoints.here(self.side, f"{frame.kind}:received")
        return frame

    def _failure(self, header: dict[str, Any]) -> FarFailure:
        code = header.get("code")
        return FarFailure(
            host=self.host,
            name=str(header.get("name", "")),
            reason=str(header.get("message", "it failed without a word")),
            their_hint=str(header.get("hint", "")),
            code=code if isinstance(code, int) and 0 < code < 256 else 1,
        )

    def _more(self, end: float | None, what: str) -> None:
        self._in += self._read(_AHEAD if self.lent else _CHUNK, end, what)

    def _read(self, size: int, end: float | None, what: str) -> bytes:
        data = self._wait(lambda left: self.channel.read(size, left), end, what)
        self.received += len(data)
        return data

    def _read_into(self, view: memoryview, end: float | None, what: str) -> int:
        if (filling := self._filling) is None:
            data = self._read(min(len(view), 1 << 20), end, what)
            view[: len(data)] = data
            return len(data)
        count = self._wait(lambda left: filling.read_into(view, left), end, what)
        self.received += count
        return count

    def _wait(self, read: Callable[[float | None], _Got], end: float | None, what: str) -> _Got:
        """What was read, in time and before the end of the stream; else an error that says which."""
        before = time.monotonic()
        try:
            got = read(_left(end))
        except TimeoutError:
            raise self._silent(time.monotonic() - before, "no frame came") from None
        if not got:
            raise self._ended(what)
        return got

    def _ended(self, what: str) -> LinkLost:
        said = last_line(self.channel.stderr_tail())
        return LinkLost(host=self.host, reason=f"{what} ({shortened(said)})" if said else what)

    def _silent(self, seconds: float | None, reason: str) -> FarSideSilent:
        return FarSideSilent(host=self.host, seconds=f"{seconds or 0:.0f}", reason=reason)

    # ---- signs of life

    def ping(self, timeout: float | None = 15.0) -> float:
        """Seconds that a question and its answer take. Only where no other frame is due."""
        before = time.monotonic()
        self.send(PING, timeout=timeout)
        self.expect(PONG, timeout=timeout)
        return time.monotonic() - before

    def beating(self, every: float = failpoints.patience(20.0) / 4) -> Beat:
        """A `with` block in which the far side hears `alive` while this one is busy."""
        return Beat(lambda: self.send(ALIVE, timeout=every), every)

    def close(self) -> None:
        """Give the channel up."""
        self.channel.close()


def _head(kind: str, header: dict[str, Any] | None, payload: int) -> bytes:
    """Everything of a frame that goes before its payload."""
    if not _KIND.fullmatch(kind):
        raise ValueError(f"{kind!r} is not a kind")
    raw = jsonio.dumps(header).encode() if header else b""
    if len(raw) > MAX_HEADER or payload > MAX_PAYLOAD:
        raise ValueError(f"a frame of {len(raw)} and {payload} bytes is too large")
    return _PREFIX.pack(len(kind), 0, 0, len(raw), payload) + kind.encode() + raw


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())
