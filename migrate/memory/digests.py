"""Digests of pages: 16 bytes of BLAKE3 each, kept for runs. Never reads memory.

The longest runs of a container's memory have millions of pages, so digests lie in one bytes object and
are found by bisection, never in a dictionary.
"""

from bisect import bisect_right

from blake3 import blake3

from ocimig.migrate.memory.runs import PAGE, Run

SIZE = 16


def digest(page: bytes | bytearray | memoryview) -> bytes:
    """The digest of one page."""
    return blake3(page).digest(length=SIZE)


def digests(pages: memoryview) -> bytes:
    """The digests of pages that lie one behind the other."""
    return b"".join(
        [digest(pages[at : at + PAGE]) for at in range(0, len(pages), PAGE)],
    )


class Digests:
    """What the far side has from an earlier stay. Runs may come in any order, once each."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._digests: list[bytes] = []

    def add(self, run: Run, of_it: bytes) -> None:
        """The digests of a run. Raises ValueError where they are not as many as it has pages."""
        start, end = run
        if len(of_it) != (end - start) // PAGE * SIZE:
            raise ValueError(f"{len(of_it)} bytes are not the digests of {end - start} bytes")
        at = bisect_right(self._starts, start)
        if (at and self._ends[at - 1] > start) or (
            at < len(self._starts) and self._starts[at] < end
        ):
            raise ValueError(f"digests of {start:#x}-{end:#x} come twice")
        self._starts.insert(at, start)
        self._ends.insert(at, end)
        self._digests.insert(at, of_it)

    def of(self, start: int, end: int) -> list[bytes] | None:
        """A digest for each page of a run, empty where there is none; None where there is not any."""
        at = max(0, bisect_right(self._starts, start) - 1)
        found: list[bytes] = [b""] * ((end - start) // PAGE)
        any_found = False
        while at < len(self._starts) and self._starts[at] < end:
            low, high = max(start, self._starts[at]), min(end, self._ends[at])
            if low < high:
                any_found = True
                source, first = self._digests[at], (low - self._starts[at]) // PAGE
                page = (low - start) // PAGE
                for number in range((high - low) // PAGE):
                    offset = (first + number) * SIZE
                    found[page + number] = source[offset : offset + SIZE]
            at += 1
        return found if any_found else None
