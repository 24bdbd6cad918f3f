"""What the source believes that the far side has: never more than it was able to send."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from ocimig.migrate.errors import LinkLost
from ocimig.migrate.memory.runs import PAGE, Run
from ocimig.migrate.memory.sender import PageSender, Sent
from ocimig.migrate.source_memory import SourceMemory
from ocimig.migrate.trackers import Dirty
from ocimig_testkit.areas import Area, Far, noise

ME = os.getpid()


class Tracker:
    """Says what it was told to say, look by look."""

    name = "told"

    def __init__(self, looks: list[list[Run]], *mappings: list[Run]) -> None:
        self.notes: list[str] = []
        self.looks = looks
        self.mappings = list(mappings) or [[(0, 4 * PAGE)]]  # look by look; the last stays

    def look(self, tasks: Mapping[int, int], *, final: bool = False) -> list[Dirty]:
        """Of one process, with four pages where nothing else was said."""
        mappings = self.mappings.pop(0) if len(self.mappings) > 1 else self.mappings[0]
        return [Dirty("p1", ME, self.looks.pop(0), mappings)]

    def sent(self, *_: object) -> None:
        """Nobody asks."""

    def close(self) -> None:
        """Nothing to close."""


class Sender:
    """Notes what it is to send; some of it cannot be read any more."""

    def __init__(self, gone: list[Run]) -> None:
        self.asked: list[list[tuple[str, int, list[Run]]]] = []
        self.gone = [("p1", gone)]
        self.breaks = False

    def send(self, dirty: Iterable[tuple[str, int, list[Run]]]) -> Sent:
        """As PageSender."""
        self.asked.append(list(dirty))
        return Sent()

    def settle(self, timeout: float) -> None:
        """It came, and with `breaks` nobody hears that."""
        if self.breaks:
            raise LinkLost(host="h2", reason="pulled out")

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
    sender.breaks = True
    with pytest.raises(LinkLost):
        memory.round()
    memory.reopen([])
    memory.withhold({ME: 1})
    memory.withheld({ME: [(0, 3 * PAGE)]})
    assert last.asked == [[("p1", ME, [(PAGE, 2 * PAGE)])]]


@pytest.mark.parametrize("streams", [1, 2])
def test_what_is_written_before_the_link_breaks_goes_over_the_next(streams: int) -> None:
    """The break is found before the first page of a round goes: nothing of that round has arrived."""
    far, area = Far(), Area(8)
    area.fill(noise)
    wires = [far.wire() for _ in range(streams)]
    tracker = Tracker([[area.run], [area.page(0)], []], [area.run])
    sender = PageSender(wires, compress="none", timeout=5)
    memory = SourceMemory(ME, tracker, sender, Sender([]))  # type: ignore[arg-type]
    memory.round()
    area.map[:PAGE] = noise(0)
    for wire in wires:
        wire.close()
    with pytest.raises(LinkLost):
        memory.round()
    memory.reopen([far.wire() for _ in range(streams)])
    memory.round()
    there = os.pread(far.held.fd("p1"), PAGE, area.start)
    far.close()
    assert there == area.map[:PAGE]


def test_what_no_round_has_taken_up_yet_stays_owed() -> None:
    """The link may be found broken after a round's last look, by whoever else uses it."""
    tracker = Tracker([[(0, 4 * PAGE)], [(PAGE, 2 * PAGE)], []])
    sender = Sender([])
    memory = SourceMemory(ME, tracker, sender, Sender([]))  # type: ignore[arg-type]
    memory.round()
    memory.reopen([])
    memory.round()
    assert sender.asked[1] == [("p1", ME, [(PAGE, 2 * PAGE)])]


def test_what_is_not_eligible_for_one_look_is_not_there_any_more() -> None:
    """Locked for a while, or lost between two reads of /proc: what was written then is in no look."""
    both, first = [(0, 4 * PAGE)], [(0, 2 * PAGE)]
    tracker = Tracker([both, [], [], []], both, both, first, both)
    sender, last = Sender([]), Sender([])
    memory = SourceMemory(ME, tracker, sender, last)  # type: ignore[arg-type]
    memory.round()
    memory.round()
    memory.withhold({ME: 1})
    memory.withheld({ME: both})
    assert last.asked == [[("p1", ME, [(2 * PAGE, 4 * PAGE)])]]


def test_a_freeze_that_was_given_up_takes_nothing_away() -> None:
    """Owed, not eligible in a freeze that CRIU could not go through with, and eligible in the next."""
    both, first = [(0, 4 * PAGE)], [(0, 2 * PAGE)]
    tracker = Tracker([both, [(3 * PAGE, 4 * PAGE)], [], []], both, both, first, both)
    sender, last = Sender([]), Sender([])
    memory = SourceMemory(ME, tracker, sender, last)  # type: ignore[arg-type]
    memory.round()
    memory.withhold({ME: 1})
    memory.withhold({ME: 1})
    memory.withheld({ME: both})
    assert last.asked == [[("p1", ME, [(3 * PAGE, 4 * PAGE)])]]
