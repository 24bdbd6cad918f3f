"""Protobuf messages by hand: the fields that a table names, within bounds. Knows no image.

The generated messages of pycriu need CRIU installed, cost 30 ms to load and take whatever memory a message
asks for (docs/adr/0030). Here a message becomes a dict with every name of its table; what is unknown is skipped,
what is absent has its default: 0, "", b"", None for a message, an empty list for what may repeat.
"""

from collections.abc import Iterator
from typing import Any

VALUES = 1 << 17  # in one message with all that is inside it
DEPTH = 24  # of messages inside messages
_NUMBERS = "uis"


class Table:
    """What is wanted of one kind of message: "name=number[:kind][*]", `*` where it may repeat.

    Kinds are u unsigned (the default), i signed, s zigzag, t text, b bytes, or the name of one of `inner`.
    """

    __slots__ = ("defaults", "fields", "lists")

    def __init__(self, text: str, **inner: "Table") -> None:
        self.fields: dict[int, tuple[str, str, bool, Table | None]] = {}
        self.defaults: dict[str, Any] = {}
        self.lists: list[str] = []
        for word in text.split():
            name, _, rest = word.partition("=")
            number, _, kind = rest.rstrip("*").partition(":")
            self.add(name, int(number), kind or "u", inner.get(kind), many=word.endswith("*"))

    def add(self, name: str, number: int, kind: str, inner: "Table | None", *, many: bool) -> None:
        """One more field; a table that contains itself is made this way."""
        self.fields[number] = (name, kind, many, inner)
        if many:
            self.lists.append(name)
        else:
            self.defaults[name] = _default(kind)


def _default(kind: str) -> Any:
    if kind == "t":
        return ""
    if kind == "b":
        return b""
    return 0 if kind in _NUMBERS else None


def parse(data: bytes, table: Table) -> dict[str, Any]:
    """The message as a dict. Raises ValueError where it is none, or is beyond the bounds."""
    return _parse(data, table, [VALUES], DEPTH)


def _parse(data: bytes, table: Table, left: list[int], depth: int) -> dict[str, Any]:
    if not depth:
        raise ValueError("messages are nested too deeply")
    found = dict(table.defaults)
    for name in table.lists:
        found[name] = []
    for number, value in walk(data):
        field = table.fields.get(number)
        if field is None:
            continue
        left[0] -= 1
        if left[0] < 0:
            raise ValueError(f"more than {VALUES} values in one message")
        name, kind, many, inner = field
        converted: Any
        if inner is not None:
            if not isinstance(value, bytes):
                raise ValueError(f"{name} is no message")
            converted = _parse(value, inner, left, depth - 1)
        elif many and isinstance(value, bytes) and kind in _NUMBERS:
            numbers = [_number(each, kind) for each in varints(value)]
            left[0] -= len(numbers)
            found[name] += numbers
            continue
        else:
            converted = _convert(name, kind, value)
        if many:
            found[name].append(converted)
        else:
            found[name] = converted
    return found


def _convert(name: str, kind: str, value: int | bytes) -> Any:
    if kind in "tb":
        if not isinstance(value, bytes):
            raise ValueError(f"{name} is a number")
        return text(value) if kind == "t" else value
    if isinstance(value, int):
        return _number(value, kind)
    raise ValueError(f"{name} is no number")


def _number(value: int, kind: str) -> int:
    if kind == "i":
        return value - (1 << 64) if value >> 63 else value
    if kind == "s":
        return (value >> 1) ^ -(value & 1)
    return value


def text(value: bytes) -> str:
    r"""For people and for JSON: bytes that are not UTF-8 become \xNN."""
    return value.decode("utf-8", "backslashreplace")


def walk(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Every field as it comes: its number and its value, an int or the bytes of what has a length.

    Raises ValueError on anything that is not a message.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"field number {number}")
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if length > end - at:
            raise ValueError("a field ends behind its message")
        piece = data[at : at + length]
        at += length
        yield number, piece if kind == 2 else int.from_bytes(piece, "little")


def varints(data: bytes) -> Iterator[int]:
    """Packed numbers. Raises ValueError where the last one is torn."""
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    try:
        byte = data[at]
        if byte < 0x80:
            return byte, at + 1
        value, shift = byte & 0x7F, 7
        while True:
            at += 1
            byte = data[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise ValueError("a number has more than ten bytes")
    except IndexError:
        raise ValueError("it ends in the middle of a number") from None
    return value & 0xFFFFFFFFFFFFFFFF, at + 1
