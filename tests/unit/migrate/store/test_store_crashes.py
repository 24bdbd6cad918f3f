"""Power cuts, full disks, and what both leave of a store: never less than there was before.

The steps are not listed here: each operation is counted once, and then broken at every one of them.
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ocimig.errors import NoSpace
from ocimig.migrate.store import prune, verify
from ocimig.migrate.store.store import Store
from ocimig_testkit.places import Disk, MemoryPlace, PowerCut
from ocimig_testkit.shelves import Content, again, check, content_of, shelf, some, take

Wanted = dict[str, Content]
Act = Callable[[Store, Wanted], None]


def _create(store: Store, wanted: Wanted) -> None:
    with store.place.lock(exclusive=False, purpose="create"):
        take(store, some(random.Random(77)))


def _forget(store: Store, wanted: Wanted) -> None:
    store.forget(min(wanted))


def _prune(store: Store, wanted: Wanted) -> None:
    with store.place.lock(exclusive=True, purpose="prune"):
        plan, marks = prune.survey(store, most_unused=0.0)
        assert prune.perform(store, plan, marks, lambda _: None).problems == []


def _repair(store: Store, wanted: Wanted) -> None:
    with store.place.lock(exclusive=True, purpose="repair"):
        verify.repair(store, lambda _: None)


_ACTS: dict[str, Act] = {"create": _create, "forget": _forget, "prune": _prune, "repair": _repair}


def _prepared(cache: Path, *, damaged: bool = False) -> tuple[Disk, Wanted]:
    """Two snapshots; a third one was forgotten, so that packs can go and can shrink."""
    store = shelf(cache)
    dice = random.Random(5)
    wanted: Wanted = {}
    for _ in range(3):
        content = some(dice)
        wanted[take(store, content).id] = content
    # one pack that nobody needs at all
    lonely = Content({"p1": {0: dice.randbytes(4096)}}, {}, {"x": dice.randbytes(5000)})
    store.forget(take(store, lonely).id)
    first = next(iter(wanted))
    store.forget(first)
    del wanted[first]
    place = store.place
    assert isinstance(place, MemoryPlace)
    if damaged:
        # the last pack is of the forgotten ones: the salt of its head is covered by its name only
        (name,) = store.packs.names(next(iter(store.packs.numbers())))
        place.disk.names["packs", name].data[30] ^= 1
        place.disk.names["packs", name].safe = len(place.disk.names["packs", name].data)
    return place.disk, wanted


def _copied(disk: Disk) -> Disk:
    """As it is, all of it durable."""
    for node in disk.names.values():
        node.safe = len(node.data)
    disk.safe, disk.pending = dict(disk.names), []
    return disk.survivors(random.Random(0))


def _steps(disk: Disk, act: Act, wanted: Wanted, cache: Path) -> int:
    trial = _copied(disk)
    act(again_on(trial, cache), wanted)
    return len(trial.steps)


def again_on(disk: Disk, cache: Path) -> Store:
    """The store on a disk, as a new process opens it."""
    return Store.open(MemoryPlace(disk), None, cache=str(cache))


def _sound(store: Store) -> None:
    verdict = verify.verify(store, read_data=1.0, tell=lambda _: None)
    assert verdict.problems == []


@pytest.mark.parametrize("name", sorted(_ACTS))
def test_a_power_cut_at_any_step_loses_nothing(name: str, tmp_path: Path) -> None:
    """What was there before is there, or was to go; what was made is whole or absent; all goes on."""
    disk, wanted = _prepared(tmp_path / "first", damaged=name == "repair")
    steps = _steps(disk, _ACTS[name], wanted, tmp_path / "count")
    assert steps > (1 if name == "forget" else 8)
    for at in range(1, steps + 1):
        cache = tmp_path / f"cache{at}"
        trial = _copied(disk)
        trial.cut_at = at
        with pytest.raises(PowerCut):
            _ACTS[name](again_on(trial, cache), wanted)
        left = dict(wanted)
        store = again_on(trial.survivors(random.Random(at)), cache)
        there = set(store.names())
        if name == "forget" and min(left) not in there:
            del left[min(left)]
        if name == "create":
            for new in there - set(left):
                left[new] = some(random.Random(77))
        check(store, left)
        if name != "repair":
            _sound(store)
        # and everything goes on, with the cache that the crash left
        content = some(random.Random(at))
        left[take(store, content).id] = content
        if name != "repair":
            _prune(again(store, cache), left)
            last = again(store, cache)
            check(last, left)
            _sound(last)


@pytest.mark.parametrize("name", ["create", "prune", "repair"])
def test_a_disk_that_is_full_from_any_step_on_loses_nothing(name: str, tmp_path: Path) -> None:
    """All snapshots are readable on it, prune works on it, and frees what can be freed without writing."""
    disk, wanted = _prepared(tmp_path / "first", damaged=name == "repair")
    steps = _steps(disk, _ACTS[name], wanted, tmp_path / "count")
    failed = 0
    for at in range(1, steps + 1):
        cache = tmp_path / f"cache{at}"
        trial = _copied(disk)
        trial.fail_at = at
        store = again_on(trial, cache)
        try:
            if name == "prune":
                plan, marks = prune.survey(store, most_unused=0.0)
                done = prune.perform(store, plan, marks, lambda _: None)
                failed += bool(done.problems)
                assert done.removed == len(plan.remove)
            else:
                _ACTS[name](store, wanted)
        except NoSpace:
            failed += 1
        store = again_on(trial, cache)
        left = dict(wanted)
        for new in set(store.names()) - set(left):
            left[new] = some(random.Random(77))
        if name == "repair":
            continue_with = {id: each for id, each in left.items() if id in store.names()}
            assert continue_with == left
        check(store, left)
        trial.fail_at = 1  # full for good: only what frees works
        plan, marks = prune.survey(store, most_unused=1.0)
        done = prune.perform(store, plan, marks, lambda _: None)
        assert done.problems == []
        assert done.removed == len(plan.remove)
        check(again_on(trial, cache), left)
    assert failed > steps // 3


def test_a_failed_create_leaves_no_file_in_the_making(tmp_path: Path) -> None:
    """On a full disk what is left of a pack would keep it full until somebody holds the store alone."""
    disk, wanted = _prepared(tmp_path / "first")
    steps = _steps(disk, _create, wanted, tmp_path / "count")
    for at in range(1, steps + 1):
        trial = _copied(disk)
        trial.fail_at = at
        place = _Watched(trial)
        store = Store.open(place, None, cache=str(tmp_path / f"cache{at}"))
        try:
            take(store, some(random.Random(77)))
        except NoSpace:
            pass
        assert place.open == 0, f"step {at}"


class _Watched(MemoryPlace):
    """Counts the files in the making that nobody gave up."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.open = 0

    def make(self, room: str):  # type: ignore[no-untyped-def]
        """See Place."""
        making = super().make(room)
        self.open += 1
        leave = making.__exit__
        left: list[int] = []

        def once(*about: object) -> None:
            if not left:
                left.append(1)
                self.open -= 1
            leave(*about)

        return _Making(making, once)


