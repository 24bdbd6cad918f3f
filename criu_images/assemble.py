"""Images that speak of memory which is not in them. Never copies a page.

A page that was withheld from the dump (see withheld.py) is entered as LAZY without PRESENT: a restore with
--lazy-pages leaves it to whoever serves the pages, and one without refuses the images. A page that CRIU did
save is never left to anybody: LAZY is taken from what is PRESENT, and the restore reads it.
"""

import errno
import os
from collections.abc import Iterable

from ocimig import files
from ocimig.criu_images import pagemap
from ocimig.criu_images.errors import BadImage
from ocimig.criu_images.pagemap import PAGE, Entry
from ocimig.criu_images.withheld import Run
from ocimig.files import Fd

_PIECE = 1 << 20  # bytes at once
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def merge(directory: str, vpid: int, runs: Iterable[Run]) -> int:
    """Enter `runs` (bytes, sorted, disjoint) as lazy in pagemap-<vpid>.img; how many pages there are in
    them. Raises BadImage where CRIU saved one of them after all."""
    return _merge(os.path.join(directory, f"pagemap-{vpid}.img"), runs)


def merge_shared(directory: str, shmid: int, runs: Iterable[Run]) -> int:
    """The same for the shared object `shmid`, by offset in it. CRIU restores no shared memory lazily:
    before a restore fill_shared() has to make these images whole."""
    return _merge(os.path.join(directory, f"pagemap-shmem-{shmid}.img"), runs)


def fill_shared(directory: str, shmid: int, source: int) -> int:
    """Put the pages that were withheld into the images of a shared object: `source` is a descriptor that
    has them at their offsets. How many bytes were copied. Raises BadImage where it
    ends before, and where a page is in an earlier dump."""
    return _fill(directory, f"pagemap-shmem-{shmid}.img", source)


def fill(directory: str, vpid: int, source: int) -> int:
    """The same for the process `vpid`, with the pages at their addresses: a restore needs nobody to
    serve it afterwards, and may still have somebody who does."""
    return _fill(directory, f"pagemap-{vpid}.img", source, filled=pagemap.PRESENT | pagemap.LAZY)


def _fill(directory: str, name: str, source: int, filled: int = pagemap.PRESENT) -> int:
    path = os.path.join(directory, name)
    found = pagemap.read(path)
    if any(entry.flags & pagemap.PARENT for entry in found.entries):
        raise BadImage(path=path, reason="some of its pages are in an earlier dump")
    if all(entry.flags & pagemap.PRESENT for entry in found.entries):
        return 0
    pages = os.path.join(directory, f"pages-{found.pages_id}.img")
    copied = taken = 0
    with (
        Fd(os.open(pages, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as old,
        Fd(os.open(f"{pages}.new", _NEW, 0o600)) as new,
    ):
        for entry in found.entries:
            size = entry.pages * PAGE
            if entry.flags & pagemap.PRESENT:
                _copy(old, taken, new, size, path)
                taken += size
            else:
                _copy(source, entry.start, new, size, path)
                copied += size
    os.rename(f"{pages}.new", pages)
    whole = [
        each._replace(flags=pagemap.PRESENT if each.flags & pagemap.PRESENT else filled)
        for each in found.entries
    ]
    pagemap.write(path, found._replace(entries=whole))
    return copied


def _copy(source: int, at: int, target: int, size: int, path: str) -> None:
    end = at + size
    while at < end:
        done = _moved(source, at, target, min(end - at, _PIECE))
        if not done:
            raise BadImage(path=path, reason=f"its page {at:#x} is nowhere")
        at += done


def _moved(source: int, at: int, target: int, size: int) -> int:
    try:
        return os.sendfile(target, source, at, size)
    except OSError as error:
        # It takes no offset that a file of the target's file system could not have: ext4 ends at 16 TiB.
        if error.errno != errno.EOVERFLOW:
            raise
    data = os.pread(source, size, at)
    files.write_all(target, data)
    return len(data)


def _merge(path: str, runs: Iterable[Run]) -> int:
    found = pagemap.read(path)
    lazy = [Entry(start, (end - start) // PAGE, pagemap.LAZY) for start, end in runs]
    saved = [each._replace(flags=_not_lazy(each.flags)) for each in found.entries]
    both = sorted([*saved, *lazy])
    end = 0
    for start, pages, _ in both:
        if start < end:
            raise BadImage(path=path, reason=f"page {start:#x} is in it twice")
        end = start + pages * PAGE
    pagemap.write(path, found._replace(entries=both))
    return sum(entry.pages for entry in lazy)


def _not_lazy(flags: int) -> int:
    return flags & ~pagemap.LAZY if flags & pagemap.PRESENT else flags
