"""How pages travel: one frame for up to 2 MiB of one space, with a table of what it says about which run.

    header   {"space": name, "runs": entries, "size": bytes of data, "zstd": true where it holds}
    payload  table (16 bytes an entry: start | kind u64, end u64, network order), then the data of its
             PRESENT runs one after another, which `zstd` says are one zstandard frame

Pure. A reader trusts no number: all are checked here before anybody acts on one. docs/formats/pages.md
has the whole protocol.
"""

import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ocimig.migrate.memory import runs, spaces
from ocimig.migrate.memory.digests import SIZE
from ocimig.migrate.memory.runs import PAGE, Run

PAGES = "pages"
ASK = "pages-ask"  # {"seq": number}: say when everything before this, on this stream, is taken
TAKEN = "pages-taken"  # {"seq": number}: the answer
OFFER = "pages-offer"  # what of an earlier stay is there? answered by DIGESTS … and OFFERED
DIGESTS = "pages-digests"  # {"space": name, "runs": number}, runs, a digest for each of their pages
OFFERED = "pages-offered"  # {"pages": number}
KINDS = (PAGES, ASK, OFFER)  # what Held.hear understands

PRESENT = 0  # the bytes are in the frame
ZERO = 1  # nothing but zeros
SAME = 2  # the bytes that the receiver told the digest of

ENTRY = 16
MOST_RUNS = 8192  # in one frame
MOST_DATA = 2 << 20  # bytes of pages in one frame, before compression
TOP = 1 << 57  # no address of a process, and no size of a shared object, is beyond

Entry = tuple[int, int, int]  # start, end, kind
_SWAP = sys.byteorder == "little"
_KIND = PAGE - 1  # a start is the address of a page: its lower bits are free


@dataclass(slots=True)
class Pages:
    """One frame, checked."""

    space: str
    entries: list[Entry]
    size: int
    data: memoryview
    compressed: bool


def header(space: str, entries: int, size: int, *, compressed: bool) -> dict[str, Any]:
    """What goes before the payload of a frame of PAGES."""
    said: dict[str, Any] = {"space": space, "runs": entries, "size": size}
    if compressed:
        said["zstd"] = True
    return said


def table(entries: Sequence[Entry]) -> bytes:
    """The head of the payload."""
    flat = array("Q", [word for start, end, kind in entries for word in (start | kind, end)])
    if _SWAP:
        flat.byteswap()
    return flat.tobytes()


def read(said: dict[str, Any], payload: bytes | memoryview) -> Pages:
    """A frame of PAGES. Raises ValueError, with a reason, where a number in it cannot be."""
    space = spaces.check(said.get("space"))
    count = number(said, "runs", MOST_RUNS)
    size = number(said, "size", MOST_DATA)
    compressed = said.get("zstd", False)
    if compressed is not True and compressed is not False:
        raise ValueError(f"zstd is {compressed!r}")
    view = memoryview(payload)
    if count * ENTRY > len(view):
        raise ValueError(f"{count} runs do not fit in {len(view)} bytes")
    data = view[count * ENTRY :]
    if not compressed and len(data) != size:
        raise ValueError(f"{len(data)} bytes of data where {size} belong")
    entries = _entries(view[: count * ENTRY], size)
    return Pages(space, entries, size, data, compressed)


def _entries(raw: memoryview, size: int) -> list[Entry]:
    entries: list[Entry] = []
    before = present = 0
    numbers = iter(_numbers(raw))
    for first, end in zip(numbers, numbers, strict=True):
        kind = first & _KIND
        start = first - kind
        if kind > SAME:
            raise ValueError(f"a run is of kind {kind}")
        if start < before or end <= start or end & _KIND or end > TOP:
            raise ValueError(f"the run {start:#x}-{end:#x} is empty, out of order or no pages")
        if kind == PRESENT:
            present += end - start
        before = end
        entries.append((start, end, kind))
    if present != size:
        raise ValueError(f"runs of {present} bytes with {size} bytes of data")
    return entries


def cut(of: list[Run], size: int) -> Iterator[tuple[list[Run], int]]:
    """Runs in portions of up to `size` bytes, and how many each has."""
    piece: list[Run] = []
    room = size
    for start, end in of:
        while end - start >= room:
            piece.append((start, start + room))
            yield piece, size
            start += room
            piece, room = [], size
        if end > start:
            piece.append((start, end))
            room -= end - start
    if piece:
        yield piece, size - room


def pack_runs(of: Sequence[Run]) -> bytes:
    """A list of runs as bytes: start u64, end u64, in network order."""
    flat = array("Q", [number for run in of for number in run])
    if _SWAP:
        flat.byteswap()
    return flat.tobytes()


def unpack_runs(raw: bytes | memoryview) -> list[Run]:
    """The runs in `raw`. Raises ValueError unless they are a list of runs below TOP."""
    if len(raw) % ENTRY:
        raise ValueError("a run ends early")
    numbers = iter(_numbers(raw))
    found = list(zip(numbers, numbers, strict=True))
    runs.check(found)
    if found and found[-1][1] > TOP:
        raise ValueError(f"a run ends at {found[-1][1]:#x}")
    return found


def _numbers(raw: bytes | memoryview) -> "array[int]":
    flat = array("Q")
    flat.frombytes(raw)
    if _SWAP:
        flat.byteswap()
    return flat


def unpack_digests(said: dict[str, Any], payload: bytes) -> Iterator[tuple[str, Run, bytes]]:
    """What a frame of DIGESTS tells: space, run, digests of the run. Raises ValueError where it lies."""
    space = spaces.check(said.get("space"))
    count = number(said, "runs", len(payload) // ENTRY)
    at = count * ENTRY
    for start, end in unpack_runs(payload[:at]):
        size = (end - start) // PAGE * SIZE
        if at + size > len(payload):
            raise ValueError("digests are missing")
        yield space, (start, end), payload[at : at + size]
        at += size
    if at != len(payload):
        raise ValueError("there are more digests than pages")


def number(said: dict[str, Any], key: str, most: int) -> int:
    """A number of a header. Raises ValueError where it is none, below zero or above `most`."""
    value = said.get(key)
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{key} is {value!r}")
    return value
