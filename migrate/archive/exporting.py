"""A checkpoint as one archive, in the layout that podman, CRI-O and checkpointctl read.

    captured = capture(rootfs, base, spool)      # while it stands still: what it changed of its files
    write_archive(…)                             # the archive, its manifest, its signature

The file appears whole or not at all.
"""

import calendar
import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ocimig
from ocimig import files, jsonio
from ocimig.criu_images.image import CONFIG as IMAGE_CONFIG
from ocimig.criu_images.image import MANIFEST as IMAGE_MANIFEST
from ocimig.criu_images.image import CheckpointImage, Manifest
from ocimig.errors import NoSpace, OcimigError
from ocimig.files import Fd
from ocimig.migrate.archive import content, difference, manifest, packing, signature, writing
from ocimig.migrate.archive.errors import CannotExport
from ocimig.migrate.archive.members import Member
from ocimig.migrate.archive.writing import Writer
from ocimig.migrate.image_place import full
from ocimig.migrate.rootfs.paths import open_regular

_PLACE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BESIDE = ("dump.log", "stats-dump")  # in the archive beside the images, where others look for them
_NAME_FOR_OTHERS = "io.kubernetes.cri.container-name"  # checkpointctl shows it for unknown engines


@dataclass(frozen=True, slots=True)
class Export:
    """What is asked for. `base` is the tree that the root file system was made from ("" where nobody
    knows: all of it is written), `image_name` the image that an engine would make it from again, as
    NAME@ID: podman wants both."""

    file: str
    compress: str = "zstd"
    key: str = ""
    base: str = ""
    image_name: str = ""
    ignore_rootfs: bool = False


@dataclass(frozen=True, slots=True)
class Captured:
    """What the container changed of its files: a tar on disk ("" for none), and what it removed."""

    tar: str = ""
    deleted: tuple[str, ...] = ()
    kind: str = "ignored"  # or "changes", "whole"


def capture(rootfs: str, wanted: Export, spool: str) -> Captured:
    """Write the changes to `spool`. The tree must stand still. Raises CannotExport, NoSpace."""
    if wanted.ignore_rootfs:
        return Captured()
    try:
        with Fd(os.open(rootfs, _PLACE)) as root, difference.Tree(root) as now:
            if wanted.base:
                with Fd(os.open(wanted.base, _PLACE)) as base, difference.Tree(base) as before:
                    found = difference.compare(before, now)
            else:
                found = difference.whole(now)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with Fd(os.open(spool, flags, 0o600)) as out:
                writer = Writer(packing.pack(out, "none"), spool)
                difference.write(now, found, writer)
                writer.close()
    except OSError as error:
        raise _failure(error, wanted.file) from None
    return Captured(spool, tuple(found.documents()), "changes" if wanted.base else "whole")


def write_archive(image: CheckpointImage, captured: Captured, wanted: Export) -> None:
    """Write the archive of a sealed checkpoint. Raises CannotExport, CannotSign, NoSpace, BadImage."""
    directory, name = os.path.split(os.path.abspath(wanted.file))
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with Fd(os.open(temporary, flags, 0o600)) as out:
            try:
                _write(out, image, captured, wanted)
                os.fsync(out)
                os.rename(temporary, os.path.join(directory, name))
            except BaseException:
                os.unlink(temporary)
                raise
        files.fsync_directory(directory)
    except OSError as error:
        raise _failure(error, wanted.file) from None


