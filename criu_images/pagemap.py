"""CRIU's list of the pages of one process: pagemap-<pid>.img. Never touches the pages themselves.

After the head one entry {pages_id = 1 u32}, then entries {vaddr = 1 u64, compat_nr_pages = 2 u32,
in_parent = 3 bool, flags = 4 u32, nr_pages = 5 u64}, sorted by address; pages-<pages_id>.img is the pages of
the PRESENT ones in that order. CRIU 4.2 counts in field 5 and writes 0 into field 2; earlier ones know only
field 2. Both are written here, so that either reads it (images/pagemap.proto, criu/pagemap.c). Read and
written by hand: the generated messages know only the fields of their own version.
"""

import os
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
        pages_id = _fields(next(records))[1]
        found = [_entry(record) for record in records]
    except (StopIteration, ValueError, KeyError, IndexError) as error:
        raise BadImage(
            path=path, reason=f"not a list of pages that is known here ({error})"
        ) from None
    return Pagemap(head, pages_id, found)


def write(path: str, pagemap: Pagemap) -> None:
    """Replace what is in the file, in place: nobody else reads it yet, and a rename over a file or a
    truncation to nothing makes ext4 write out the blocks at once, while the container stands still."""
    data = bytearray(pagemap.head)
    for message in (_message([(1, pagemap.pages_id)]), *map(_packed, pagemap.entries)):
        data += struct.pack("<I", len(message)) + message
    with Fd(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)) as file:
        files.write_all(file, bytes(data))
        os.ftruncate(file, len(data))


def _packed(entry: Entry) -> bytes:
    compat = entry.pages if entry.pages <= _LARGEST_COMPAT else 0
    fields = [(1, entry.start), (2, compat)]
    if entry.flags & PARENT:
        fields.append((3, 1))
    return _message([*fields, (4, entry.flags), (5, entry.pages)])


def _entry(record: bytes) -> Entry:
    fields = _fields(record)
    unknown = [number for number in fields if number > _KNOWN]
    if unknown:
        raise ValueError(f"field {unknown[0]}")
    flags = fields.get(4)
    if flags is None:  # images of before CRIU 3.3
        flags = PARENT if fields.get(3) else PRESENT
    return Entry(fields[1], fields.get(5) or fields.get(2, 0), flags)


def _message(fields: Iterable[tuple[int, int]]) -> bytes:
    found = bytearray()
    for number, value in fields:
        found.append(number << 3)  # wire type 0: a varint
        while value > 0x7F:
            found.append(value & 0x7F | 0x80)
            value >>= 7
        found.append(value)
    return bytes(found)


def _fields(record: bytes) -> dict[int, int]:
    found: dict[int, int] = {}
    numbers = _varints(record)
    for key in numbers:
        if key & 7:
            raise ValueError(f"wire type {key & 7}")
        found[key >> 3] = next(numbers)
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
