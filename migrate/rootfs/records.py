"""How one name travels: fixed fields, then path, target, attributes and the bytes of a small file.

docs/formats/wire.md has the table. Pure. A reader trusts no length: all are checked against what came.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ocimig.migrate import failpoints

REGULAR, DIRECTORY, SYMLINK, HARD_LINK, CHARACTER, BLOCK, FIFO, SOCKET, REMOVAL = range(1, 10)

SILENCE = failpoints.patience(
    60.0
)  # seconds without a frame; who is busy for longer gives a sign of life

UPDATE = 1  # the name exists there and keeps its identity
STREAMED = 2  # the bytes follow in frames of their own

BEGIN, RECORDS, DATA, FILE_END, END, DONE = (
    "tree-begin",
    "tree-records",
    "tree-data",
    "tree-file-end",
    "tree-end",
    "tree-done",
)

_FIXED = struct.Struct("!BBHHHIIIIIIQqqI")
_ATTRIBUTE = struct.Struct("!HI")
Attributes = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Record:
    """One name of a tree."""

    type: int
    path: bytes
    flags: int = 0
    target: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    major: int = 0
    minor: int = 0
    size: int = 0
    mtime_ns: int = 0
    atime_ns: int = 0
    attributes: "Attributes | tuple[()]" = ()
    data: bytes = b""

    def pack(self) -> bytes:
        """As bytes."""
        attributes = b"".join(
            _ATTRIBUTE.pack(len(name), len(value)) + name + value for name, value in self.attributes
        )
        fixed = _FIXED.pack(
            self.type, self.flags, len(self.path), len(self.target), 0, len(attributes),
            self.mode, self.uid, self.gid, self.major, self.minor, self.size,
            self.mtime_ns, self.atime_ns, len(self.data),
        )  # fmt: skip
        return b"".join((fixed, self.path, self.target, attributes, self.data))


def unpack(payload: bytes) -> Iterator[Record]:
    """The records of one frame. Raises ValueError where they do not fill it exactly."""
    position = 0
    while position < len(payload):
        if position + _FIXED.size > len(payload):
            raise ValueError("a record ends early")
        (
            type_, flags, path_size, target_size, zero, attributes_size,
            mode, uid, gid, major, minor, size, mtime_ns, atime_ns, data_size,
        ) = _FIXED.unpack_from(payload, position)  # fmt: skip
        if not REGULAR <= type_ <= REMOVAL or flags & ~(UPDATE | STREAMED) or zero:
            raise ValueError("a record has an unknown type or flag")
        path_end = position + _FIXED.size + path_size
        target_end = path_end + target_size
        attributes_end = target_end + attributes_size
        end = attributes_end + data_size
        if end > len(payload):
            raise ValueError("a record is longer than its frame")
        yield Record(
            type_,
            payload[path_end - path_size : path_end],
            flags,
            payload[path_end:target_end],
            mode, uid, gid, major, minor, size, mtime_ns, atime_ns,
            _attributes(payload[target_end:attributes_end]) if attributes_size else (),
            payload[attributes_end:end],
        )  # fmt: skip
        position = end


def _attributes(raw: bytes) -> Attributes:
    found: Attributes = []
    position = 0
    while position < len(raw):
        if position + _ATTRIBUTE.size > len(raw):
            raise ValueError("an attribute ends early")
        name_size, value_size = _ATTRIBUTE.unpack_from(raw, position)
        start = position + _ATTRIBUTE.size
        position = start + name_size + value_size
        if position > len(raw):
            raise ValueError("an attribute ends early")
        found.append((raw[start : start + name_size], raw[start + name_size : position]))
    return found
