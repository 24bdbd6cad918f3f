"""Memory for tests to send, and the other side that holds it."""

import mmap
import os
import threading
from collections.abc import Callable

from ocimig.migrate.errors import BrokenFrame, LinkLost
from ocimig.migrate.memory.held import Held
from ocimig.migrate.memory.retained import Retained
from ocimig.migrate.memory.runs import PAGE, Run
from ocimig.migrate.transport.memory import pair
from ocimig.migrate.wire import Wire
from ocimig.runtime.linux.memory import address


class Far:
    """The other side: a thread for each wire, all into one Held."""

    def __init__(self, retained: Retained | None = None) -> None:
        self.held = Held(retained=retained)
        self.kinds: list[str] = []
        self._ends: list[tuple[Wire, Wire]] = []
        self._threads: list[threading.Thread] = []

    def wire(self, *, deaf_after: int | None = None) -> Wire:
        """The near end of a new wire. It breaks after that many frames."""
        near, far = (Wire(channel) for channel in pair())
        self._ends.append((near, far))
        thread = threading.Thread(target=self._listen, args=(far, deaf_after), daemon=True)
        self._threads.append(thread)
        thread.start()
        return near

    def _listen(self, wire: Wire, deaf_after: int | None) -> None:
        heard = 0
        while heard != deaf_after:
            heard += 1
            try:
                frame = wire.receive()
                self.kinds.append(frame.kind)
                self.held.hear(wire, frame)
            except LinkLost:
                return
            except BrokenFrame as error:
                wire.send_error(error)
                break
        wire.close()

    def close(self) -> None:
        """End all."""
        for near, _ in self._ends:
            near.close()
        for thread in self._threads:
            thread.join(5)
        for _, far in self._ends:
            far.close()
        self.held.close()


class Area:
    """Anonymous memory of this process."""

    def __init__(self, pages: int) -> None:
        self.map = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.start = address(self.map)
        self.run = (self.start, self.start + pages * PAGE)

    def fill(self, content: Callable[[int], bytes]) -> None:
        """Fill each page by its number."""
        for number in range(len(self.map) // PAGE):
            self.map[number * PAGE : (number + 1) * PAGE] = content(number)

    def page(self, number: int) -> Run:
        """The run of one page."""
        return (self.start + number * PAGE, self.start + (number + 1) * PAGE)


def noise(_: int) -> bytes:
    """A page that nothing makes smaller."""
    return os.urandom(PAGE)
