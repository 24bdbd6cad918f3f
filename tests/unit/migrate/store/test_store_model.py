"""Whatever is done to a store in whatever order, with crashes in between: no snapshot loses a byte."""

import random
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ocimig.errors import NoSpace
from ocimig.migrate.store import prune, verify
from ocimig.migrate.store.place import PACKS
from ocimig.migrate.store.store import Store
from ocimig_testkit.places import Disk, MemoryPlace, PowerCut
from ocimig_testkit.shelves import Content, check, content_of, shelf, some, take

_dice = st.integers(0, 40)  # few, so that contents come again


class Life(RuleBasedStateMachine):
    """A store, one process after the other, and what is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.cache = Path(self.directory.name)
        self.wanted: dict[str, Content] = {}
        self.failed: list[Content] = []  # of snapshots that nobody was told of
        place = MemoryPlace()
        self.disk = place.disk
        self.store = shelf(self.cache, place)

    def teardown(self) -> None:
        """Take the cache away."""
        self.directory.cleanup()

    def _open(self, disk: Disk) -> None:
        disk.cut_at = disk.fail_at = 0
        self.disk = disk
        self.store = Store.open(MemoryPlace(disk), None, cache=str(self.cache))

    def _create(self, seed: int) -> None:
        with self.store.place.lock(exclusive=False, purpose="create"):
            content = some(random.Random(seed), 6)
            self.wanted[take(self.store, content, time=float(seed)).id] = content

    def _prune(self, most: float) -> None:
        with self.store.place.lock(exclusive=True, purpose="prune"):
            plan, marks = prune.survey(self.store, most_unused=most)
            prune.perform(self.store, plan, marks, lambda _: None)

    @rule(seed=_dice)
    def create(self, seed: int) -> None:
        """A snapshot."""
        self._create(seed)

    @rule(which=_dice)
    def forget(self, which: int) -> None:
        """One is not wanted any more."""
        if not self.wanted:  # no precondition: which rules there are must not hang on random names
            return
        id = sorted(self.wanted)[which % len(self.wanted)]
        self.store.forget(id)
        del self.wanted[id]

    @rule(most=st.sampled_from([0.0, 0.2, 1.0]))
    def prune(self, most: float) -> None:
        """What nobody needs goes."""
        self._prune(most)

    @rule()
    def another_process(self) -> None:
        """That has seen nothing yet."""
        self._open(self.disk)

    @rule()
    def lose_the_cache(self) -> None:
        """It is made anew at will."""
        for path in self.cache.rglob("known*"):
            path.unlink()

    @rule(seed=_dice, steps=st.integers(1, 25), what=st.sampled_from(["create", "prune", "forget"]))
    def power_cut(self, seed: int, steps: int, what: str) -> None:
        """In the middle of something; what was not synced may be there, or not."""
        self.disk.cut_at = len(self.disk.steps) + steps
        before = dict(self.wanted)
        content = some(random.Random(seed), 6)
        leaving = {sorted(before)[seed % len(before)]} if what == "forget" and before else set()
        try:
            if what == "create":
                self._create(seed)
            elif what == "prune":
                self._prune(0.0)
            elif self.wanted:
                self.forget(seed)
        except PowerCut:
            pass
        self._open(self.disk.survivors(random.Random(seed)))
        there = set(self.store.names())
        done = self.wanted
        self.wanted = before if what != "forget" else {**before, **done}
        assert set(done) & set(before) - leaving <= there, "what was durable is gone"
        self.wanted = {id: each for id, each in self.wanted.items() if id in there}
        for new in there - set(self.wanted):  # whole, of this try or of one that failed earlier
            found = content_of(self.store, self.store.read(self.store.names()[new]))
            assert found in [content, *self.failed]
            self.wanted[new] = found

    @rule(seed=_dice, steps=st.integers(1, 20), what=st.sampled_from(["create", "prune"]))
    def full_disk(self, seed: int, steps: int, what: str) -> None:
        """From some step on; somebody makes room afterwards."""
        self.disk.fail_at = len(self.disk.steps) + steps
        self.failed.append(some(random.Random(seed), 6))
        try:
            if what == "create":
                self._create(seed)
            else:
                self._prune(0.0)
        except NoSpace:
            pass
        finally:
            self.disk.fail_at = 0

    @rule(which=_dice, bit=st.integers(0, 1 << 20))
    def damage_and_repair(self, which: int, bit: int) -> None:
        """A bit flips in a pack: snapshots that are named as lost go, the others stay."""
        names = sorted(name for room, name in self.disk.names if room == PACKS)
        if not names:
            return
        data = self.disk.names[PACKS, names[which % len(names)]].data
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        self._open(self.disk)
        with self.store.place.lock(exclusive=True, purpose="repair"):
            verdict = verify.repair(self.store, lambda _: None)
        assert verdict.problems
        assert set(verdict.lost) <= set(self.wanted)
        for id in verdict.lost:
            del self.wanted[id]

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every snapshot that is wanted is there, and is what it was."""
        check(self.store, self.wanted)

    @invariant()
    def it_verifies(self) -> None:
        """And the store says so itself."""
        assert verify.verify(self.store, read_data=1.0, tell=lambda _: None).problems == []


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
