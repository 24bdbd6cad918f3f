"""The destination's side of memory that follows: it is held, checked against the images, and served lazily.

Between the first page and the images what is held may be stale or superfluous. The images say what is
needed: every page that they call lazy has to be held here, or the restore is refused.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from ocimig.files import Fd
from ocimig.migrate.lazy import images
from ocimig.migrate.lazy.handler import PageHandler, Source, held
from ocimig.migrate.memory import spaces
from ocimig.migrate.memory.errors import MemoryMissing
from ocimig.migrate.memory.held import Held
from ocimig.migrate.memory.runs import PAGE, total
from ocimig.migrate.wire import Frame, Wire


class FarMemory:
    """All memory of one container on its way here. `directory` is CRIU's work directory of the restore;
    `lost` ends the container: without its memory it must not run."""

    def __init__(self, directory: str, lost: Callable[[str], None]) -> None:
        self.held = Held()
        self.handler = PageHandler(directory, lost=lost)

    def take(self, wire: Wire, frame: Frame) -> None:
        """One frame of frames.KINDS, answered where it asks for that."""
        self.held.hear(wire, frame)

    def serve(self, directory: str, hot: Mapping[str, list[list[int]]]) -> None:
        """Be ready for the restore of these images; `hot`, by pid in the container, is what it will want
        first. Raises MemoryMissing."""
        wanted: dict[int, list[Source]] = {}
        with ExitStack() as opened:
            for pid, lazy in images.read(directory):
                space = spaces.of_process(pid)
                if missing := self.held.covers(space, lazy.withheld):
                    raise MemoryMissing(pages=total(missing) // PAGE, pid=pid)
                wanted[pid] = []
                if lazy.withheld:
                    wanted[pid].append(held(self.held.fd(space), lazy.withheld))
                if lazy.present:  # CRIU calls these lazy too, and leaves them out
                    fd = opened.enter_context(Fd(os.open(lazy.pages, os.O_RDONLY | os.O_CLOEXEC)))
                    wanted[pid].append(Source(fd, lazy.present))
            first = {int(pid): [(start, end) for start, end in runs] for pid, runs in hot.items()}
            self.handler.serve(wanted, first)

    def filled(self) -> None:
        """Wait until all of it is in place, or the container ended."""
        self.handler.filled()

    def close(self) -> None:
        """Give everything back; the container has its memory, or is dead."""
        self.handler.close()
        self.held.close()
