"""What the snapshot before found in a tree, so that the next one reads only what changed since.

One file of the host's own (docs/formats/known.md), which may be lost at any time. The references in it hold
as long as the snapshot that it was written for is in the store: whoever loads it says whether.
"""

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from blake3 import blake3

from ocimig import files, jsonio
from ocimig.migrate.rootfs import Entry

VERSION = 1
_LIMIT = 8 << 30  # bytes of the file
_HEAD = 4096  # bytes, at most
_FACTS = struct.Struct("<IQQQIIQqqQII")  # Entry up to rdev, then length of the path, of the line


class Known(NamedTuple):
    """A name: its facts when it was read, and its line."""

    entry: Entry
    line: bytes


def save(path: str, snapshot: str, names: Mapping[str, Known]) -> None:
    """Write the file, whole or not at all. Raises OSError."""
    body = b"".join(_records(names))
    head = {"digest": blake3(body).hexdigest(), "snapshot": snapshot, "version": VERSION}
    files.write_atomic(path, jsonio.dumps(head).encode() + b"\n" + body, sync=False)


def _records(names: Mapping[str, Known]) -> Iterator[bytes]:
    for path, (entry, line) in names.items():
        raw = os.fsencode(path)
        yield _FACTS.pack(*entry[:10], len(raw), len(line)) + raw + line


def load(path: str, holds: Callable[[str], bool]) -> dict[str, Known]:
    """What save() wrote, by path; nothing where there is no such file, or it is not as it was written, or
    `holds` says that the store has its snapshot no more."""
    try:
        data = files.read(path, limit=_LIMIT)
        line, found, body = data[:_HEAD].partition(b"\n")
        head = jsonio.loads(line)
        body = data[len(line) + len(found) :]
        if head["version"] != VERSION or head["digest"] != blake3(body).hexdigest():
            return {}
        if not holds(str(head["snapshot"])):
            return {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(_names(body))


def _names(body: bytes) -> Iterator[tuple[str, Known]]:
    position = 0
    while position < len(body):
        *facts, path_size, line_size = _FACTS.unpack_from(body, position)
        start = position + _FACTS.size
        middle, position = start + path_size, start + path_size + line_size
        entry = Entry._make((*facts, 0, 0, False))  # neither atime nor blocks tell of a change
        yield os.fsdecode(body[start:middle]), Known(entry, body[middle:position])
