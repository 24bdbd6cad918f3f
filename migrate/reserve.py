"""Takes a name and the directories of a container that is on its way here. Never receives anything.

Two that come at the same time look one after the other, under one lock: a directory that is empty for
both would be filled by one, and emptied by the other.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from ocimig import log
from ocimig.errors import OcimigError
from ocimig.files import Lock
from ocimig.migrate import facts, group, hands, journal, settling
from ocimig.migrate.errors import BrokenFrame, Fenced, PlaceTaken
from ocimig.migrate.hands import Destination
from ocimig.migrate.journal import Journal
from ocimig.runtime.linux import proc
from ocimig.runtime.store import Store, check_id


def reserve(
    store: Store, wanted: Mapping[str, Any], deeds: Destination, host: str
) -> tuple[Journal, Lock]:
    """The journal of a migration that `host` wants to make to here, with everything it says looked at, and
    its lock, held.

    Raises BrokenFrame, ContainerExists, DirectoryNotEmpty, PlaceTaken, and Fenced for an old epoch.
    """
    id = str(wanted["id"])
    check_id(id)
    for path in hands.places(wanted):
        if not os.path.isabs(path) or os.path.normpath(path) != path or path == "/":
            raise BrokenFrame(host=host, reason=f"{path!r} is no place for files")
    home = os.path.abspath(str(wanted["images"]))
    if home not in [os.path.abspath(path) for path in facts.image_homes(store)]:
        raise BrokenFrame(host=host, reason=f"images do not belong in {home}")
    os.makedirs(journal.directory(store), mode=0o700, exist_ok=True)
    with Lock(_reserving(store)):
        deeds.check_free(store, id, wanted)
        journal.prune(store)
        epoch = int(wanted["epoch"])
        if epoch <= journal.epoch(store, id):
            raise Fenced(id=id, target=wanted["source"], migration=wanted["migration"], journal="")
        made = journal.create(
            store, str(wanted["migration"]), "destination",
            id=id, epoch=epoch, source=wanted["source"], bundle=wanted["bundle"],
            images=os.path.join(home, str(wanted["migration"]), "image"), boot_id=proc.boot_id(),
            places=hands.places(wanted), made=hands.missing(hands.places(wanted)),
            **group.facts(wanted),
        )  # fmt: skip
        return made, made.lock().__enter__()


def settle_dead(store: Store, id: str, deeds: Destination) -> None:
    """Bring what agents left that took this name and are gone to its end: else it would be taken for ever."""
    if not os.path.isdir(journal.directory(store)):
        return
    with Lock(
        _reserving(store)
    ):  # whoever reserves right now has its own lock when this one is free
        for entry in journal.of_container(store, id):
            if entry.side == "destination" and not entry.ended:
                try:
                    settling.settle_there(store, entry, deeds)
                except (OcimigError, OSError) as error:  # it stays taken, and `recover` says why
                    log.warning(f"migration {entry.migration}: {error}")


def _reserving(store: Store) -> str:
    return os.path.join(journal.directory(store), ".reserving")


def check_places(store: Store, id: str, places: list[str]) -> None:
    """Raise PlaceTaken where one of these directories is, holds, or lies in one of another container."""
    for path in places:
        real = os.path.realpath(path)
        for other, theirs in _in_use(store, id):
            if _overlap(real, os.path.realpath(theirs)):
                raise PlaceTaken(path=path, theirs=theirs, other=other)


def _in_use(store: Store, id: str) -> Iterator[tuple[str, str]]:
    """The directories of every other container that is here, comes, or left something: whose, and where."""
    for entry in journal.every(store):
        known = entry.facts
        if entry.ended or not entry.records or known["id"] == id:
            continue
        trees = known.get("places") or [tree[0] for tree in known.get("trees") or ()]
        for path in trees:
            yield f"container {known['id']}, whose migration {entry.migration} has no end yet", path
    for other in store.ids():
        if other == id:
            continue
        with suppress(OcimigError):  # it is being made, or deleted
            state = store.load(other)
            for path in filter(None, (state.bundle, state.rootfs)):
                yield f"container {other}", path


def _overlap(one: str, other: str) -> bool:
    return os.path.commonpath((one, other)) in (one, other)
