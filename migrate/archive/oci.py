"""A checkpoint as an OCI image: one layer that is the archive. A directory, or one tar of it.

    oci-layout, index.json          annotated; containerd looks here
    blobs/sha256/<hex>              manifest (annotated; podman and CRI-O look here), config, layer

skopeo and oras carry it to a registry and back; nothing here speaks to one.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ocimig import files, jsonio
from ocimig.files import Fd
from ocimig.migrate.archive import packing, planning, writing
from ocimig.migrate.archive.content import Contents
from ocimig.migrate.archive.errors import ArchiveBroken, NoCheckpoint
from ocimig.migrate.archive.headers import Reader
from ocimig.migrate.archive.limits import JSON_BYTES, Limits, Rules
from ocimig.migrate.archive.members import Member
from ocimig.migrate.archive.packing import Unpacked
from ocimig.migrate.archive.writing import Writer

LAYOUT, INDEX, BLOBS = "oci-layout", "index.json", "blobs/sha256"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_SUFFIX = {"zstd": "+zstd", "gzip": "+gzip", "none": ""}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_PIECE = 1 << 20
_PODMAN, _CRIO, _COMMON = (
    "io.podman.annotations.checkpoint.", "io.kubernetes.cri-o.annotations.checkpoint.",
    "org.criu.checkpoint.",
)  # fmt: skip


def annotations(contents: Contents) -> dict[str, str]:
    """All three families of names, so that podman, CRI-O, containerd and checkpointctl each find theirs."""
    told = contents.manifest or {}
    config = contents.config
    image, id = contents.image, str(config.get("rootfsImage") or config.get("rootfsImageID") or "")
    runtime = str(config.get("runtime") or config.get("ociRuntime") or "")
    found = {
        f"{_PODMAN}name": contents.name, f"{_PODMAN}rawImageName": image,
        f"{_PODMAN}rootfsImageName": image, f"{_PODMAN}rootfsImageID": id,
        f"{_PODMAN}runtime.name": runtime, f"{_PODMAN}criu.version": told.get("criu", ""),
        f"{_PODMAN}host.arch": _architecture(told), f"{_PODMAN}host.kernel": told.get("kernel", ""),
        f"{_CRIO}name": contents.name, f"{_CRIO}rawImageName": image,
        f"{_CRIO}rootfsImageName": image, f"{_CRIO}rootfsImageID": id,
        f"{_COMMON}engine.name": contents.maker, f"{_COMMON}container.name": contents.name,
        f"{_COMMON}engine.version": str(told.get("tool", "")).partition(" ")[2],
        f"{_COMMON}rootfsImageName": image, f"{_COMMON}rawImageName": image,
        f"{_COMMON}rootfsImageID": id, f"{_COMMON}runtime.name": runtime,
        f"{_COMMON}criu.version": told.get("criu", ""),
        f"{_COMMON}host.arch": _architecture(told), f"{_COMMON}host.kernel": told.get("kernel", ""),
    }  # fmt: skip
    return {name: value for name, value in sorted(found.items()) if value}


def write(fd: int, contents: Contents, out: str, *, compress: str) -> None:
    """Make the image in the directory `out`, which must not exist, or as a tar where it ends in .tar.

    `fd` is the archive. Raises OSError; nothing is left then.
    """
    place = tempfile.mkdtemp(prefix=".oci-", dir=os.path.dirname(os.path.abspath(out)))
    try:
        _layout(fd, contents, place, compress)
        if out.endswith(".tar"):
            _as_tar(place, out, contents)
        else:
            os.chmod(place, 0o700)
            os.rename(place, out)
    finally:
        with suppress(FileNotFoundError):
            files.remove_tree(place)


def _layout(fd: int, contents: Contents, place: str, compress: str) -> None:
    os.makedirs(os.path.join(place, BLOBS))
    layer, plain = _layer(fd, contents, place, compress)
    notes = annotations(contents)
    config = _blob(place, _CONFIG, {
        "created": contents.created or None, "architecture": _architecture(contents.manifest or {}),
        "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [f"sha256:{plain}"]},
    })  # fmt: skip
    manifest = _blob(place, _MANIFEST, {
        "schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": [layer],
        "annotations": notes,
    })  # fmt: skip
    index = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**manifest, "annotations": {
            "org.opencontainers.image.ref.name": "latest", **notes}}],
        "annotations": notes,
    }  # fmt: skip
    _write(place, INDEX, jsonio.dumps(index, 1).encode())
    _write(place, LAYOUT, jsonio.dumps({"imageLayoutVersion": "1.0.0"}).encode())


def _layer(fd: int, contents: Contents, place: str, compress: str) -> tuple[dict[str, Any], str]:
    """The archive as a blob; its descriptor, and the digest of what it unpacks to."""
    plain = hashlib.sha256()
    temporary = os.path.join(place, "layer")
    rules = contents.plan.rules
    stream = Unpacked(fd, rules.limits, contents.plan.shown)
    with Fd(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)) as out:
        sink = packing.pack(out, compress)
        while data := stream.read(_PIECE):
            plain.update(data)
            sink.write(data)
        sink.close()
        digest, size = _digest(out), os.fstat(out).st_size
        os.fsync(out)
    os.rename(temporary, os.path.join(place, BLOBS, digest))
    media = _LAYER + _SUFFIX[compress]
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": size}, plain.hexdigest()


def _blob(place: str, media: str, value: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: inner for name, inner in value.items() if inner is not None}
    data = jsonio.dumps(kept, 1).encode()
    digest = hashlib.sha256(data).hexdigest()
    _write(place, os.path.join(BLOBS, digest), data)
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}


def _write(place: str, name: str, data: bytes) -> None:
    files.write_atomic(os.path.join(place, name), data)


def _as_tar(place: str, out: str, contents: Contents) -> None:
    step = contents.plan.steps[0]
    mtime = step.member.mtime_ns
    temporary = f"{out}.{os.getpid()}.tmp"
    try:
        with Fd(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)) as file:
            writer = Writer(packing.pack(file, "none"), out)
            for name in ("blobs", BLOBS):
                writer.add(writing.directory(name.encode(), mtime))
            blobs = [os.path.join(BLOBS, name) for name in sorted(os.listdir(f"{place}/{BLOBS}"))]
            for name in [*blobs, INDEX, LAYOUT]:
                with Fd(os.open(os.path.join(place, name), os.O_RDONLY | os.O_CLOEXEC)) as data:
                    writer.add_file(Member(name.encode(), mode=0o600, mtime_ns=mtime), data)
            writer.close()
            os.fsync(file)
        os.rename(temporary, out)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


# -- and back ----------------------------------------------------------------------------------------------


def open_archive(path: str) -> int:
    """A descriptor of the archive that is at `path`: a file, or the layer of an image there.

    What comes back of an image was compared with its digest. Raises ArchiveBroken, ArchiveRefused,
    NoCheckpoint, OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with Fd(fd) as held:
        try:
            os.listdir(held)
        except NotADirectoryError:
            if not _is_image(held):
                return os.dup(held)
            return _from_tar(held, path)
        return _from_directory(held, path)


