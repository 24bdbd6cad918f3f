"""As much D-Bus as asking systemd takes: one connection, one call at a time, the signals in between.

No light library speaks it: the ones there are bring an event loop or 20 ms of imports. The format is
that of the D-Bus specification 0.43, little-endian, without descriptors.
"""

import _socket
import os
import struct
import time

from ocimig.runtime.errors import NoSystemd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = (
    1,
    2,
    3,
    4,
    5,
    6,
    8,
)
_HEADER_TYPES = {_PATH: "o", _REPLY_SERIAL: "u", _SIGNATURE: "g"}
_FIXED = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}
_ALIGN = {
    "y": 1,
    "g": 1,
    "v": 1,
    "n": 2,
    "q": 2,
    "x": 8,
    "t": 8,
    "d": 8,
    "(": 8,
    "{": 8,
}  # others 4
_LONGEST = 1 << 27  # a message, by the specification


class CallFailed(Exception):
    """The other side answered with an error: its name and its words."""

    def __init__(self, name: str, words: str) -> None:
        super().__init__(words or name)
        self.name = name


class Message:
    """What came: `fields` are the header's by their number."""

    __slots__ = ("body", "fields", "kind")

    def __init__(self, kind: int, fields: "dict[int, Any]", body: "list[Any]") -> None:
        self.kind = kind
        self.fields = fields
        self.body = body


class Connection:
    """A connection to systemd itself (`direct`) or to a bus that it is on."""

    __slots__ = ("direct", "serial", "signals", "socket")

    def __init__(self, path: str, *, direct: bool, timeout: float = 30.0) -> None:
        self.direct = direct
        self.serial = 0
        self.signals: list[Message] = []
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            self.socket.settimeout(timeout)
            self.socket.connect(path)
            self._authenticate()
            if not direct:
                self.call(
                    "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello"
                )
        except BaseException:
            self.socket.close()
            raise

    def close(self) -> None:
        """End it."""
        self.socket.close()

    def _authenticate(self) -> None:
        who = str(os.geteuid()).encode().hex()
        self.socket.sendall(b"\0AUTH EXTERNAL " + who.encode() + b"\r\n")
        answer = b""
        while not answer.endswith(b"\r\n"):
            byte = self.socket.recv(1)
            if not byte or len(answer) > 4096:
                raise ConnectionError("the bus closed the connection")
            answer += byte
        if not answer.startswith(b"OK "):
            raise PermissionError(answer.decode("ascii", "replace").strip())
        self.socket.sendall(b"BEGIN\r\n")

    def call(
        self, to: str, path: str, interface: str, member: str, signature: str = "", *values: "Any"
    ) -> "list[Any]":
        """Call a method and return what it answers. Raises CallFailed."""
        self.serial += 1
        serial = self.serial
        fields = {_PATH: path, _INTERFACE: interface, _MEMBER: member}
        if not self.direct:
            fields[_DESTINATION] = to
        if signature:
            fields[_SIGNATURE] = signature
        self.socket.sendall(encode(serial, fields, signature, values))
        while True:
            message = self._receive()
            if message.fields.get(_REPLY_SERIAL) != serial:
                if message.kind == SIGNAL:
                    self.signals.append(message)
                continue
            if message.kind == ERROR:
                words = str(message.body[0]) if message.body else ""
                raise CallFailed(message.fields.get(_ERROR_NAME, ""), words)
            return message.body

    def signal(self, member: str, seconds: float) -> "Message | None":
        """The next signal of that name; None after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            while self.signals:
                message = self.signals.pop(0)
                if message.fields.get(_MEMBER) == member:
                    return message
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                message = self._receive()
            except TimeoutError:
                return None
            if message.kind == SIGNAL:
                self.signals.append(message)

    def _receive(self) -> Message:
        head = self._exactly(16)
        order = "<" if head[:1] == b"l" else ">"
        kind = head[1]
        body_length, _serial, fields_length = struct.unpack_from(order + "III", head, 4)
        padded = (fields_length + 7) // 8 * 8
        if body_length + padded > _LONGEST:
            raise ConnectionError("the message is too long")
        rest = self._exactly(padded + body_length)
        rows, _ = decode(order, "a(yv)", head[12:16] + b"\0\0\0\0" + rest[:fields_length], 0)
        fields = dict(rows)
        body: list[Any] = []
        at = 0
        for each in split(fields.get(_SIGNATURE, "")):
            value, at = decode(order, each, rest[padded:], at)
            body.append(value)
        return Message(kind, fields, body)

    def _exactly(self, length: int) -> bytes:
        chunks = bytearray()
        while len(chunks) < length:
            chunk = self.socket.recv(length - len(chunks))
            if not chunk:
                raise ConnectionError("the bus closed the connection")
            chunks += chunk
        return bytes(chunks)


def connect(*, user: bool) -> Connection:
    """To systemd directly where we may, else by the bus. Raises NoSystemd with what was tried."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    base = runtime if user else "/run"
    bus = os.environ.get("DBUS_SESSION_BUS_ADDRESS" if user else "DBUS_SYSTEM_BUS_ADDRESS", "")
    named = bus.removeprefix("unix:path=").partition(",")[0] if bus.startswith("unix:path=") else ""
    usual = f"{runtime}/bus" if user else "/run/dbus/system_bus_socket"
    tried = []
    for path, direct in ((f"{base}/systemd/private", True), (named or usual, False)):
        try:
            return Connection(path, direct=direct)
        except (OSError, CallFailed) as error:
            tried.append(f"{path}: {getattr(error, 'strerror', None) or error}")
    raise NoSystemd(reason="; ".join(tried))


