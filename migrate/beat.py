"""A sign of life every few seconds while somebody is busy. Knows nothing of what it is sent over."""

import threading
from collections.abc import Callable
from types import TracebackType

from ocimig.migrate.errors import LinkLost


class Beat:
    """A `with` block around which a thread of its own gives the sign."""

    def __init__(self, sign: Callable[[], None], every: float) -> None:
        self._sign = sign
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alive", daemon=True)

    def _run(self) -> None:
        while not self._over.wait(self._every):
            try:
                self._sign()
            except (LinkLost, OSError):  # the busy side meets the broken link itself
                return

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
