"""Repair sets aside what is damaged and nothing else: what does not touch it is there, byte for byte."""

import random
from pathlib import Path

import pytest

from ocimig.migrate.store import prune, verify
from ocimig.migrate.store.place import PACKS, QUARANTINE, SNAPSHOTS
from ocimig.migrate.store.store import Store
from ocimig.migrate.store.verify import Verdict
from ocimig_testkit.places import Disk, MemoryPlace
from ocimig_testkit.shelves import Content, again, check, shelf, some, take


def _prepared(cache: Path, *, apart: bool = False) -> tuple[Store, Disk, dict[str, Content]]:
    store = shelf(cache)
    place = store.place
    assert isinstance(place, MemoryPlace)
    wanted = {}
    for number in range(3):
        content = some(random.Random(3 + number))
        if apart:  # nothing in common
            page = random.Random(100 + number).randbytes(4096)
            content = Content({"p1": {0: page, 4096: page[::-1]}}, {}, {f"x{number}": page[:99]})
        wanted[take(store, content, time=float(number)).id] = content
    return store, place.disk, wanted


def _repaired(store: Store) -> Verdict:
    with store.place.lock(exclusive=True, purpose="a test"):
        return verify.repair(store, lambda _: None)


def _verified(store: Store) -> list[str]:
    return verify.verify(store, read_data=1.0, tell=lambda _: None).problems


def test_nothing_happens_to_a_sound_store(tmp_path: Path) -> None:
    """Not a file comes or goes."""
    store, disk, wanted = _prepared(tmp_path)
    before = dict(disk.names)
    assert _repaired(store).problems == []
    assert disk.names == before
    check(store, wanted)


@pytest.mark.parametrize("seed", range(25))
def test_after_any_damage_repair_leaves_a_sound_store(seed: int, tmp_path: Path) -> None:
    """Flips, cuts and losses in one to three files: what is left verifies, reads as it was, and goes on;
    what was lost is named, and every damaged byte is kept in quarantine/."""
    store, disk, wanted = _prepared(tmp_path)
    dice = random.Random(seed)
    damaged: dict[tuple[str, str], bytes] = {}
    files = sorted(key for key in disk.names if key[0] in (PACKS, SNAPSHOTS))
    for key in dice.sample(files, dice.randint(1, 3)):
        data = disk.names[key].data
        how = dice.randrange(3)
        if how == 0:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        elif how == 1:
            del data[dice.randrange(len(data)) :]
        else:
            del disk.names[key]
            continue
        damaged[key] = bytes(data)
    store = again(store, tmp_path)
    verdict = _repaired(store)
    left = {id: content for id, content in wanted.items() if id in store.names()}
    check(store, left)
    store = again(store, tmp_path)
    check(store, left)
    assert _verified(store) == []
    for (_, name), kept in damaged.items():
        assert bytes(disk.names[QUARANTINE, name].data) == kept
    aside = {id for id in wanted for room, name in verdict.bad_files if name.startswith(id)}
    assert set(verdict.lost) | aside <= set(wanted) - set(left)
    content = some(random.Random(99))
    left[take(store, content).id] = content
    check(again(store, tmp_path), left)
    assert _verified(again(store, tmp_path)) == []


def test_who_does_not_touch_the_damage_survives(tmp_path: Path) -> None:
    """One pack of one snapshot: only that snapshot goes, into quarantine, and is named with the reason."""
    store, disk, wanted = _prepared(tmp_path, apart=True)
    victim = list(wanted)[1]
    (snapshot,) = (each for each in store.snapshots() if each.id == victim)
    (number,) = {pack for listed in snapshot.spaces.values() for _, pack, _ in listed}
    (name,) = store.packs.names(number)
    before = {key: bytes(node.data) for key, node in disk.names.items()}
    disk.names[PACKS, name].data[45] ^= 1
    store = again(store, tmp_path)
    verdict = _repaired(store)
    assert set(verdict.lost) == {victim}
    assert verdict.bad_packs == {number}
    del wanted[victim]
    check(store, wanted)
    for key, node in disk.names.items():
        if key in before and key[0] in (PACKS, SNAPSHOTS):
            assert bytes(node.data) == before[key]
    aside = {key[1] for key in disk.names if key[0] == QUARANTINE}
    assert name in aside
    assert any(each.startswith(victim) for each in aside)


def test_what_is_sound_of_a_damaged_pack_is_kept(tmp_path: Path) -> None:
    """A snapshot that needs other frames of the pack is not lost with one frame."""
    dice = random.Random(1)
    store = shelf(tmp_path)
    place = store.place
    assert isinstance(place, MemoryPlace)
    common, alone = dice.randbytes(60_000), dice.randbytes(60_000)
    first = Content({}, {"core-1.img": alone, "files.img": common}, {})
    second = Content({}, {"files.img": common}, {})
    lost, kept = take(store, first).id, take(store, second).id
    (snapshot,) = (each for each in store.snapshots() if each.id == lost)
    (run,) = snapshot.images["core-1.img"].runs
    contents = store.packs.contents(run.pack)
    frame = contents.frame_of(contents.position(run.first))
    at = 40 + sum(each.stored for each in contents.frames[:frame])
    (name,) = store.packs.names(run.pack)
    place.disk.names[PACKS, name].data[at + 7] ^= 1
    store = again(store, tmp_path)
    assert _verified(store) != []
    verdict = _repaired(store)
    assert set(verdict.lost) == {lost}
    check(store, {kept: second})
    assert _verified(again(store, tmp_path)) == []
    (written,) = store.packs.names(run.pack)
    assert written != name
    # what was lost comes again with the next snapshot
    content = {kept: second, take(store, first).id: first}
    check(again(store, tmp_path), content)


def test_damage_of_the_smaller_of_two_files_costs_no_snapshot(tmp_path: Path) -> None:
    """What prune() had begun is not needed: the old file has it all."""
    store, disk, wanted = _prepared(tmp_path)
    first = next(iter(wanted))
    store.forget(first)
    del wanted[first]
    plan, marks = prune.survey(store, most_unused=0.0)
    number = plan.shrink[0].number
    old = set(store.packs.names(number))
    prune.rewrite(store, number, marks.used(number), keep=True)
    store = again(store, tmp_path)
    (new,) = set(store.packs.names(number)) - old
    disk.names[PACKS, new].data[-3] ^= 1
    verdict = _repaired(again(store, tmp_path))
    assert verdict.lost == {}
    assert verdict.problems
    store = again(store, tmp_path)
    check(store, wanted)
    assert _verified(store) == []
