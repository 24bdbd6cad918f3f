"""What no snapshot needs goes, what one needs stays, under the numbers that it has."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocimig.migrate.store import prune, verify
from ocimig.migrate.store.errors import FileMissing, StoreDamaged
from ocimig.migrate.store.packs import Packs
from ocimig.migrate.store.place import PACKS
from ocimig.migrate.store.prune import Fact, plan
from ocimig.migrate.store.store import Store
from ocimig_testkit.places import MemoryPlace
from ocimig_testkit.shelves import Content, again, check, shelf, some, take

_facts = st.lists(
    st.tuples(st.integers(1, 1 << 63), st.integers(1, 1 << 30), st.integers(1, 1 << 30), st.floats(0, 1))
    .map(lambda each: Fact(each[0], each[1], each[2], int(each[2] * each[3]))),
    max_size=8,
    unique_by=lambda fact: fact.number,
)  # fmt: skip


def _pruned(store: Store, most_unused: float = 0.0) -> prune.Pruned:
    with store.place.lock(exclusive=True, purpose="a test"):
        wanted, marks = prune.survey(store, most_unused=most_unused)
        return prune.perform(store, wanted, marks, lambda _: None)


@given(_facts, st.floats(0, 1))
def test_a_plan_takes_what_nobody_needs_and_what_is_mostly_that(
    facts: list[Fact], most: float
) -> None:
    """Nothing of which anything is needed is removed, and no pack is in it twice."""
    made = plan(facts, most_unused=most)
    assert {fact.number for fact in made.remove} == {fact.number for fact in facts if not fact.used}
    for fact in facts:
        if fact.used:
            assert (fact in made.shrink) == (fact.raw - fact.used > most * fact.raw)
    assert 0 <= made.freed <= sum(fact.size for fact in (*made.remove, *made.shrink))


def _overlapping(store: Store, count: int) -> dict[str, Content]:
    dice = random.Random(3)
    wanted = {}
    for number in range(count):
        content = some(dice)
        wanted[take(store, content, time=float(number)).id] = content
    return wanted


def test_entries_keep_their_numbers_when_a_pack_shrinks(tmp_path: Path) -> None:
    """Snapshots are never written again: what they say of an entry must stay true."""
    store = shelf(tmp_path)
    wanted = _overlapping(store, 3)
    first = next(iter(wanted))
    before = {
        number: dict(store.packs.contents(number).numbered()) for number in store.packs.numbers()
    }
    store.forget(first)
    del wanted[first]
    done = _pruned(store)
    assert done.shrunk
    assert done.freed > 0
    after = Packs(store.place, store.seals)
    gaps = 0
    for number in after.numbers():
        for entry, digest in after.contents(number).numbered():
            assert before[number][entry] == digest
        gaps += len(after.contents(number).runs) > 1
    assert gaps
    check(store, wanted)
    check(again(store, tmp_path), wanted)


def test_a_pack_can_shrink_again_and_again(tmp_path: Path) -> None:
    """With numbers that have gaps already; until nothing is left of it."""
    store = shelf(tmp_path)
    wanted = _overlapping(store, 4)
    place = store.place
    assert isinstance(place, MemoryPlace)
    sizes = []
    for id in list(wanted):
        store.forget(id)
        del wanted[id]
        _pruned(store)
        check(store, wanted)
        assert all(len(store.packs.names(each)) == 1 for each in store.packs.numbers())
        sizes.append(
            sum(len(node.data) for (room, _), node in place.disk.names.items() if room == PACKS)
        )
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 0


def test_what_is_little_unused_stays_as_it_is(tmp_path: Path) -> None:
    """Writing a pack anew for one page is not worth it."""
    store = shelf(tmp_path)
    wanted = _overlapping(store, 3)
    names = set(store.place.names(PACKS))
    assert _pruned(store, 0.0).shrunk == 0
    first = next(iter(wanted))
    store.forget(first)
    del wanted[first]
    _pruned(store, 1.0)
    assert set(store.place.names(PACKS)) <= names
    check(store, wanted)


def test_the_freed_bytes_are_those_that_are_gone(tmp_path: Path) -> None:
    """A person frees space by this number."""
    store = shelf(tmp_path)
    wanted = _overlapping(store, 3)
    place = store.place
    assert isinstance(place, MemoryPlace)
    store.forget(next(iter(wanted)))

    def there() -> int:
        return sum(len(node.data) for (room, _), node in place.disk.names.items() if room == PACKS)

    before = there()
    done = _pruned(store)
    assert done.freed == before - there()
    assert done.freed > 0


def test_nothing_is_removed_where_it_is_not_sure_what_is_needed(tmp_path: Path) -> None:
    """A damaged snapshot, or a missing pack: what it needed cannot be known."""
    store = shelf(tmp_path)
    _overlapping(store, 3)
    place = store.place
    assert isinstance(place, MemoryPlace)
    whole = dict(place.disk.names)
    for key in sorted(whole):
        if key[0] not in ("snapshots", PACKS):
            continue
        node = place.disk.names[key]
        kept = bytes(node.data)
        node.data[-1] ^= 1  # the end of a pack, and the body of a snapshot
        with pytest.raises(StoreDamaged):
            _pruned(again(store, tmp_path))
        node.data[:] = kept
        if key[0] == PACKS:
            del place.disk.names[key]
            with pytest.raises(FileMissing):
                _pruned(again(store, tmp_path))
            place.disk.names[key] = node
    assert place.disk.names == whole


def test_a_damaged_frame_keeps_its_pack_as_it_is(tmp_path: Path) -> None:
    """What cannot be read cannot be written anew; the others shrink, and it is said."""
    store = shelf(tmp_path)
    wanted = _overlapping(store, 3)
    for id in list(wanted)[:2]:
        store.forget(id)
    place = store.place
    assert isinstance(place, MemoryPlace)
    seen, _ = prune.survey(store, most_unused=0.0)
    assert len(seen.shrink) > 1
    victim = seen.shrink[0].number
    (name,) = store.packs.names(victim)
    for at in range(40, 4000, 5):
        place.disk.names[PACKS, name].data[at] ^= 1
    done = _pruned(again(store, tmp_path))
    assert len(done.problems) == 1
    assert name in done.problems[0]
    assert done.shrunk == len(seen.shrink) - 1
    assert (PACKS, name) in place.disk.names


def test_the_store_of_a_job_is_right_after_it_pruned(tmp_path: Path) -> None:
    """One process creates, forgets, prunes and verifies with one open store."""
    store = shelf(tmp_path)
    wanted = _overlapping(store, 3)
    check(store, wanted)  # everything was read once, and is remembered
    first = next(iter(wanted))
    store.forget(first)
    del wanted[first]
    assert _pruned(store).shrunk
    assert verify.verify(store, read_data=1.0, tell=lambda _: None).problems == []
    check(store, wanted)
    content = some(random.Random(9))
    wanted[take(store, content).id] = content
    check(again(store, tmp_path), wanted)
