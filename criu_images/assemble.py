"""Images that speak of memory which is not in them. Never copies a page.

A page that was withheld from the dump (see withheld.py) is entered as LAZY without PRESENT: a restore with
--lazy-pages leaves it to whoever serves the pages, and one without refuses the images. A page that CRIU did
save is never left to anybody: LAZY is taken from what is PRESENT, and the restore reads it.
"""

import itertools
import os
from collections.abc import Iterable

from ocimig.criu_images import pagemap
from ocimig.criu_images.errors import BadImage
from ocimig.criu_images.pagemap import PAGE, Entry
from ocimig.criu_images.withheld import Run


def merge(directory: str, vpid: int, runs: Iterable[Run]) -> int:
    """Enter `runs` (bytes, sorted, disjoint) as lazy in pagemap-<vpid>.img; how many pages there are in
    them. Raises BadImage where CRIU saved one of them after all."""
    path = os.path.join(directory, f"pagemap-{vpid}.img")
    found = pagemap.read(path)
    lazy = [Entry(start, (end - start) // PAGE, pagemap.LAZY) for start, end in runs]
    saved = [each._replace(flags=_not_lazy(each.flags)) for each in found.entries]
    both = sorted([*saved, *lazy])
    for before, after in itertools.pairwise(both):
        if before.end > after.start:
            raise BadImage(path=path, reason=f"page {after.start:#x} is in it twice")
    pagemap.write(path, found._replace(entries=both))
    return sum(entry.pages for entry in lazy)


def _not_lazy(flags: int) -> int:
    return flags & ~pagemap.LAZY if flags & pagemap.PRESENT else flags
