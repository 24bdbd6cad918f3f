"""What the images of a checkpoint leave to a page handler. Reads lists of pages, never the pages.

CRIU, told to restore lazily, leaves out every page whose entry says LAZY: those that were withheld from the
dump, and those that are in the images all the same (LAZY and PRESENT: it marks what could come late).
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from ocimig.criu_images import pagemap
from ocimig.migrate.memory.runs import Run, merge


class Lazy(NamedTuple):
    """Of one process: the runs that are not in these images (withheld, or in those of a parent), and
    (start, end, offset) of its pages in the file `pages`."""

    withheld: list[Run]
    present: list[tuple[int, int, int]]
    pages: str


def read(directory: str) -> Iterator[tuple[int, Lazy]]:
    """By pid in the container, every process that has memory to come."""
    for name in os.listdir(directory):
        middle = name.removeprefix("pagemap-").removesuffix(".img")
        if not name.startswith("pagemap-") or not middle.isdigit():
            continue
        found = pagemap.read(os.path.join(directory, name))
        withheld: list[Run] = []
        present: list[tuple[int, int, int]] = []
        offset = 0
        for entry in found.entries:
            start, end = entry.start, entry.end
            if entry.flags & pagemap.PRESENT:
                if entry.flags & pagemap.LAZY:
                    present.append((start, end, offset))
                offset += end - start
            elif entry.flags & pagemap.LAZY:
                if withheld and withheld[-1][1] == start:
                    start = withheld.pop()[0]
                withheld.append((start, end))
        if withheld or present:
            pages = os.path.join(directory, f"pages-{found.pages_id}.img")
            yield int(middle), Lazy(withheld, present, pages)


def read_shared(directory: str) -> Iterator[tuple[int, list[Run]]]:
    """By inode, the withheld runs (offsets) of every object that processes share and that has any."""
    for name in os.listdir(directory):
        middle = name.removeprefix("pagemap-shmem-").removesuffix(".img")
        if not name.startswith("pagemap-shmem-") or not middle.isdigit():
            continue
        entries = pagemap.read(os.path.join(directory, name)).entries
        withheld = merge(
            (entry.start, entry.end) for entry in entries if not entry.flags & pagemap.PRESENT
        )
        if withheld:
            yield int(middle), withheld
