"""How fast bytes may leave, over all streams together. Never looks at the bytes."""

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
