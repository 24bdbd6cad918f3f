"""Two containers that move together between hosts without a kernel: who runs them after every fault."""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocimig.errors import OcimigError
from ocimig.migrate import engine, group, journal, recover, settling
from ocimig.migrate.errors import (
    GroupTurnedBack,
    LinkLost,
    MigrationFailed,
    MigrationInDoubt,
    MountGone,
)
from ocimig.migrate.gather import STEPS, Gather
from ocimig.migrate.member import Member
from ocimig.migrate.report import Report
from ocimig_testkit.migration import OPTIONS as IMPATIENT
from ocimig_testkit.migration import TARGET, FakeDestination, FakeSource, Link, World

OPTIONS = replace(IMPATIENT, patience=5.0)  # two at once on a busy machine
IDS = ("c1", "c2")
GROUP = "20261123T150000Z-00000000000a"
MIGRATIONS = [f"20261123T150000Z-{number:012x}" for number in (1, 2)]
ORDERS = [order for _, order in STEPS]


class Pair:
    """Two worlds on one pair of hosts, and who leads the moves out of one of them."""

    def __init__(self, directory: Path, monkey: pytest.MonkeyPatch) -> None:
        self.worlds = {}
        self.links = {}
        for id in IDS:
            (directory / id).mkdir()
            self.worlds[id] = World(directory / id)
            self.links[id] = Link(self.worlds[id], monkey)
        self.worlds["c2"].near = self.worlds["c1"].near
        self.worlds["c2"].far = self.worlds["c1"].far
        self.ended: dict[str, Report | BaseException] = {}
        self.before: dict[str, Callable[[], None]] = {}  # what happens before an order goes out
        self.lost: set[tuple[str, str]] = set()  # (who, order): from there on nobody leads it

    def _walk(self, id: str, line: socket.socket) -> None:
        number = IDS.index(id)
        member = Member(id, GROUP, MIGRATIONS, MIGRATIONS[number], line, patience=10)
        world = self.worlds[id]
        try:
            self.ended[id] = engine.migrate(
                world.near, id, TARGET, OPTIONS, hands=FakeSource(world),
                connecting=self.links[id], together=member,
            )  # fmt: skip
        except (OcimigError, OSError) as error:
            self.ended[id] = error
        finally:
            line.close()

    def move(self) -> None:
        """All of it, as `together` leads it."""
        lines, threads = {}, []
        for id in IDS:
            lines[id], theirs = socket.socketpair()
            threads.append(threading.Thread(target=self._walk, args=(id, theirs)))
        for each in threads:
            each.start()
        self._lead(Gather(IDS), lines)
        for each in threads:
            each.join(20)
            assert not each.is_alive()
        for link in self.links.values():
            link.settle()

    def _lead(self, gather: Gather, lines: dict[str, socket.socket]) -> None:
        files = {id: line.makefile("r") for id, line in lines.items()}
        while gather.at and not gather.decided:
            for id in list(gather.at):
                said = ""
                with suppress(ConnectionResetError):
                    said = files[id].readline()
                word = json.loads(said)["word"] if said else ""
                orders = gather.heard(id, word) if said else gather.ended(id)
                for who, order in orders:
                    self._tell(lines[who], who, order)
        for id in IDS:
            files[id].close()
            lines[id].close()

    def _tell(self, line: socket.socket, who: str, order: str) -> None:
        if what := self.before.pop(order, None):
            what()
        if (who, order) in self.lost:
            line.shutdown(socket.SHUT_RDWR)
        else:
            with suppress(OSError):
                line.sendall(json.dumps({"order": order, "reason": "x"}).encode() + b"\n")

    def where(self) -> list[str]:
        """Where each runs: one place each."""
        for world in self.worlds.values():
            assert not world.both
        return ["+".join(world.running()) for world in self.worlds.values()]

    def word(self) -> str:
        """What the register says."""
        return group.Register(self.worlds["c1"].far, GROUP).word

    def resume(self, **options: Any) -> Report:
        """`migrate --resume c1`, with hands for both."""
        return recover.resume(
            self.worlds["c1"].near, "c1", replace(OPTIONS, **options), hands=Both(self.worlds),
            connecting=self.links["c1"],
        )  # fmt: skip