def _write(out: int, image: CheckpointImage, captured: Captured, wanted: Export) -> None:
    told, spec = image.manifest(), image.config()
    mtime = _nanoseconds(told.created)
    writer = Writer(packing.pack(out, wanted.compress), wanted.file)

    def put(path: str, data: bytes) -> None:
        writer.add(Member(path.encode(), mtime_ns=mtime), data)

    _put_images(writer, image, told, mtime)
    put(content.CONFIG, _document(engine_config(told, spec, wanted)))
    put(content.SPEC, _document(engine_spec(told, spec)))
    put(content.NETWORK, _document({}))
    with Fd(os.open(image.directory, _PLACE)) as directory:
        for name in _BESIDE:
            if os.path.exists(image.path(name)):
                _put_file(writer, directory, name, name, mtime)
    if captured.tar:
        if captured.deleted:
            put(content.DELETED, _document(list(captured.deleted)))
        parent, name = os.path.split(captured.tar)
        with Fd(os.open(parent, _PLACE)) as directory:
            _put_file(writer, directory, name, content.ROOTFS_DIFF, mtime)
    facts = {
        "id": told.id, "created": told.created, "tool": f"ocimig {ocimig.__version__}",
        "kernel": told.kernel, "architecture": told.architecture, "criu": told.criu,
        "rootfs": captured.kind,
    }  # fmt: skip
    listed = manifest.document(writer.members, facts)
    writer.add(writing.directory(manifest.DIRECTORY.encode(), mtime))
    put(manifest.NAME, listed)
    if wanted.key:
        put(manifest.SIGNATURE, signature.sign(listed, wanted.key))
    writer.close()


def _put_images(writer: Writer, image: CheckpointImage, told: Manifest, mtime: int) -> None:
    """CRIU's images and our two documents; each as the checkpoint's own manifest has it."""
    writer.add(writing.directory(content.IMAGES.encode(), mtime))
    with Fd(os.open(image.directory, _PLACE)) as directory:
        for name in sorted({*told.files, IMAGE_CONFIG, IMAGE_MANIFEST}):
            path = f"{content.IMAGES}/{name}"
            _put_file(writer, directory, name, path, mtime)
            wanted = told.files.get(name)
            member, digest = writer.members[path]
            if wanted is not None and (member.size, digest) != (wanted["size"], wanted["sha256"]):
                reason = f"{name} is not what its checkpoint says"
                raise CannotExport(path=image.directory, reason=reason)


def _put_file(writer: Writer, directory: int, name: str, path: str, mtime: int) -> None:
    with Fd(open_regular(directory, name, os.O_RDONLY)) as file:
        writer.add_file(Member(path.encode(), mtime_ns=mtime), file)


def engine_config(told: Manifest, spec: Mapping[str, Any], wanted: Export) -> dict[str, Any]:
    """config.dump: the names that engines and checkpointctl look for."""
    annotations = spec.get("annotations") or {}
    named = wanted.image_name or str(annotations.get("io.container.image") or "")
    image, _, image_id = named.partition("@")
    image_id = image_id.removeprefix("sha256:")
    return {
        "id": _engine_id(told), "name": told.id, "rootfsImage": image_id, "rootfsImageRef": image_id,
        "rootfsImageID": image_id, "rootfsImageName": image, "runtime": "ocimig", "createdTime": told.created,
        "checkpointedTime": told.created, "restoredTime": "0001-01-01T00:00:00Z", "restored": False,
    }  # fmt: skip


def _engine_id(told: Manifest) -> str:
    """Engines cut 64 hexadecimal digits to the 12 that they show; other names become such digits."""
    if len(told.id) == 64 and not set(told.id) - set("0123456789abcdef"):
        return told.id
    return hashlib.sha256(f"{told.id} {told.created}".encode()).hexdigest()


def engine_spec(told: Manifest, spec: Mapping[str, Any]) -> dict[str, Any]:
    """spec.dump: config.json, with the name under which checkpointctl shows a container."""
    annotations = dict(spec.get("annotations") or {})
    annotations.setdefault(_NAME_FOR_OTHERS, told.id)
    return {**spec, "annotations": annotations}


def _document(value: Any) -> bytes:
    return jsonio.dumps(value, 2).encode()


def _nanoseconds(created: str) -> int:
    try:
        return calendar.timegm(time.strptime(created, "%Y-%m-%dT%H:%M:%SZ")) * 10**9
    except ValueError:
        return 0


def _failure(error: OSError, path: str) -> OcimigError:
    space: NoSpace | None = full(error, path)
    if space is not None:
        return space
    shown = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return CannotExport(path=path, reason=shown, remedy="name a directory that can be written to")
