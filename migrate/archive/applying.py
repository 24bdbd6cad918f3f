"""A root file system brought to the state a checkpoint had it in: deletions first, then the tar over it."""

import os
from collections.abc import Iterable

from ocimig import files
from ocimig.migrate.archive.errors import ArchiveRefused, CannotUnpack
from ocimig.migrate.archive.extract import Unpacking
from ocimig.migrate.archive.planning import Plan
from ocimig.migrate.rootfs import paths
from ocimig.migrate.rootfs.paths import open_directory, split


def deletions(document: object, shown: str) -> list[str]:
    """The names of deleted.files, relative. Raises ArchiveRefused for what cannot be one."""
    if document is None:
        return []
    if not isinstance(document, list) or not all(isinstance(item, str) for item in document):
        raise ArchiveRefused(path=shown, reason="deleted.files is not a list of names")
    found = []
    for name in document:
        path = name.removeprefix("/")
        if wrong := paths.fault(os.fsencode(path)):
            raise ArchiveRefused(path=shown, reason=f"deleted.files: {name!r}: {wrong}")
        found.append(path)
    return found


def apply(rootfs: str, fd: int, plan: Plan, deleted: Iterable[str] = ()) -> list[str]:
    """Change the tree at `rootfs`; what could not be kept, in words.

    Everything was looked at before anything is written; a failure after that (a full disk) leaves the
    tree in between, and the error says so.
    """
    left = f"{rootfs} is not whole: put its base there again"
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with files.Fd(os.open(rootfs, flags)) as root:
        for path in deleted:
            try:
                _delete(root, path)
            except OSError as error:
                reason = f"cannot delete it: {error.strerror}"
                raise CannotUnpack(path=plan.shown, member=path, reason=reason, left=left) from None
        return Unpacking(root, plan, left=left, over=True).run(fd)


def _delete(root: int, path: str) -> None:
    parent, name = split(path)
    try:
        with files.Fd(open_directory(root, parent)) as directory:
            paths.remove(directory, name)
    except FileNotFoundError:
        return
