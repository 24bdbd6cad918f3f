"""The word of containers that move together: one, whoever asks first, and GO only for all."""

import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from ocimig.migrate import group, journal
from ocimig.migrate.errors import JournalBroken
from ocimig.migrate.group import ABORTED, FORMED, GO, Register
from ocimig.runtime.linux import proc
from ocimig.runtime.store import Store

G = "20261123T140000Z-000000000000"
MEMBERS = [f"20261123T140000Z-{number:012x}" for number in (1, 2)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The state root of the destination."""
    (tmp_path / "root").mkdir()
    return Store(str(tmp_path / "root"))


def reserve(store: Store, migration: str, *records: str, agent: int = 0) -> journal.Journal:
    """A member that its agent has brought this far; the agent is this process or the one given."""
    agent = agent or os.getpid()
    stat = proc.stat(agent)
    entry = journal.create(
        store, migration, "destination", id=f"c{migration[-1]}", epoch=1, group=G, agent=agent,
        agent_start=stat.start_time if stat else 1,
    )  # fmt: skip
    for record in records:
        entry.write(record)
    return entry


def prepared(store: Store) -> Register:
    """Both members prepared, the register open."""
    for each in MEMBERS:
        reserve(store, each, "SHIPPED", "PREPARED")
    register = Register(store, G)
    register.form(MEMBERS)
    return register


def test_the_first_word_stays(store: Store) -> None:
    """What was decided is the answer to everybody who comes later, whatever they want."""
    register = prepared(store)
    assert register.word == FORMED
    assert register.decide(GO) == GO
    assert register.decide(ABORTED) == GO
    assert Register(store, G).word == GO


def test_aborted_refuses_a_later_go(store: Store) -> None:
    """The other way round."""
    register = prepared(store)
    assert register.decide(ABORTED) == ABORTED
    assert register.decide(GO) == ABORTED


@pytest.mark.parametrize("records", [(), ("SHIPPED",), ("SHIPPED", "PREPARED", "ABORTED"), None])
def test_go_needs_every_member_prepared(store: Store, records: tuple[str, ...] | None) -> None:
    """One that never came, is on its way or gave up turns all of them back, for ever."""
    reserve(store, MEMBERS[0], "SHIPPED", "PREPARED")
    if records is not None:
        reserve(store, MEMBERS[1], *records)
    register = Register(store, G)
    register.form(MEMBERS)
    assert register.decide(GO) == ABORTED


def test_go_needs_every_agent_alive(store: Store) -> None:
    """One whose agent was killed while it held its container would not run there."""
    child = os.fork()
    if not child:
        os._exit(0)
    reserve(store, MEMBERS[0], "SHIPPED", "PREPARED")
    reserve(store, MEMBERS[1], "SHIPPED", "PREPARED", agent=child)
    os.waitpid(child, 0)
    register = Register(store, G)
    register.form(MEMBERS)
    assert "agent" in group.unprepared(store, MEMBERS)
    assert register.decide(GO) == ABORTED


def test_go_needs_what_was_restored(store: Store) -> None:
    """The first process of one is gone."""
    reserve(store, MEMBERS[0], "SHIPPED", "PREPARED")
    entry = reserve(store, MEMBERS[1], "SHIPPED")
    entry.write("PREPARED", pid=os.getpid(), start_time=1)
    assert "restored" in group.unprepared(store, MEMBERS)


def test_other_members_are_refused(store: Store) -> None:
    """A group is what the first member said."""
    register = Register(store, G)
    register.form(MEMBERS)
    register.form(MEMBERS)
    with pytest.raises(JournalBroken):
        register.form(MEMBERS[:1])


def test_a_group_that_was_never_formed_lets_nobody_go(store: Store) -> None:
    """Nor one whose register ends before its first word."""
    register = Register(store, G)
    assert register.decide(GO) == ABORTED
    assert register.word == ""
    os.makedirs(register.home)
    (Path(register.home) / "journal").touch()
    assert register.decide(GO) == ABORTED
    register.form(MEMBERS)
    assert register.word == FORMED


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", "."])
def test_a_name_from_the_other_host_is_no_path(store: Store, name: str) -> None:
    """Neither of the group nor of a member."""
    with pytest.raises(JournalBroken):
        Register(store, name)
    with pytest.raises(JournalBroken):
        Register(store, G).form([name])


def _race(root: str, word: str, answers: "multiprocessing.Queue[str]") -> None:
    answers.put(Register(Store(root), G).decide(word, ready=_nothing))


def _nothing(_store: Store, _members: Sequence[str]) -> str:
    return ""


def test_processes_that_race_hear_one_word(store: Store) -> None:
    """Four at once, ten times: two want GO, two ABORTED."""
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        Register(store, G).form(MEMBERS)
        answers: multiprocessing.Queue[str] = context.Queue()
        racers = [
            context.Process(target=_race, args=(store.root, word, answers))
            for word in (GO, ABORTED, GO, ABORTED)
        ]
        for each in racers:
            each.start()
        said = {answers.get(timeout=10) for _ in racers}
        for each in racers:
            each.join(10)
        assert len(said) == 1
        assert said == {Register(store, G).word}
        group.prune(store)


def test_a_register_stays_while_a_member_has_not_ended(store: Store) -> None:
    """It is forgotten with the last; journals of the host are counted without it."""
    register = prepared(store)
    register.decide(ABORTED)
    first, second = journal.every(store)
    first.write("ABORTED")
    group.prune(store)
    assert register.word == ABORTED
    second.write("ABORTED")
    group.prune(store)
    assert register.word == ""
    assert not os.path.exists(register.home)


def test_what_is_no_register_is_left_alone(store: Store) -> None:
    """The lock of a container called group-x, a register that cannot be read, one that is being made."""
    home = Path(journal.directory(store))
    home.mkdir()
    lock = home / ".group-x.lock"
    lock.touch()
    made = home / f".group-{MEMBERS[0]}"
    made.mkdir()
    damaged = home / f".group-{G}"
    damaged.mkdir()
    (damaged / "journal").write_text("no\n")
    group.prune(store)
    assert lock.exists()
    assert damaged.exists()
    assert made.exists()
