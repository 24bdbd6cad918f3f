"""A limit on everything that is done in a `with` block, whatever it waits for. Main thread only."""

import signal
from types import FrameType, TracebackType


class OutOfTimeSignal(BaseException):
    """The time is over: unwinds as KeyboardInterrupt does, so that what is half done is undone."""


class Timeout:
    """Raises OutOfTimeSignal in the block after so many seconds; 0 is no limit."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        if self._seconds:
            self._before = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._seconds:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        raise OutOfTimeSignal
