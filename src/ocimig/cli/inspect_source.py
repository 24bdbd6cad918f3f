"""What the verbs that look into checkpoints take as IMAGE: a directory, an archive, a snapshot of a store."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ocimig.cli.verbs import Call
from ocimig.criu_images.opened import ImageDirectory, Images
from ocimig.errors import OcimigError, Usage

if TYPE_CHECKING:
    from ocimig.migrate.store.store import Store

SEPARATOR = "::"  # between a store and a snapshot
_STORE, _LAYOUT, _INVENTORY = "STORE", "oci-layout", "inventory.img"


class NoSnapshotNamed(OcimigError):
    """A store was named where a checkpoint is wanted."""

    message = "{path} is a store, not a checkpoint"
    hint = "name a snapshot in it: {path}::latest, or one of: ocimig backup list {path}"
    code = 2


@contextmanager
def sources(call: Call) -> Iterator[Callable[[str], Images]]:
    """What opens an IMAGE of the command line; all that was opened is closed in the end.

    It raises BadImage, NoSnapshotNamed, CannotOpen, NoRoomToLook, and what reading archives and stores does.
    """
    with ExitStack() as held:
        opened = _Opened(call, held)
        yield opened.open


class _Opened:
    def __init__(self, call: Call, held: ExitStack) -> None:
        self._call = call
        self._held = held
        self._stores: dict[str, Store] = {}

    def open(self, image: str) -> Images:
        if os.path.isdir(image):
            there = set(os.listdir(image)) if os.access(image, os.R_OK) else set()
            if _INVENTORY not in there and _LAYOUT in there:
                return self._archive(image)
            if _INVENTORY not in there and _STORE in there:
                raise NoSnapshotNamed(path=image)
            return self._held.enter_context(ImageDirectory(image, self._call.text("within")))
        if os.path.lexists(image):
            return self._archive(image)
        store, separator, snapshot = image.rpartition(SEPARATOR)
        # a colon may be part of an address, a slash is not part of the name of a snapshot
        if separator and store and "/" not in snapshot:
            return self._snapshot(store, snapshot)
        if "://" in image:
            raise NoSnapshotNamed(path=image)
        return self._held.enter_context(ImageDirectory(image, self._call.text("within")))

    def _archive(self, path: str) -> Images:
        from ocimig.cli.commands import archive
        from ocimig.migrate.archive import images

        fd = self._held.enter_context(archive.opened(path))
        return self._held.enter_context(images.opened(fd, path))

    def _snapshot(self, where: str, name: str) -> Images:
        from ocimig.migrate.backup.look import SnapshotImages

        if not name:
            raise Usage(reason=f"{where}{SEPARATOR} names no snapshot", verb=self._call.verb.name)
        store = self._store(where)
        found = store.find(name, self._call.text("container"))
        return self._held.enter_context(SnapshotImages(store, found))

    def _store(self, where: str) -> "Store":
        """Opened once, whatever is looked at in it, and held: what is read must not be removed meanwhile."""
        from ocimig.cli.commands import stores

        if where not in self._stores:
            found = self._held.enter_context(stores.store(self._call, where))
            purpose = self._call.verb.name
            self._held.enter_context(found.place.lock(exclusive=False, purpose=purpose))
            self._stores[where] = found
        return self._stores[where]
