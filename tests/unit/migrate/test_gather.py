"""When those that move together may go on: every order of words and deaths for three of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocimig.migrate.gather import ABORT, STEPS, Gather

MEMBERS = ("c1", "c2", "c3")
WORDS = [word for word, _ in STEPS]
ORDERS = [order for _, order in STEPS]


@dataclass
class Seen:
    """A group, and what its members were told."""

    gather: Gather = field(default_factory=lambda: Gather(MEMBERS))
    said: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MEMBERS, 0))
    told: dict[str, list[str]] = field(default_factory=lambda: {each: [] for each in MEMBERS})
    dead: frozenset[str] = frozenset()

    def note(self, orders: list[tuple[str, str]]) -> None:
        """Orders that went out."""
        for member, order in orders:
            assert member not in self.dead
            self.told[member].append(order)

    def speak(self, member: str) -> None:
        """Its next word."""
        self.said[member] += 1
        self.note(self.gather.heard(member, WORDS[self.said[member] - 1]))

    def die(self, member: str) -> None:
        """It is gone."""
        self.dead |= {member}
        self.note(self.gather.ended(member))

    def moves(self) -> list[tuple[str, str]]:
        """What could happen next: one that has its order speaks, anybody dies."""
        found = []
        for each in MEMBERS:
            if each in self.dead:
                continue
            found.append(("die", each))
            told = self.told[each]
            if ABORT not in told and len(told) == self.said[each] < len(WORDS):
                found.append(("speak", each))
        return found

    def check(self) -> None:
        """What must hold at any moment."""
        for member, told in self.told.items():
            without = [order for order in told if order != ABORT]
            assert without == ORDERS[: len(without)], "orders come in their order"
            assert told.count(ABORT) <= 1
            assert ABORT not in told[:-1], "nothing follows an abort"
            assert len(without) <= self.said[member], "nobody is told before it asked"
        for number, order in enumerate(ORDERS):
            if any(order in told for told in self.told.values()):
                assert all(said > number for said in self.said.values()), f"{order} before all"
        went = any("go" in told for told in self.told.values())
        assert not (went and any(ABORT in told for told in self.told.values()))
        if self.dead and not went:
            alive = [each for each in MEMBERS if each not in self.dead]
            assert all(self.told[each][-1:] == [ABORT] for each in alive)


def key(seen: Seen) -> tuple[object, ...]:
    """What tells two situations apart."""
    return (
        tuple(seen.said.values()), tuple(tuple(told) for told in seen.told.values()),
        tuple(sorted(seen.dead)), seen.gather.given, seen.gather.aborted,
    )  # fmt: skip


def replay(path: tuple[tuple[str, str], ...]) -> Seen:
    """The situation after these moves."""
    seen = Seen()
    for what, member in path:
        (seen.speak if what == "speak" else seen.die)(member)
    return seen


def every_situation() -> Iterator[Seen]:
    """All that can be reached, each once."""
    todo: list[tuple[tuple[str, str], ...]] = [()]
    known = set()
    while todo:
        path = todo.pop()
        seen = replay(path)
        if key(seen) in known:
            continue
        known.add(key(seen))
        yield seen
        todo += [(*path, move) for move in seen.moves()]


def test_every_order_of_words_and_deaths() -> None:
    """Nobody goes before all gave theirs away; a death before that turns all back; after it nobody."""
    count = went = 0
    for seen in every_situation():
        seen.check()
        count += 1
        went += all(told[-1:] == ["go"] for told in seen.told.values())
    assert count > 200
    assert went


def test_all_go_when_nobody_fails() -> None:
    """The orders, each to all at once, when the last has asked."""
    seen = Seen()
    for number in range(len(STEPS)):
        for each in MEMBERS:
            assert len(seen.told[each]) == number
            seen.speak(each)
    assert all(told == ORDERS for told in seen.told.values())
    assert seen.gather.decided
    assert seen.gather.abort() == []


@given(st.lists(st.tuples(st.sampled_from(MEMBERS), st.sampled_from([*WORDS, "x", ""]))))
def test_words_out_of_turn_let_nobody_go(said: list[tuple[str, str]]) -> None:
    """Whatever comes: "go" only when each said all words in their order, each after the order before."""
    gather = Gather(MEMBERS)
    right: dict[str, list[str]] = {each: [] for each in MEMBERS}
    for member, word in said:
        right[member].append(word)
        for _, order in gather.heard(member, word):
            if order == "go":
                assert all(words == WORDS for words in right.values())


def test_a_dry_run_ends_with_the_first_step() -> None:
    """All were looked at; from there on each ends by itself and takes nobody with it."""
    gather = Gather(MEMBERS, steps=1)
    told = [order for each in MEMBERS for order in gather.heard(each, "looked")]
    assert told == [(each, "begin") for each in MEMBERS]
    assert gather.ended("c1") == []
    assert gather.abort() == []


@pytest.mark.parametrize("given", range(len(STEPS)))
def test_only_who_does_not_listen_is_interrupted(given: int) -> None:
    """And nobody who may have given its container away."""
    seen = Seen()
    for _ in range(given):
        for each in MEMBERS:
            seen.speak(each)
    seen.speak("c2")
    assert seen.gather.busy() == (["c1", "c3"] if given < 3 else [])
