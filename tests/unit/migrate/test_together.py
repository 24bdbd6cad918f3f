"""Who leads those that move together: processes that play their parts, and what becomes of all of them."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocimig.errors import Interrupted
from ocimig.migrate import engine, together
from ocimig.migrate.errors import (
    MigrationFailed,
    MigrationInDoubt,
    PreflightRefused,
)
from ocimig.migrate.interrupts import Interrupts
from ocimig.migrate.member import Member
from ocimig.migrate.move import MigrateOptions
from ocimig.migrate.outcomes import Outcome
from ocimig.migrate.progress import Event, Observer
from ocimig.migrate.report import Report
from ocimig.migrate.rounds import RoundPolicy
from ocimig.migrate.transport import Target
from ocimig.runtime.store import Store
from ocimig_testkit import until

LOOKED = {"memory": 1 << 20, "files": 1 << 20, "available": 8 << 30, "free": 8 << 30}
OPTIONS = MigrateOptions(patience=5.0)
IDS = ("c1", "c2", "c3")

Act = Callable[[Member], None]


class Stage:
    """Where the members play: `acts` is what one does before the word of that name."""

    def __init__(self, directory: Path, monkey: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.store = Store(str(directory))
        self.acts: dict[tuple[str, str], Act] = {}
        self.looked: dict[str, dict[str, int]] = {}
        self.told: list[Outcome] = []
        monkey.setattr(engine, "migrate", self.play)

    def play(
        self, store: Store, id: str, target: Target, options: MigrateOptions,
        observe: Observer, **more: Any,
    ) -> Report:  # fmt: skip
        """The walk of a member, in its process. Notes what it reached."""
        member: Member = more["together"]
        observe(Event("step", "PREFLIGHT", "look", 0.0))
        observe(Event("warning", "PREFLIGHT", "hm", 0.0))
        interrupts = Interrupts()
        with interrupts:
            try:
                self.act(member, "looked")
                member.looked({**LOOKED, **self.looked.get(id, {})})
                if options.dry_run:
                    return Report(id, "", target.host, "possible")
                self.act(member, "ready")
                while not member.converged(0.05):
                    self.note(id, "round")
                self.act(member, "frozen")
                with interrupts.held():
                    member.prepared()
                    self.act(member, "intend")
                    went = member.intended()
                    self.note(id, "went" if went else "asked")
                    if not went:
                        raise MigrationFailed(id=id, phase="COMMIT", reason="ABORTED", fix="")
            except Interrupted:
                raise Interrupted(state="rolled back") from None
            finally:
                self.note(id, "ended")
        return Report(id, "m", target.host, "moved", seconds=1.0)

    def act(self, member: Member, word: str) -> None:
        """The moment before a word."""
        self.note(member.id, word)
        if act := self.acts.get((member.id, word)):
            act(member)

    def note(self, id: str, word: str) -> None:
        """It got there."""
        with (self.directory / id).open("a") as file:
            file.write(word + "\n")

    def reached(self, id: str) -> list[str]:
        """What one noted, rounds and its end left out."""
        path = self.directory / id
        said = path.read_text().split() if path.exists() else []
        return [word for word in said if word not in ("round", "ended")]

    def ended(self, id: str) -> bool:
        """Whether its process came to its end."""
        path = self.directory / id
        return path.exists() and path.read_text().endswith("ended\n")

    def run(self, options: MigrateOptions = OPTIONS) -> dict[str, Outcome]:
        """All of it; how each ended."""
        ended = together.together(
            self.store, IDS, Target("host2"), options, self.told.append
        )  # fmt: skip
        assert ended == self.told
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        return {each.id: each for each in ended}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """An empty one."""
    return Stage(tmp_path, monkeypatch)


def die(_member: Member) -> None:
    """As by kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def nap(_member: Member) -> None:
    """One that is slower than the others."""
    time.sleep(0.3)


def outcomes(ended: dict[str, Outcome]) -> list[str]:
    """A word each, in order."""
    return [ended[id].outcome for id in IDS]


def test_all_go(stage: Stage) -> None:
    """Nobody before the slowest; those that wait go on with rounds."""
    stage.acts["c2", "ready"] = nap
    ended = stage.run()
    assert outcomes(ended) == ["moved"] * 3
    assert all(stage.reached(id)[-1] == "went" for id in IDS)
    assert "round" in (stage.directory / "c1").read_text()
    assert ended["c1"].seconds == 1.0


@pytest.mark.parametrize("word", ["looked", "ready", "frozen", "intend"])
def test_one_that_is_killed_turns_all_back(stage: Stage, word: str) -> None:
    """Wherever it was: nobody goes by our word; the others do not end as moved."""
    stage.acts["c2", word] = die
    ended = stage.run()
    assert outcomes(ended) == ["stays", "failed", "stays"]
    assert all("went" not in stage.reached(id) for id in IDS)
    assert "-9" in ended["c2"].reason
    asked = word == "intend"
    assert [("asked" in stage.reached(id)) for id in ("c1", "c3")] == [asked] * 2


