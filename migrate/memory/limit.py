"""How fast bytes may leave, over all streams together, and how many there can be. Never looks at them."""

import threading
import time
from collections.abc import Callable


class Limit:
    """So many bytes a second, shared by every thread that asks; 0 is no limit.

    Who waited long has saved up for no more than `burst` seconds, so that a pause is not followed by a
    flood. `rate` may be set at any time and holds for the next take().
    """

    def __init__(
        self,
        rate: int = 0,
        *,
        burst: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate = rate
        self._burst = burst
        self._clock = clock
        self._sleep = sleep
        self._free = 0.0  # when what was let through so far has left at the allowed speed
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Wait until `count` more bytes may go."""
        if not self.rate:
            return
        with self._lock:
            now = self._clock()
            turn = max(self._free, now - self._burst)
            self._free = turn + count / self.rate
        if turn > now:
            self._sleep(turn - now)


def memory_and_swap() -> int:
    """Bytes of memory this host has, swap included: more can be held of no container."""
    total = 0
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith(("MemTotal:", "SwapTotal:")):
                total += int(line.split()[1]) * 1024
    return total
