"""A store is made once, opened by what it says of itself, and gives its snapshots by name."""

import random
import threading
from pathlib import Path

import pytest

from ocimig.migrate.store import local, seal, serve
from ocimig.migrate.store.errors import AmbiguousSnapshot, NoSuchSnapshot, StoreExists, StoreLocked
from ocimig.migrate.store.store import Store
from ocimig_testkit.places import MemoryPlace
from ocimig_testkit.shelves import check, shelf, some, take
from ocimig_testkit.stores import reach


def test_of_two_who_make_a_store_at_once_one_makes_it(tmp_path: Path) -> None:
    """The other is refused: it would believe in an id, and in a key, that nobody has."""
    local.create(str(tmp_path / "store")).close()
    made: list[Store] = []
    refused: list[BaseException] = []
    places = [local.LocalPlace(str(tmp_path / "store")) for _ in range(8)]
    start = threading.Barrier(len(places))

    def make(place: local.LocalPlace) -> None:
        start.wait()
        try:
            made.append(Store.init(place, None, sealed=seal.NONE, cache=str(tmp_path)))
        except (StoreExists, StoreLocked) as error:
            refused.append(error)

    threads = [threading.Thread(target=make, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(refused) == len(places) - 1
    assert Store.open(places[0], None, cache=str(tmp_path)).id == made[0].id
    for place in places:
        place.close()


def test_who_may_only_add_can_make_a_store(tmp_path: Path) -> None:
    """Such a caller cannot hold it alone; there is nothing yet that others could lose."""
    confined = serve.Confined(append_only=True)
    place = reach(tmp_path / "store", confined, create=True)
    store = Store.init(place, None, sealed=seal.NONE, cache=str(tmp_path / "cache"))
    content = some(random.Random(1))
    check(store, {take(store, content).id: content})
    place.close()


def test_a_snapshot_is_found_by_its_begin_or_as_the_latest(tmp_path: Path) -> None:
    """Of all, or of one container; what is not one is refused."""
    store = shelf(tmp_path)
    taken = [
        take(store, some(random.Random(number), 2), container=name, time=float(number))
        for number, name in enumerate(["web", "db", "web", "db"])
    ]
    assert [each.id for each in store.snapshots()] == [each.id for each in taken]
    assert store.find("latest").id == taken[3].id
    assert store.find("latest", "web").id == taken[2].id
    assert store.find(taken[0].id[:15]).id == taken[0].id
    for text in ("", "g", "LATEST"):
        with pytest.raises(NoSuchSnapshot):
            store.find(text)
    with pytest.raises(NoSuchSnapshot):
        store.find("latest", "nosuch")
    while len({each.id[0] for each in taken}) == len(taken):
        taken.append(take(store, some(random.Random(9), 1)))
    begin = next(a.id[0] for a in taken if sum(a.id[0] == b.id[0] for b in taken) > 1)
    with pytest.raises(AmbiguousSnapshot):
        store.find(begin)
    store.forget(taken[0].id)
    with pytest.raises(NoSuchSnapshot):
        store.forget(taken[0].id)


def test_a_damaged_snapshot_hides_no_other(tmp_path: Path) -> None:
    """Lists show what can be read; the other one is a warning."""
    store = shelf(tmp_path)
    taken = [take(store, some(random.Random(n), 2), time=float(n)) for n in range(3)]
    place = store.place
    assert isinstance(place, MemoryPlace)
    place.disk.names["snapshots", store.names()[taken[1].id]].data[-1] ^= 1
    assert [each.id for each in store.snapshots()] == [taken[0].id, taken[2].id]