class _Making:
    def __init__(self, making: object, leave: Callable[..., None]) -> None:
        self._making = making
        self._leave = leave

    def __getattr__(self, name: str) -> object:
        return getattr(self._making, name)

    def __enter__(self) -> "_Making":
        return self

    def __exit__(self, *about: object) -> None:
        self._leave(*about)


def test_what_a_crash_between_two_files_of_a_pack_left_is_cleared(tmp_path: Path) -> None:
    """The successor is there, the old one too: the larger one counts until prune takes one away."""
    disk, wanted = _prepared(tmp_path / "first")
    trial = _copied(disk)
    store = again_on(trial, tmp_path)
    plan, marks = prune.survey(store, most_unused=0.0)
    number = plan.shrink[0].number
    prune.rewrite(store, number, marks.used(number), keep=True)
    store = again_on(trial, tmp_path)
    assert len(store.packs.names(number)) == 2
    check(store, wanted)
    _sound(store)
    content = some(random.Random(4))
    wanted[take(store, content).id] = content  # which may build upon the larger one
    _prune(again(store, tmp_path), wanted)
    store = again_on(trial, tmp_path)
    assert all(len(store.packs.names(each)) == 1 for each in store.packs.numbers())
    check(store, wanted)
    _sound(store)
    assert all(content_of(store, each) for each in store.snapshots())
