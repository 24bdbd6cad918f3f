"""The first 40 bytes of a pack or a snapshot, and the names of files. Pure; docs/formats/store.md."""

import os
import re
import struct
from typing import NamedTuple

from blake3 import blake3

VERSION = 1
SIZE = 40
PACK = b"\x89OCIPCK\n"
SNAPSHOT = b"\x89OCISNP\n"
SEALED = 1

_HEAD = struct.Struct("<8sHHIQ16s")
_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{32})\.(pack|snapshot)")


class Head(NamedTuple):
    """What a file says of itself."""

    number: int
    salt: bytes  # 16
    sealed: bool

    @classmethod
    def new(cls, *, sealed: bool) -> "Head":
        """Of a file that is about to be written: number and salt are random."""
        return cls(fresh_number(), os.urandom(16), sealed)

    def again(self) -> "Head":
        """Of a file that replaces this one: the same number, another salt."""
        return self._replace(salt=os.urandom(16))

    def bytes(self, magic: bytes) -> bytes:
        """As it begins the file."""
        flags = SEALED if self.sealed else 0
        return _HEAD.pack(magic, VERSION, flags, 0, self.number, self.salt)


def read(data: bytes, magic: bytes) -> Head:
    """Raises ValueError, with words, for anything that is not a head of this kind."""
    if len(data) < SIZE:
        raise ValueError("it is too short")
    found, version, flags, zero, number, salt = _HEAD.unpack_from(data)
    if found != magic:
        raise ValueError("it does not begin as one")
    if version != VERSION:
        raise ValueError(f"its version is {version}, this is a reader of {VERSION}")
    if flags & ~SEALED or zero or not number:
        raise ValueError("its head is not one that is known here")
    return Head(number, salt, bool(flags & SEALED))


def fresh_number() -> int:
    """A number that nothing has yet: 64 random bits, never 0."""
    while not (number := int.from_bytes(os.urandom(8), "little")):
        pass
    return number


def hexadecimal(number: int) -> str:
    """A number as names have it."""
    return f"{number:016x}"


def name(number: int, digest: bytes, kind: str) -> str:
    """Of a file whose bytes have this digest; `kind` is "pack" or "snapshot"."""
    return f"{number:016x}-{digest[:16].hex()}.{kind}"


def parse(text: str, kind: str) -> tuple[int, str] | None:
    """The number and the hexadecimal digest in a name; None where it is no name of this kind."""
    match = _NAME.fullmatch(text)
    if match is None or match[3] != kind or not int(match[1], 16):
        return None
    return int(match[1], 16), match[2]


def digest_of(data: bytes) -> bytes:
    """The digest that the name of a file with these bytes carries."""
    return blake3(data).digest(length=16)
