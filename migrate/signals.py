"""Ctrl-C and friends while something is half done: noted, and acted on where it is safe."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from ocimig.errors import Interrupted

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Deferred:
    """Within the `with` block these signals are counted instead of ending us."""

    __slots__ = ("_before", "count", "number")

    def __init__(self) -> None:
        self.count = 0
        self.number = 0
        self._before: list[tuple[signal.Signals, Any]] = []

    def __enter__(self) -> "Deferred":
        if threading.current_thread() is threading.main_thread():
            for number in _NUMBERS:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # nohup: they asked not to hear of it
                    self._before.append((number, before))
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, before in self._before:
            signal.signal(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.number = number

    def check(self, state: str) -> None:
        """Raise Interrupted when a signal came; `state` says what the person finds now."""
        if self.count:
            raise Interrupted(state=state)

    def impatient(self) -> str:
        """Why not even CRIU's own way out should be waited for: a second signal came."""
        return "interrupted twice" if self.count > 1 else ""