def test_one_that_is_refused_turns_all_back_with_its_code(stage: Stage) -> None:
    """Two have something in the way: both say it, the third says whose fault it is."""

    def refuse(member: Member) -> None:
        raise PreflightRefused(reasons="no", fixes="", code=14 if member.id == "c1" else 15)

    def refuse_later(member: Member) -> None:
        nap(member)
        refuse(member)

    stage.acts["c1", "looked"] = refuse
    stage.acts["c3", "looked"] = refuse_later
    ended = stage.run()
    assert outcomes(ended) == ["refused", "stays", "refused"]
    assert [ended[id].code for id in IDS] == [14, 14, 15]
    assert ended["c2"].reason.startswith("container c2 stays here")
    assert stage.reached("c2") == ["looked"]


def test_one_that_fails_interrupts_who_is_busy(stage: Stage) -> None:
    """A long round of another ends at once."""

    def fail(member: Member) -> None:
        time.sleep(0.2)
        raise MigrationFailed(id=member.id, phase="PRECOPY", reason="too much", fix="less")

    stage.acts["c1", "ready"] = fail
    stage.acts["c2", "ready"] = lambda _member: time.sleep(30)
    began = time.monotonic()
    ended = stage.run()
    assert time.monotonic() - began < 10
    assert outcomes(ended) == ["failed", "stays", "stays"]
    assert "too much" in ended["c2"].reason
    assert "too much" in ended["c3"].reason
    assert {each.code for each in ended.values()} == {20}


def test_a_doubt_of_one_is_its_own(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """After all have gone, how one ends is nothing to the others."""
    play = stage.play

    def doubt(*words: Any, **more: Any) -> Report:
        report = play(*words, **more)
        if report.id == "c2":
            raise MigrationInDoubt(id="c2", target="host2", reason="silence")
        return report

    monkeypatch.setattr(engine, "migrate", doubt)
    assert outcomes(stage.run()) == ["moved", "in doubt", "moved"]


def test_the_room_is_for_all_of_them(stage: Stage) -> None:
    """Each alone would fit; together they are refused before anything was touched, with code 15."""
    stage.looked = {id: {"memory": 3 << 30} for id in IDS}
    ended = stage.run()
    assert {each.code for each in ended.values()} == {15}
    assert "no room for all of them" in ended["c1"].reason
    assert all(stage.reached(id) == ["looked"] for id in IDS)


def test_warnings_are_told_and_steps_are_not(stage: Stage) -> None:
    """By the process of each member, while it goes on."""
    place = stage.directory / "said"

    def tell(outcome: Outcome) -> None:
        with place.open("a") as file:
            file.write(f"{outcome.id} {outcome.outcome} {outcome.reason}\n")

    together.together(stage.store, IDS, Target("host2"), replace(OPTIONS, dry_run=True), tell)
    lines = place.read_text().splitlines()
    assert sorted(line for line in lines if "warning" in line) == [f"{id} warning hm" for id in IDS]
    assert len(lines) == 6


def test_a_dry_run_is_of_all(stage: Stage) -> None:
    """Each is looked at; none goes further."""
    ended = stage.run(replace(OPTIONS, dry_run=True))
    assert outcomes(ended) == ["possible"] * 3
    assert all(stage.reached(id) == ["looked"] for id in IDS)


def test_an_interrupt_turns_all_back(stage: Stage) -> None:
    """Ctrl-C while one is busy and two wait: code 130 for each."""

    def interrupt(_member: Member) -> None:
        time.sleep(0.2)
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(30)

    stage.acts["c3", "ready"] = interrupt
    ended = stage.run()
    assert outcomes(ended) == ["stays"] * 3
    assert {each.code for each in ended.values()} == {130}


def test_a_coordinator_that_is_killed_leaves_nobody_waiting(stage: Stage) -> None:
    """Its members read the end of the line: one in the rounds, one that is frozen."""
    stage.acts["c2", "ready"] = nap
    stage.acts["c3", "frozen"] = lambda _member: os.kill(os.getppid(), signal.SIGKILL)
    leader = os.fork()
    if not leader:
        together.together(stage.store, IDS, Target("host2"), OPTIONS, stage.told.append)
        os._exit(0)
    os.waitpid(leader, 0)
    until(lambda: all(stage.ended(id) for id in IDS), "the members to end")
    assert all("intend" not in stage.reached(id) for id in IDS)


def test_bandwidth_is_shared_and_patience_grows() -> None:
    """A third each; a prepared container waits for the others."""
    given = replace(OPTIONS, policy=RoundPolicy(max_bandwidth=9 << 20))
    shared = together.shared(given, 3)
    assert shared.policy.max_bandwidth == 3 << 20
    assert shared.patience > OPTIONS.patience
    assert together.shared(OPTIONS, 3).policy.max_bandwidth == 0
