"""The destination's side of memory that follows: it is held, checked against the images, and served lazily.

Between the first page and the images what is held may be stale or superfluous. The images say what is
needed: every page that they call lazy has to be held here, or the restore is refused.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from ocimig.criu_images import assemble
from ocimig.files import Fd
from ocimig.migrate.lazy import images
from ocimig.migrate.lazy.handler import PageHandler, Source, held
from ocimig.migrate.lazy.pull import Pull
from ocimig.migrate.memory import spaces
from ocimig.migrate.memory.errors import MemoryMissing
from ocimig.migrate.memory.held import Held
from ocimig.migrate.memory.retained import Retained
from ocimig.migrate.memory.runs import PAGE, subtract, total
from ocimig.migrate.wire import Frame, Wire

_ANNOUNCED = 10.0  # seconds until the source, which is frozen by then, says what follows
_TICK = 0.1


class FarMemory:
    """All memory of one container on its way here. `directory` is CRIU's work directory of the restore;
    `lost` ends the container: without its memory it must not run. `retained` is what it left here when
    it was here before."""

    def __init__(
        self, directory: str, lost: Callable[[str], None], retained: Retained | None = None
    ) -> None:
        self.held = Held(retained=retained)
        self.pull = Pull(self.held)  # what comes while it runs already
        self.handler = PageHandler(directory, lost=lost, want=self.pull.want)

    def take(self, wire: Wire, frame: Frame) -> None:
        """One frame of frames.KINDS, answered where it asks for that."""
        self.held.hear(wire, frame)

    def follow(self, wire: Wire, frame: Frame) -> None:
        """Take what comes while it runs, until all of it is here; `frame` is the first of it."""
        self.pull.run(wire, frame)

    def serve(
        self, directory: str, hot: Mapping[str, list[list[int]]], *, follows: bool = False
    ) -> None:
        """Be ready for the restore of these images; `hot`, by pid in the container, is what it will want
        first. With `follows` the source says what is still to come. Raises MemoryMissing."""
        self._fill_shared(directory)
        # Asked before what is held: whatever arrives in between is not taken for missing.
        later = self.pull.missing(_ANNOUNCED) if follows else {}
        wanted: dict[int, list[Source]] = {}
        with ExitStack() as opened:
            for pid, lazy in images.read(directory):
                space = spaces.of_process(pid)
                missing = subtract(self.held.covers(space, lazy.withheld), later.get(pid, []))
                if missing:
                    raise MemoryMissing(pages=total(missing) // PAGE, space=f"process {pid}")
                wanted[pid] = []
                if lazy.withheld:
                    # What was zeros in a round and is to come has data then, or has by now.
                    zeros = subtract(self.held.zeros(space), later.get(pid, []))
                    wanted[pid].append(held(self.held.open(space), lazy.withheld, holes=zeros))
                if lazy.present:  # CRIU calls these lazy too, and leaves them out
                    fd = opened.enter_context(Fd(os.open(lazy.pages, os.O_RDONLY | os.O_CLOEXEC)))
                    wanted[pid].append(Source(fd, lazy.present))
            first = {int(pid): [(start, end) for start, end in runs] for pid, runs in hot.items()}
            if follows:
                self.pull.serve(self.handler, wanted, first)
            else:
                self.handler.serve(wanted, first)

    def _fill_shared(self, directory: str) -> None:
        """Objects that processes share are restored at once: their pages go into the images."""
        for inode, withheld in images.read_shared(directory):
            space = spaces.of_shared(inode)
            if missing := self.held.covers(space, withheld):
                raise MemoryMissing(pages=total(missing) // PAGE, space=f"shared object {inode}")
            assemble.fill_shared(directory, inode, self.held.fd(space))
            self.held.forget(space)

    def filled(self) -> None:
        """Wait until all of it is in place, or the container ended."""
        self.handler.filled()

    def lost(self) -> str:
        """Why memory that was to follow will never come; empty as long as it may."""
        return self.pull.failure or self.handler.outcome.reason

    def followed(self) -> str:
        """Wait until all that was to follow is in place; why it never will be, or nothing."""
        while not self.pull.wait(_TICK) and not self.lost():
            pass
        self.handler.filled()
        return self.lost()

    def close(self) -> None:
        """Give everything back; the container has its memory, or is dead."""
        self.pull.close()
        self.handler.close()
        self.held.close()