def encode(
    serial: int, fields: "dict[int, Any]", signature: str, values: "tuple[Any, ...]"
) -> bytes:
    """A method call."""
    body = bytearray()
    for each, value in zip(split(signature), values, strict=True):
        put(body, each, value)
    header = bytearray(struct.pack("<cBBBII", b"l", METHOD_CALL, 0, 1, len(body), serial))
    rows = [(code, (_HEADER_TYPES.get(code, "s"), value)) for code, value in fields.items()]
    put(header, "a(yv)", rows)
    header += b"\0" * (-len(header) % 8)
    return bytes(header + body)


def split(signature: str) -> "list[str]":
    """A signature as its complete types: "sa(sv)u" → s, a(sv), u."""
    found = []
    start = depth = 0
    for at, letter in enumerate(signature):
        depth += (letter in "({") - (letter in ")}")
        if depth == 0 and letter != "a":
            found.append(signature[start : at + 1])
            start = at + 1
    return found


def put(out: bytearray, kind: str, value: "Any") -> None:
    """Append a value of one complete type. A variant is (type, value)."""
    first = kind[0]
    out += b"\0" * (-len(out) % _ALIGN.get(first, 4))
    if first in _FIXED:
        out += struct.pack("<" + _FIXED[first], value)
    elif first in "so":
        raw = value.encode()
        out += struct.pack("<I", len(raw)) + raw + b"\0"
    elif first == "g":
        out += bytes([len(value)]) + value.encode() + b"\0"
    elif first == "v":
        put(out, "g", value[0])
        put(out, value[0], value[1])
    elif first == "a":
        at = len(out)
        out += b"\0\0\0\0" + b"\0" * (-(at + 4) % _ALIGN.get(kind[1], 4))
        start = len(out)
        for each in value.items() if isinstance(value, dict) else value:
            put(out, kind[1:], each)
        struct.pack_into("<I", out, at, len(out) - start)
    else:
        for each, part in zip(split(kind[1:-1]), value, strict=True):
            put(out, each, part)


def decode(order: str, kind: str, data: bytes, at: int) -> "tuple[Any, int]":
    """The value of one complete type at `at`, and where the next one is looked for."""
    first = kind[0]
    at += -at % _ALIGN.get(first, 4)
    if first in _FIXED:
        (value,) = struct.unpack_from(order + _FIXED[first], data, at)
        return (bool(value) if first == "b" else value), at + struct.calcsize(_FIXED[first])
    if first in "so":
        (length,) = struct.unpack_from(order + "I", data, at)
        return data[at + 4 : at + 4 + length].decode("utf-8", "replace"), at + 5 + length
    if first == "g":
        length = data[at]
        return data[at + 1 : at + 1 + length].decode("ascii"), at + 2 + length
    if first == "v":
        inner, at = decode(order, "g", data, at)
        return decode(order, inner, data, at)
    if first == "a":
        (length,) = struct.unpack_from(order + "I", data, at)
        at += 4
        at += -at % _ALIGN.get(kind[1], 4)
        end, rows = at + length, []
        while at < end:
            row, at = decode(order, kind[1:], data, at)
            rows.append(row)
        return rows, at
    parts = []
    for each in split(kind[1:-1]):
        part, at = decode(order, each, data, at)
        parts.append(part)
    return tuple(parts), at
