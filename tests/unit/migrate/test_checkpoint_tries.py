"""A checkpoint that is begun again, because a process was met that cannot be stopped just then."""

from contextlib import nullcontext
from typing import Any

import pytest

from ocimig.criu_images import rpc
from ocimig.criu_images.errors import CriuStuck
from ocimig.migrate import checkpoint


class Withholding:
    """Knows whether it was closed, and how often."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        """As Withholding: of a thread and of descriptors."""
        self.closed += 1


class Attempts(checkpoint._Checkpoint):
    """One whose first two dumps meet somebody in vfork(2)."""

    def __init__(self) -> None:
        self.made: list[Withholding] = []

    def _start(self, session: Any) -> None:
        assert [each.closed for each in self.made] == [1] * len(self.made)
        self.made.append(Withholding())
        self.withholding = self.made[-1]  # type: ignore[assignment]

    def _dump(self, session: Any) -> None:
        if len(self.made) < 3:
            self.hopeless = "process 7 waits in vfork(2)"
            raise CriuStuck(step="dump", reason=self.hopeless, log="dump.log")


def test_each_try_gives_back_what_it_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread and descriptors of the kernel's, in a process that goes on."""
    monkeypatch.setattr(rpc, "Session", lambda _: nullcontext())
    attempts = Attempts()
    attempts._persist("criu")
    assert [each.closed for each in attempts.made] == [1, 1, 1]
