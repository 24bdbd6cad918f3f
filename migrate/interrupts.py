"""Ctrl-C and SIGTERM during a migration: at once while that is safe, later where it is not. Never decides what then."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from ocimig.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """A `with` block in which a signal raises Interrupted, unless it is held back.

    It may be entered again inside, where somebody else has taken the signals meanwhile.
    """

    __slots__ = ("_before", "_held", "pending")

    def __init__(self) -> None:
        self.pending = 0
        self._held = 0
        self._before: list[list[tuple[int, Any]]] = []

    def __enter__(self) -> "Interrupts":
        taken: list[tuple[int, Any]] = []
        if threading.current_thread() is threading.main_thread():  # others get no signals
            for number in SIGNALS:
                if signal.getsignal(number) not in (
                    signal.SIG_IGN,
                    None,
                ):  # nohup: not to hear of it
                    taken.append((number, signal.signal(number, self._came)))  # noqa: PERF401
        self._before.append(taken)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.pop():
            signal.signal(number, handler)

    def _came(self, number: int, _frame: FrameType | None) -> None:
        self.pending = number
        if not self._held:
            self.check()

    def check(self) -> None:
        """Raise Interrupted when a signal came while they were held back."""
        if self.pending:
            number, self.pending = self.pending, 0
            raise Interrupted(state=f"by {signal.Signals(number).name}")

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal in here is remembered in `pending` and raises nothing."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1


def deafen() -> None:
    """From here on a signal must not stop us half-way; only in the main thread, others get none."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
