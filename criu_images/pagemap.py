"""CRIU's list of the pages of one process: pagemap-<pid>.img. Never touches the pages themselves.

After the head one entry {pages_id = 1 u32}, then entries {vaddr = 1 u64, compat_nr_pages = 2 u32,
in_parent = 3 bool, flags = 4 u32, nr_pages = 5 u64}, sorted by address; pages-<pages_id>.img is the pages of
the PRESENT ones in that order. CRIU 4.2 counts in field 5 and writes 0 into field 2; earlier ones know only
field 2. Both are written here, so that either reads it (images/pagemap.proto, criu/pagemap.c). Read and
written by hand: the generated messages know only the fields of their own version.
"""

import functools
import os
import re
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ocimig import files
from ocimig.criu_images import entries
from ocimig.criu_images.errors import BadImage
from ocimig.files import Fd

PARENT, LAZY, PRESENT = 1, 2, 4
PAGE = 4096
_KNOWN = 5
_LARGEST_COMPAT = (1 << 32) - 1
_SIZES = [struct.pack("<I", size) for size in range(64)]
# As CRIU 4.2 and write() make them: address, the old count, no parent, flags, the count.
_USUAL = re.compile(
    rb"\x08([\x80-\xff]*[\0-\x7f])\x10[\x80-\xff]*[\0-\x7f]\x20([\0-\x7f])\x28([\x80-\xff]*[\0-\x7f])",
    re.DOTALL,
)


class Entry(NamedTuple):
    """`pages` pages from `start` on (bytes)."""

    start: int
    pages: int
    flags: int

    @property
    def end(self) -> int:
        """Exclusive, in bytes."""
        return self.start + self.pages * PAGE


class Pagemap(NamedTuple):
    """One file: `head` are its magics."""

    head: bytes
    pages_id: int
    entries: list[Entry]


def read(path: str) -> Pagemap:
    """Raises BadImage, also where a newer CRIU wrote what this reader would lose."""
    records = entries.read(path)
    head = next(records)
    try:
        pages_id = numbers(next(records))[1]
        found = [entry(record) for record in records]
    except (StopIteration, ValueError, KeyError, IndexError) as error:
        raise BadImage(
            path=path, reason=f"not a list of pages that is known here ({error})"
        ) from None
    return Pagemap(head, pages_id, found)


def write(path: str, pagemap: Pagemap) -> None:
    """Replace what is in the file, in place: nobody else reads it yet, and a rename over a file or a
    truncation to nothing makes ext4 write out the blocks at once, while the container stands still."""
    first = _message([(1, pagemap.pages_id)])
    parts = [pagemap.head, _SIZES[len(first)], first]
    for start, pages, flags in pagemap.entries:
        # Three parts of the address, most of them met before; a number may be longer than it has to be.
        message = b"".join((
            b"\x08", _padded(start & 0x1FFFFF, 3), _padded(start >> 21 & 0x3FFF, 2),
            _varint(start >> 35), _rest(pages, flags),
        ))  # fmt: skip
        parts += (_SIZES[len(message)], message)
    data = b"".join(parts)
    with Fd(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)) as file:
        files.write_all(file, data)
        os.ftruncate(file, len(data))


@functools.cache
def _padded(value: int, size: int) -> bytes:
    """The low part of a number: `size` times seven bits, with more to come."""
    return bytes(value >> 7 * i & 0x7F | 0x80 for i in range(size))


@functools.lru_cache(1 << 14)
def _rest(pages: int, flags: int) -> bytes:
    """All fields but the first."""
    fields = [(2, pages if pages <= _LARGEST_COMPAT else 0)]
    if flags & PARENT:
        fields.append((3, 1))
    return _message([*fields, (4, flags), (5, pages)])


def entry(record: bytes) -> Entry:
    """One record. Raises ValueError, KeyError or StopIteration on what is none that is known here."""
    match = _USUAL.fullmatch(record)
    if match is not None:
        return Entry(_number(match[1]), _number(match[3]), match[2][0])
    fields = numbers(record)
    unknown = [number for number in fields if number > _KNOWN]
    if unknown:
        raise ValueError(f"field {unknown[0]}")
    flags = fields.get(4)
    if flags is None:  # images of before CRIU 3.3
        flags = PARENT if fields.get(3) else PRESENT
    return Entry(fields[1], fields.get(5) or fields.get(2, 0), flags)


def _number(digits: bytes) -> int:
    value = 0
    for byte in reversed(digits):
        value = value << 7 | byte & 0x7F
    return value


def _message(fields: Iterable[tuple[int, int]]) -> bytes:
    # a field's number is followed by its wire type, 0: a varint
    return b"".join(bytes((number << 3,)) + _varint(value) for number, value in fields)


@functools.lru_cache(1 << 14)
def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def numbers(record: bytes) -> dict[int, int]:
    """Its numbers by field. Raises ValueError or StopIteration where it has anything else."""
    found: dict[int, int] = {}
    each = _varints(record)
    for key in each:
        if key & 7:
            raise ValueError(f"wire type {key & 7}")
        found[key >> 3] = next(each)
    return found


def _varints(record: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in record:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0
    if shift:
        raise ValueError("it ends in the middle of a number")
