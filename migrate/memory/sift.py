"""Pages that need not travel as bytes: found in a buffer, taken out of it. Pure but for the buffer."""

from ocimig.migrate.memory.digests import Digests, digest
from ocimig.migrate.memory.frames import PRESENT, SAME, ZERO, Entry
from ocimig.migrate.memory.runs import PAGE, Run

_nothing = bytearray(PAGE)  # a bytearray compares by memcmp(3), a memoryview item by item
_WORDS = PAGE // 8


def sift(
    came: list[Run], size: int, data: memoryview, digests: "Digests | None"
) -> tuple[list[Entry], int]:
    """What a frame says about runs whose `size` bytes lie one behind the other at the start of `data`.

    Afterwards only the bytes of PRESENT entries lie there, as many as the number returned.
    """
    # A page that begins with anything but a zero word is not one of zeros: one look at all of them
    # spares most pages a comparison.
    firsts = data[:size].cast("Q")[::_WORDS].tolist() if size else []
    if digests is None and 0 not in firsts:
        return [(start, end, PRESENT) for start, end in came], size
    entries: list[Entry] = []
    at = page = kept = 0
    for start, end in came:
        count = (end - start) // PAGE
        heads = firsts[page : page + count]
        page += count
        expected = digests.of(start, end) if digests is not None else None
        for first, last, kind in _kinds(heads, data[at : at + end - start], expected):
            entries.append((start + first * PAGE, start + last * PAGE, kind))
            if kind == PRESENT:
                low, high = at + first * PAGE, at + last * PAGE
                if kept != low:
                    data[kept : kept + high - low] = data[low:high]
                kept += high - low
        at += end - start
    return entries, kept


def _kinds(heads: list[int], data: memoryview, expected: "list[bytes] | None") -> list[Entry]:
    """Stretches of pages of one kind: (first page, one behind the last, kind)."""
    if expected is None and 0 not in heads:
        return [(0, len(heads), PRESENT)]
    found: list[Entry] = []
    begin, before = 0, -1
    for page, head in enumerate(heads):
        bytes_of = data[page * PAGE : (page + 1) * PAGE]
        if head == 0 and _nothing == bytes_of:
            kind = ZERO
        elif expected is not None and expected[page] and digest(bytes_of) == expected[page]:
            kind = SAME
        else:
            kind = PRESENT
        if kind != before:
            if page:
                found.append((begin, page, before))
            begin, before = page, kind
    found.append((begin, len(heads), before))
    return found