class Both(FakeSource):
    """Hands that know which of the two a journal is of."""

    def __init__(self, worlds: dict[str, World]) -> None:
        super().__init__(worlds["c1"])
        self.worlds = worlds

    def let_run(self, store: Any, entry: journal.Journal) -> bool:
        """See Source."""
        return FakeSource(self.worlds[entry.facts["id"]]).let_run(store, entry)

    def remove(self, store: Any, entry: journal.Journal) -> list[str]:
        """See Source."""
        return FakeSource(self.worlds[entry.facts["id"]]).remove(store, entry)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Both run here."""
    return Pair(tmp_path, monkeypatch)


def test_both_arrive(pair: Pair) -> None:
    """One word there, both journals to their ends, nobody let go before both were given away."""
    pair.before["go"] = lambda: given.extend(
        entry.phase for entry in journal.every(pair.worlds["c1"].near)
    )
    given: list[str] = []
    pair.move()
    assert pair.where() == ["there", "there"], pair.ended
    assert pair.word() == "GO"
    assert given == ["COMMIT-INTENT"] * 2
    ends = {entry.phase for entry in journal.every(pair.worlds["c1"].near)}
    assert ends == {"DONE"}
    reports = [pair.ended[id] for id in IDS]
    assert [each.outcome for each in reports if isinstance(each, Report)] == ["moved"] * 2


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("who", [("c1",), ("c2",), IDS])
def test_a_leader_that_is_gone_leaves_both_in_one_place(
    pair: Pair, order: str, who: tuple[str, ...]
) -> None:
    """From that order on nobody speaks to one of them, or to both: the same end for both, none held."""
    pair.lost = {(each, order) for each in who}
    pair.move()
    where = pair.where()
    assert where in (["here", "here"], ["there", "there"])
    if order != "go" or who == IDS:
        assert where == ["here", "here"]
    if order in ORDERS[:3]:
        assert all(isinstance(pair.ended[id], GroupTurnedBack) for id in who), pair.ended
    assert recover.recover(pair.worlds["c1"].near) == []


@pytest.mark.parametrize("record", ["reserve", "restore", "dump", "warm"])
def test_one_that_fails_keeps_the_other(pair: Pair, record: str) -> None:
    """Over there or here, before the commit: both run here, and the one that failed says why."""
    pair.worlds["c2"].failing[record] = MountGone(paths="/x")
    pair.move()
    assert pair.where() == ["here", "here"]
    assert pair.word() in ("", "ABORTED", "FORMED")
    assert isinstance(pair.ended["c1"], MigrationFailed)


def test_go_for_one_is_go_for_the_other_whose_link_broke(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """c2 was given away and its link is cut before its go: there it runs by the go of c1."""
    link = pair.links["c2"]

    def cut() -> None:
        assert link.channel is not None
        link.channel.writes = link.channel.written

    first = threading.Event()
    pair.before["go"] = cut
    decide = group.Register.decide

    def in_order(self: group.Register, word: str, **more: Any) -> str:
        if word == "GO":
            found = decide(self, word, **more)
            first.set()
            return found
        assert first.wait(10)
        return decide(self, word, **more)

    monkeypatch.setattr(group.Register, "decide", in_order)
    pair.move()
    assert pair.word() == "GO"
    assert pair.where() == ["there", "there"]


def test_an_agent_that_died_before_the_word_turns_both_back(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both were given away, then nobody holds c2 there any more: c1 gets its go and is not let go."""

    def nobody(_pid: object, _start: object) -> None:
        """No process of that number."""

    pair.before["go"] = lambda: monkeypatch.setattr(group, "_process", nobody)
    pair.move()
    assert pair.word() == "ABORTED"
    assert pair.where() == ["here", "here"]


def silent(pair: Pair) -> None:
    """Nobody there answers any more."""
    for link in pair.links.values():
        link.later = False
        assert link.channel is not None
        link.channel.writes = link.channel.written


def test_a_destination_that_is_lost_holds_both_and_one_command_settles_them(pair: Pair) -> None:
    """In doubt both; when it answers again, --resume of one brings both back."""
    pair.before["go"] = lambda: silent(pair)
    pair.move()
    assert all(isinstance(pair.ended[id], MigrationInDoubt) for id in IDS)
    assert pair.where() == ["", ""]
    with pytest.raises(MigrationInDoubt):
        pair.resume()
    pair.links["c1"].later = True
    report = pair.resume()
    assert report.outcome == "resumed here"
    assert report.notes == ("c2, which moved with it: resumed here",)
    assert pair.where() == ["here", "here"]


def test_what_is_assumed_is_assumed_for_both(pair: Pair) -> None:
    """--assume-destination-dead for one of them is for the other too."""
    pair.before["go"] = lambda: silent(pair)
    pair.move()
    pair.resume(assume_destination_dead=True)
    assert pair.where() == ["here", "here"]


def test_nothing_is_assumed_once_one_is_known_to_run_there(pair: Pair) -> None:
    """c1 heard that it runs there; c2 heard nothing, and may run there too: it stays held."""
    pair.before["go"] = lambda: silent_for("c2")

    def silent_for(id: str) -> None:
        link = pair.links[id]
        link.later = False
        assert link.channel is not None
        link.channel.reads = link.channel.seen

    pair.move()
    assert isinstance(pair.ended["c1"], Report)
    assert isinstance(pair.ended["c2"], MigrationInDoubt)

    def nobody() -> Any:
        raise LinkLost(host="there", reason="no route")

    for _ in range(2):
        with pytest.raises(MigrationInDoubt):
            recover.resume(
                pair.worlds["c1"].near, "c2", replace(OPTIONS, assume_destination_dead=True),
                hands=Both(pair.worlds), connecting=nobody,
            )  # fmt: skip
    pair.links["c2"].later = True
    recover.resume(
        pair.worlds["c1"].near, "c2", OPTIONS, hands=Both(pair.worlds), connecting=pair.links["c2"]
    )
    assert pair.where() == ["there", "there"]


def test_a_far_side_that_knows_no_groups_is_refused(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would let one go alone."""
    monkeypatch.setattr(group, "facts", lambda _wanted: {})
    pair.move()
    assert pair.where() == ["here", "here"]
    assert all("together" in str(pair.ended[id]) for id in IDS)


def test_a_dead_agent_is_settled_by_the_register(pair: Pair) -> None:
    """Whoever asks about a prepared member that nobody holds closes the register: nobody goes."""
    far = pair.worlds["c1"].far
    entry = journal.create(
        far, MIGRATIONS[0], "destination", id="c1", epoch=1, group=GROUP, images="/nowhere/image"
    )
    entry.write("SHIPPED")
    entry.write("PREPARED")
    register = group.Register(far, GROUP)
    register.form(MIGRATIONS)
    assert settling.settle_there(far, entry, FakeDestination(pair.worlds["c1"]))
    assert entry.phase == "ABORTED"
    assert register.decide("GO") == "ABORTED"
