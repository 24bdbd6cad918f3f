"""A running container into an archive, and back from one: where the archive meets CRIU."""

import os
import tempfile
from collections.abc import Callable, Collection
from dataclasses import replace

from ocimig import files, log
from ocimig.errors import Usage
from ocimig.migrate import checkpoint as checkpoint_room
from ocimig.migrate import restore as restore_room
from ocimig.migrate.archive import content, exporting, importing
from ocimig.migrate.archive.content import Signers
from ocimig.migrate.archive.errors import CannotExport
from ocimig.migrate.archive.exporting import Captured, Export
from ocimig.migrate.archive.importing import ImportPlan, Prepared
from ocimig.migrate.checkpoint import CheckpointOptions
from ocimig.migrate.frozen import Frozen
from ocimig.migrate.restore_request import Connect, RestoreOptions
from ocimig.runtime.store import Store

_NOT_WITH_EXPORT = ("parent_path", "pre_dump", "lazy_pages", "page_server")


def checkpoint_to(store: Store, id: str, wanted: CheckpointOptions, export: Export) -> None:
    """Checkpoint a container into an archive.

    Without `leave_running` the archive is whole and on disk before the container is given up: whatever
    fails, it runs on. With it only its files are copied while it stands still, and the archive is written
    when it runs again. An `image_path` of the caller is kept beside the archive; `wanted` is as for
    checkpoint(). Raises what that does, CannotExport, CannotSign, NoSpace.
    """
    _refuse(wanted, export)
    place = beside(export.file)
    made: list[Captured] = []

    def on_frozen(frozen: Frozen) -> None:
        rootfs = str(frozen.manifest.facts["state"]["rootfs"])
        made.append(exporting.capture(rootfs, export, os.path.join(place, "rootfs.tar")))
        if not wanted.leave_running:
            exporting.write_archive(frozen.image, made[0], export)

    image_path = wanted.image_path or os.path.join(place, "image")
    try:
        image = checkpoint_room.checkpoint(
            store, id, replace(wanted, image_path=image_path), on_frozen=on_frozen
        )
        if wanted.leave_running:
            exporting.write_archive(image, made[0], export)
    except BaseException:
        if not os.path.exists(os.path.join(image_path, checkpoint_room.LOG)):
            remove(place)  # else CRIU's log stays, as after any checkpoint that failed
        raise
    remove(place)


def look(
    fd: int, shown: str, *, signers: Signers | None = None, granted: Collection[str] = ()
) -> ImportPlan:
    """What a restore from the archive would do; nothing is written. `granted` are words of asks.GRANTS."""
    return importing.plan_import(content.read(fd, shown, signers=signers), granted)


def restore_from(
    store: Store,
    id: str,
    fd: int,
    plan: ImportPlan,
    wanted: RestoreOptions,
    connect: Callable[[str], Connect | None],
) -> int:
    """Restore from the archive that `look` saw through the same descriptor; the container's exit code, or
    0 with `detach`. `connect` is called with the image directory. The bundle of `wanted` is made, or its
    root file system changed; what was made is removed again when the container does not come to run."""
    work = wanted.work_path or f"{os.path.abspath(wanted.bundle)}.restore"
    with Prepared(fd, plan, wanted.bundle) as made:
        options = replace(
            wanted, image_path=made.images, bundle=made.bundle, work_path=work,
            connect=connect(made.images),
        )  # fmt: skip
        # From the moment it may run, what it writes into its bundle is its own: whatever fails then.
        code = restore_room.restore_and_wait(store, id, options, on_restored=lambda _: made.keep())
    if not wanted.work_path:
        remove(work)
    return code


def _refuse(wanted: CheckpointOptions, export: Export) -> None:
    for name in _NOT_WITH_EXPORT:
        if getattr(wanted, name):
            option = name.replace("_", "-")
            reason = f"--{option} and --export: an archive holds all of the memory"
            raise Usage(reason=reason, verb="checkpoint")
    refuse_directory(export)


def refuse_directory(export: Export) -> None:
    """Raises CannotExport where a directory has the name of the archive."""
    if os.path.isdir(export.file):
        raise CannotExport(path=export.file, reason="it is a directory", remedy="name a file in it")


def beside(file: str) -> str:
    """A new private directory for what an archive is made of. Raises CannotExport."""
    directory, name = os.path.split(os.path.abspath(file))
    try:
        return tempfile.mkdtemp(prefix=f"{name}.", suffix=".partial", dir=directory)
    except OSError as error:
        reason = f"{directory}: {error.strerror}"
        raise CannotExport(path=file, reason=reason, remedy="make that directory") from None


def remove(place: str) -> None:
    """It is gone, or a warning says that it is not."""
    try:
        files.remove_tree(place)
    except OSError as error:
        log.warning(f"{place} could not be removed: {error}")