def _is_image(fd: int) -> bool:
    """Whether a file is a tar of an image: such tars are plain, and blobs/ is what they begin with."""
    head = os.pread(fd, 512, 0)
    return (len(head) == 512 and head[:6] == b"blobs/") or head[:10] == b"oci-layout"


def _from_directory(directory: int, shown: str) -> int:
    def opened(name: str) -> int:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(name, flags, dir_fd=directory)

    def document(name: str) -> bytes:
        with Fd(opened(name)) as fd:
            return os.read(fd, JSON_BYTES)

    digest = _layer_of(document, shown)
    fd = opened(f"{BLOBS}/{digest}")
    if _digest(fd) != digest:
        os.close(fd)
        raise ArchiveBroken(path=shown, reason=f"the layer is not the one of digest {digest}")
    return fd


def _from_tar(fd: int, shown: str) -> int:
    rules = Rules(Limits())
    names = {step.member.path.decode("utf-8", "replace"): step
             for step in planning.plan(fd, rules, shown).steps}  # fmt: skip
    small = [name for name, step in names.items() if step.member.size <= JSON_BYTES]
    documents = _documents(fd, rules.limits, shown, small)
    digest = _layer_of(lambda name: documents[name], shown)
    wanted = f"{BLOBS}/{digest}".encode()
    out = os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        reader = Reader(Unpacked(fd, rules.limits, shown), rules.limits, shown)
        for member in reader.members():
            if member.path == wanted:
                for _, data in reader.data():
                    files.write_all(out, data)
        if _digest(out) != digest:
            reason = f"the layer is not the one of digest {digest}"
            raise ArchiveBroken(path=shown, reason=reason)
    except BaseException:
        os.close(out)
        raise
    return out


def _documents(fd: int, limits: Limits, shown: str, names: list[str]) -> dict[str, bytes]:
    """Small members that are JSON, at most a few."""
    reader = Reader(Unpacked(fd, limits, shown), limits, shown)
    found: dict[str, bytes] = {}
    for member in reader.members():
        name = member.path.decode("utf-8", "replace")
        if name in names and len(found) < 64:
            found[name] = b"".join(data for _, data in reader.data())
    return found


def _layer_of(document: Callable[[str], bytes], shown: str) -> str:
    """Follow the digests: index, manifest, the one layer."""
    try:
        index = jsonio.loads(document(INDEX))
        manifest_digest = _hex(index["manifests"][0]["digest"])
        data = document(f"{BLOBS}/{manifest_digest}")
        if hashlib.sha256(data).hexdigest() != manifest_digest:
            raise ArchiveBroken(path=shown, reason="the manifest is not the one of its digest")
        layers = jsonio.loads(data)["layers"]
        if len(index["manifests"]) != 1 or len(layers) != 1:
            raise NoCheckpoint(
                path=shown, reason="it is an image of more than one layer or platform"
            )
        return _hex(layers[0]["digest"])
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OSError) as error:
        raise NoCheckpoint(path=shown, reason=f"its {INDEX} leads to no layer ({error})") from None


def _hex(digest: str) -> str:
    kind, _, value = digest.partition(":")
    if kind != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError(f"{digest[:80]!r} is not a digest")
    return value


def _digest(fd: int) -> str:
    digest, at = hashlib.sha256(), 0
    while data := os.pread(fd, _PIECE, at):
        digest.update(data)
        at += len(data)
    return digest.hexdigest()


def _architecture(told: Mapping[str, Any]) -> str:
    machine = str(told.get("architecture") or os.uname().machine)
    return _ARCHITECTURES.get(machine, machine)
