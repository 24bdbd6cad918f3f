"""A snapshot as one archive: what `checkpoint --export` would have made of that moment."""

import os

from ocimig.files import Fd
from ocimig.migrate.archive import carry, exporting
from ocimig.migrate.archive.exporting import Export
from ocimig.migrate.backup import files_restore, images
from ocimig.migrate.rootfs.paths import open_directory
from ocimig.migrate.store.snapshot import Snapshot, Tree
from ocimig.migrate.store.store import Store

_PLACE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def export(repository: Store, snapshot: Snapshot, wanted: Export) -> None:
    """Write the archive; it appears whole or not at all. Its images and files are made beside it first,
    which takes as much room again. The caller holds the store's shared lock.

    Raises StoreDamaged, FileMissing, BadImage, CannotExport, CannotSign, NoSpace, and what a restore of
    the files does.
    """
    carry.refuse_directory(wanted)
    place = carry.beside(wanted.file)
    try:
        made = images.whole(repository, snapshot, os.path.join(place, "image"))
        rootfs = ""
        if not wanted.ignore_rootfs:
            rootfs = _rootfs(repository, snapshot, os.path.join(place, "tree"))
        captured = exporting.capture(rootfs, wanted, os.path.join(place, "rootfs.tar"))
        exporting.write_archive(made, captured, wanted)
    finally:
        carry.remove(place)


def _rootfs(repository: Store, snapshot: Snapshot, place: str) -> str:
    """Its root file system as a directory: the tree of that name, or a part of the bundle."""
    tree, _ = root_tree(repository, snapshot)
    os.mkdir(place, 0o700)
    files_restore.restore(repository.packs, tree.node(), place, sync=False)
    return root_in(repository, snapshot, place)


def root_in(repository: Store, snapshot: Snapshot, place: str) -> str:
    """The root file system in `place`, where the tree that has it was restored. Raises StoreDamaged."""
    _, inside = root_tree(repository, snapshot)
    if not inside:
        return place
    try:
        # A link in there must not lead to the files of this host.
        with Fd(os.open(place, _PLACE)) as root, Fd(open_directory(root, inside)):
            return os.path.join(place, inside)
    except OSError as error:
        reason = f"its root file system {inside!r}: {error.strerror}"
        raise images.damaged(repository, snapshot, reason) from None


def root_tree(repository: Store, snapshot: Snapshot) -> tuple[Tree, str]:
    """The tree that has the root file system, and where in it. Raises StoreDamaged."""
    trees = {each.name: each for each in snapshot.trees}
    if "rootfs" in trees:
        return trees["rootfs"], ""
    bundle, root = trees.get("bundle"), snapshot.config.get("root")
    path = root.get("path") if isinstance(root, dict) else None
    if bundle is None or not isinstance(path, str):
        raise images.damaged(repository, snapshot, "it has no root file system")
    inside = os.path.relpath(os.path.join(bundle.path, path), bundle.path)
    if inside == "." or inside.split("/")[0] == "..":
        raise images.damaged(repository, snapshot, f"its root file system {path!r} is not in it")
    return bundle, inside
