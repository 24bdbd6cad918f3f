"""A `with` block around anything that has a close(). Knows nothing of what it closes."""

from types import TracebackType
from typing import Self


class Closing:
    """Entering gives the object itself, leaving closes it, whatever happened in between."""

    __slots__ = ()

    def close(self) -> None:
        """Give up what is held. Can be called twice."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
