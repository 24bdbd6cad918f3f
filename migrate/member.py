"""One of those that move together, in its own process: says how far it is, waits for the order to go on. Never decides.

One JSON object a line on a socket to who started it (`together`), one back for each word.
"""

import select
import socket
import time
from collections.abc import Sequence
from typing import Any

from ocimig import jsonio
from ocimig.migrate.errors import GroupTurnedBack


class Member:
    """The line to the coordinator; the end of the line is an order to turn back."""

    __slots__ = ("_in", "_line", "_ready", "group", "id", "members", "migration", "patience")

    def __init__(
        self,
        id: str,
        group: str,
        members: Sequence[str],
        migration: str,
        line: socket.socket,
        *,
        patience: float,
    ) -> None:
        self.id = id
        self.group = group
        self.members = list(members)
        self.migration = migration
        self.patience = patience  # seconds that a container may wait frozen for the others
        self._line = line
        self._in = b""
        self._ready = False

    def looked(self, facts: dict[str, Any]) -> None:
        """Nothing stands in the way here: wait until all have looked. Raises GroupTurnedBack."""
        self._say("looked", facts)
        self._wait("begin", None)

    def converged(self, seconds: float) -> bool:
        """It could be frozen now: whether all others could; waits that long. Raises GroupTurnedBack."""
        if not self._ready:
            self._ready = True
            self._say("ready", {})
        return self._heard("freeze", time.monotonic() + seconds)

    def prepared(self) -> None:
        """Frozen here, built there: wait until all are. Raises GroupTurnedBack."""
        self._say("prepared", {})
        self._wait("intend", self.patience)

    def intended(self) -> bool:
        """Given away, durably: whether all others were too. False lets nobody go by our word."""
        try:
            self._say("intended", {})
            self._wait("go", self.patience)
        except GroupTurnedBack:
            return False
        return True

    def tell(self, outcome: dict[str, Any]) -> None:
        """How it ended: the last word."""
        self._say("ended", outcome)

    def _say(self, word: str, facts: dict[str, Any]) -> None:
        line = jsonio.dumps({"word": word, **facts}).encode() + b"\n"
        try:
            self._line.sendall(line)
        except OSError:
            raise self._turned_back("whoever led the group is gone") from None

    def _wait(self, order: str, seconds: float | None) -> None:
        if not self._heard(order, None if seconds is None else time.monotonic() + seconds):
            raise self._turned_back(f"no word for {seconds:.0f} s")

    def _heard(self, wanted: str, end: float | None) -> bool:
        """Whether that order came in time. Any other one turns back."""
        while b"\n" not in self._in:
            left = None if end is None else max(0.0, end - time.monotonic())
            ready, _, _ = select.select([self._line], [], [], left)
            if not ready:
                return False
            try:
                data = self._line.recv(65536)
            except OSError:
                data = b""
            if not data:
                raise self._turned_back("whoever led the group is gone")
            self._in += data
        line, _, self._in = self._in.partition(b"\n")
        said = jsonio.loads(line)
        if said.get("order") != wanted:
            reason = str(said.get("reason") or f"{said.get('order')!r} where {wanted!r} belongs")
            raise self._turned_back(reason)
        return True

    def _turned_back(self, reason: str) -> GroupTurnedBack:
        return GroupTurnedBack(id=self.id, reason=reason)
