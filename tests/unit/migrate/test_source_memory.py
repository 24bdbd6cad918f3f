"""What the source believes that the far side has: never more than it was able to send."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ocimig.migrate.memory.runs import PAGE, Run
from ocimig.migrate.memory.sender import Sent
from ocimig.migrate.source_memory import SourceMemory
from ocimig.migrate.trackers import Dirty

ME = os.getpid()


class Tracker:
    """Says what it was told to say, look by look."""

    name = "told"

    def __init__(self, looks: list[list[Run]]) -> None:
        self.notes: list[str] = []
        self.looks = looks

    def look(self, tasks: Mapping[int, int], *, final: bool = False) -> list[Dirty]:
        """Of one process with four pages."""
        return [Dirty("p1", ME, self.looks.pop(0), [(0, 4 * PAGE)])]

    def sent(self, *_: object) -> None:
        """Nobody asks."""

    def close(self) -> None:
        """Nothing to close."""


class Sender:
    """Notes what it is to send; some of it cannot be read any more."""

    def __init__(self, gone: list[Run]) -> None:
        self.asked: list[list[tuple[str, int, list[Run]]]] = []
        self.gone = [("p1", gone)]

    def send(self, dirty: Iterable[tuple[str, int, list[Run]]]) -> Sent:
        """As PageSender."""
        self.asked.append(list(dirty))
        return Sent()

    def settle(self, timeout: float) -> None:
        """It came."""

    def lost(self) -> list[Any]:
        """Nothing."""
        return []

    def reopen(self, streams: object) -> None:
        """Go on."""


def test_a_page_that_could_not_be_read_is_not_taken_for_sent() -> None:
    """The far side may have an older one from a round before: in the freeze it goes again."""
    tracker = Tracker([[(0, 4 * PAGE)], [], []])
    sender, last = Sender([(PAGE, 2 * PAGE)]), Sender([])
    memory = SourceMemory(ME, tracker, sender, last)  # type: ignore[arg-type]
    memory.round()
    assert sender.asked == [[("p1", ME, [(0, 4 * PAGE)])]]
    memory.withhold({ME: 1})
    memory.withheld({ME: [(0, 3 * PAGE)]})
    assert last.asked == [[("p1", ME, [(PAGE, 2 * PAGE)])]]


def test_the_same_when_the_link_broke_in_that_round() -> None:
    """What was confirmed counts as sent, but for what was not there to be read."""
    tracker = Tracker([[(0, 4 * PAGE)], [], []])
    sender, last = Sender([(PAGE, 2 * PAGE)]), Sender([])
    memory = SourceMemory(ME, tracker, sender, last)  # type: ignore[arg-type]
    memory._look(tracker.look({}))
    memory.reopen([])
    memory.withhold({ME: 1})
    memory.withheld({ME: [(0, 3 * PAGE)]})
    assert last.asked == [[("p1", ME, [(PAGE, 2 * PAGE)])]]
