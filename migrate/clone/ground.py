"""What copies of a snapshot stand on: its images and files, taken out of the store once for all of them.

    <home>/<container>.<random>/   0700, locked by flock(2) as long as its maker, or a keeper, is at work
        ocimig-shared, users/      that it is one, and who stands on it (runtime/shared.py)
        images/                    until the copies have been started: their keepers hold the memory open
        trees/bundle, …            the files; the copies' layers lie over them

It goes with the last copy at `delete`. What a crash or a reboot left is removed by the next clone that has the
same home, and by `recover`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ocimig import files, log
from ocimig.errors import OcimigError
from ocimig.migrate.backup import export, files_restore, images, room
from ocimig.migrate.clone import plan
from ocimig.migrate.clone.make import Source
from ocimig.migrate.store.snapshot import Snapshot
from ocimig.migrate.store.store import Store as Repository
from ocimig.runtime import shared
from ocimig.runtime.store import Store

HOME = "/var/lib/ocimig/clones"
_IMAGES = "images"
_TREES = "trees"
_MAKER = ".maker"


@contextmanager
def ground(home: str, store: Store, container: str, names: Sequence[str]) -> Iterator[str]:
    """A new directory for copies with these names, of which those stay on it that were made in the meantime;
    with none of them it is gone afterwards. Raises OSError."""
    os.makedirs(home, mode=0o700, exist_ok=True)
    sweep(home)
    place, lock = room.taken(home, container)
    with lock:
        shared.make(place)
        shared.hold(place, _MAKER, place)
        for name in names:
            shared.hold(place, name, store.path(name))
        try:
            yield place
        finally:
            for name in names:
                if not _stands(store, name, place):
                    shared.release(place, name)
            files.remove_tree(os.path.join(place, _IMAGES))
            shared.release(place, _MAKER)


def take_out(repository: Repository, snapshot: Snapshot, place: str) -> Source:
    """A snapshot's images, with all of its memory, and its files into `place`. The caller holds the store's
    shared lock; the store is not needed afterwards.

    Raises NotClonable, StoreDamaged, FileMissing, NoSpace, and what a restore of the files does.
    """
    config = dict(snapshot.config)
    plan.require(f"snapshot {snapshot.id}", config)
    root_tree, _ = export.root_tree(repository, snapshot)
    os.mkdir(os.path.join(place, _TREES), 0o700)
    for tree in snapshot.trees:
        files_restore.restore(repository.packs, tree.node(), _of_tree(place, tree.name), sync=False)
    root = export.root_in(repository, snapshot, _of_tree(place, root_tree.name))
    made = images.whole(repository, snapshot, os.path.join(place, _IMAGES))
    bundle = _of_tree(place, "bundle")
    return Source(made.directory, made.manifest(), config, bundle, root, ground=place)


def sweep(home: str) -> list[str]:
    """Remove what nobody stands on and nobody makes; what that was. `home` may hold anything else as well."""
    gone = []
    try:
        names = sorted(os.listdir(home))
    except (FileNotFoundError, PermissionError):  # none was made, or by somebody else
        return []
    for name in names:
        place = os.path.join(home, name)
        lock = room.locked(place) if shared.is_one(place) else None
        if lock is None:
            continue
        with lock:
            try:
                if _abandoned(place):
                    gone.append(place)
            except OSError as error:
                log.warning(f"{place} is left: {error.strerror}")
    return gone


def _abandoned(place: str) -> bool:
    """Remove it unless somebody stands on it. Its maker is not at work: we have the lock."""
    known = shared.users(place)
    if not known:
        shared.remove(place)
        return True
    gone = [name for name, state in known.items() if name == _MAKER or not os.path.isdir(state)]
    return sum(shared.release(place, name) for name in gone) > 0


def _of_tree(place: str, name: str) -> str:
    """Where a tree goes: beside the images, whatever its name is."""
    return os.path.join(place, _TREES, name)


def _stands(store: Store, name: str, place: str) -> bool:
    """Whether a copy of that name was made, and on this ground."""
    try:
        return place in store.load(name).shared
    except OcimigError:
        return False
