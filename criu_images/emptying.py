"""Memory out of images again, the other way than `assemble`: who takes it keeps it, and the images say that it
is elsewhere. Believes nothing of what is in them.

Only what CRIU can restore lazily is taken of a process; the rest, as it is in a process's own copy of a mapped
file, stays. Shared objects are taken whole.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence

from ocimig import files
from ocimig.criu_images import mappings, names, pagemap, tree
from ocimig.criu_images.opened import ImageDirectory
from ocimig.criu_images.pagemap import PAGE, Entry
from ocimig.criu_images.pages import SAVED, Piece, Space
from ocimig.criu_images.tree import Process
from ocimig.criu_images.withheld import Run, joined
from ocimig.files import Fd

Put = Callable[[int, bytes], None]
_EVERYWHERE = [(0, 1 << 63)]
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REGISTERS = {1: "thread_info", 3: "ti_aarch64"}  # by CRIU's number of the machine


class Emptying:
    """The images of one directory, which is the caller's alone. What fails leaves them in between."""

    def __init__(self, directory: ImageDirectory) -> None:
        self._directory = directory
        self._taken: set[int] = set()  # numbers of files of pages

    def process(self, process: Process, put: Put) -> int:
        """Let `put` have pages of a process, at their addresses, ascending; how many bytes. Raises BadImage."""
        name = f"pagemap-{process.pid}.img"
        if not self._directory.exists(name):
            return 0
        stacks = joined(_page(_stack(self._directory, thread)) for thread in process.threads)
        lazy = mappings.lazy(self._directory, process.pid)
        return self._take(name, list(_without(joined(lazy), stacks)), put)

    def shared(self, number: int, put: Put) -> int:
        """The same of a shared object, at offsets in it."""
        return self._take(f"pagemap-shmem-{number}.img", _EVERYWHERE, put)

    def _take(self, name: str, runs: Sequence[Run], put: Put) -> int:
        path = os.path.join(self._directory.path, name)
        found = pagemap.read(path)
        if found.pages_id in self._taken:
            raise self._directory.refusal(name, "its pages are those of another list, too")
        self._taken.add(found.pages_id)
        pages = os.path.join(self._directory.path, f"pages-{found.pages_id}.img")
        left: list[Entry] = []
        taken = 0
        with Space(self._directory, name) as space, Fd(os.open(f"{pages}.new", _NEW, 0o600)) as new:
            for piece in space.pieces():
                if piece.where != SAVED or piece.inherited:
                    raise space.refusal(f"page {piece.start:#x} is not in these images")
                for part, out in _cut(piece, runs):
                    for at, data in part.blocks():
                        put(at, data) if out else files.write_all(new, data)
                    size = part.end - part.start
                    taken += size if out else 0
                    flags = pagemap.LAZY if out else pagemap.PRESENT
                    left.append(Entry(part.start, size // PAGE, flags))
        os.rename(f"{pages}.new", pages)
        pagemap.write(path, found._replace(entries=left))
        return taken


def _cut(piece: Piece, runs: Sequence[Run]) -> Iterator[tuple[Piece, bool]]:
    """The parts of a piece, and whether each lies in one of the runs."""
    at = piece.start
    low, high = 0, len(runs)
    while low < high:  # the first that ends behind the begin
        middle = (low + high) // 2
        low, high = (middle + 1, high) if runs[middle][1] <= at else (low, middle)
    while at < piece.end:
        start, end = runs[low] if low < len(runs) else (piece.end, piece.end)
        if at < start:
            yield piece.part(at, start), False
            at = min(start, piece.end)
            continue
        yield piece.part(at, end), True
        at, low = end, low + 1


def _without(runs: Sequence[Run], holes: Sequence[Run]) -> Iterator[Run]:
    """Both sorted and disjoint."""
    passed = 0
    for start, end in runs:
        while passed < len(holes) and holes[passed][1] <= start:
            passed += 1
        for first, last in itertools.islice(holes, passed, None):
            if first >= end:
                break
            if start < first:
                yield start, first
            start = last
        if start < end:
            yield start, end


def _page(address: int) -> Run:
    return address // PAGE * PAGE, address // PAGE * PAGE + PAGE


def _stack(directory: ImageDirectory, thread: int) -> int:
    """Where a thread's stack pointer is: that page is written while memory is still put together, so CRIU
    never restores it lazily (is_stack in criu/mem.c)."""
    core = tree.core(directory, thread)
    info = core[_REGISTERS[core["mtype"]]] if core["mtype"] in _REGISTERS else None
    registers = info["gpregs"] if info is not None else None
    if registers is None:
        machine = names.word(names.MACHINES, core["mtype"])
        raise directory.refusal(f"core-{thread}.img", f"no registers of a {machine} are in it")
    return int(registers["sp"])
