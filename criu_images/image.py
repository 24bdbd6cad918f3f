"""A checkpoint as a directory: CRIU's files, our config.json, and a manifest that is written last.

    <directory>/            0700
        *.img               CRIU's images
        config.json         what the container was made from; a restore works from this one
        descriptors.json    what its standard streams were (runc's name and form)
        parent              a relative link, when the memory is based on an earlier checkpoint
        manifest.json       version 1: see MANIFEST below; a checkpoint without it is not whole
        dump.log, restore.log, stats-*    for people; in no manifest

MANIFEST: {"version": 1, "id", "created", "criu", "kernel", "architecture", "options": {...},
"facts": {...}, "parent": path or null, "files": {name: {"size": n, "sha256": hex}, ...}}

CRIU notices neither a changed page nor a swapped file, and never returns from a truncated pages image:
so nothing is handed to it that does not match the manifest. A reader ignores names it does not know.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ocimig import files, jsonio
from ocimig.criu_images.errors import BadImage
from ocimig.files import Fd

VERSION = 1
MANIFEST = "manifest.json"
CONFIG = "config.json"
DESCRIPTORS = "descriptors.json"
PARENT = "parent"
_LARGEST_MANIFEST = 64 << 20
_LONGEST_CHAIN = 64
_LOOSE = ("stats-", "irmap-cache", ".")  # written late or for people: not part of the checkpoint


@dataclass(slots=True)
class Manifest:
    """What the checkpoint is and what its files are."""

    id: str
    created: str = ""
    criu: str = ""
    kernel: str = ""
    architecture: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    parent: str | None = None
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> str:
        """The document, for people too."""
        names = Manifest.__slots__
        return jsonio.dumps(
            {"version": VERSION, **{name: getattr(self, name) for name in names}}, 1
        )

    @classmethod
    def new(cls, id: str, criu: str) -> "Manifest":
        """For a checkpoint taken now, here."""
        system = os.uname()
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return cls(id, created, criu, system.release, system.machine)


@dataclass(frozen=True, slots=True)
class CheckpointImage:
    """A checkpoint directory, whole or in the making."""

    directory: str

    def path(self, name: str) -> str:
        """Where a file of it is."""
        return os.path.join(self.directory, name)

    def exists(self) -> bool:
        """Whether it was sealed."""
        return os.path.exists(self.path(MANIFEST))

    def write_json(self, name: str, value: Any) -> None:
        """Keep a document of ours in it."""
        files.write_atomic(self.path(name), jsonio.dumps(value).encode(), sync=False)

    def config(self) -> dict[str, Any]:
        """The configuration of the container. Raises BadImage."""
        value = self._document(CONFIG)
        if not isinstance(value, dict):
            raise BadImage(path=self.directory, reason=f"{CONFIG} is not an object")
        return value

    def manifest(self) -> Manifest:
        """Read manifest.json without looking at the files. Raises BadImage."""
        value = self._document(MANIFEST)
        if not isinstance(value, dict) or not isinstance(value.get("files"), dict):
            raise BadImage(path=self.directory, reason=f"{MANIFEST} is not one of ours")
        version = value.pop("version", None)
        if version != VERSION:
            raise BadImage(
                path=self.directory,
                reason=f"its version is {version}, this is a reader of {VERSION}",
            )
        names = set(Manifest.__slots__)
        try:
            return Manifest(**{name: inner for name, inner in value.items() if name in names})
        except TypeError:
            raise BadImage(path=self.directory, reason=f"{MANIFEST} has no id") from None

    def _document(self, name: str) -> Any:
        try:
            return jsonio.loads(files.read(self.path(name), limit=_LARGEST_MANIFEST))
        except FileNotFoundError:
            reason = "there is no such directory"
            if os.path.isdir(self.directory):
                reason = f"{name} is missing: the checkpoint was never finished, or is not one"
            raise BadImage(path=self.directory, reason=reason) from None
        except (OSError, ValueError) as error:
            raise BadImage(path=self.directory, reason=f"{name}: {error}") from None

    def seal(self, manifest: Manifest) -> Manifest:
        """Hash every file, make all of it durable, write the manifest last."""
        manifest.files = {}
        with Fd(os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
            for name in self._names(directory):
                with Fd(_open(name, directory)) as fd:
                    os.fchmod(fd, 0o600)
                    manifest.files[name] = _digest(fd)
                    os.fsync(fd)
            manifest.parent = _link(directory)
            os.fsync(directory)
        files.write_atomic(self.path(MANIFEST), manifest.to_json().encode())
        return manifest

    def verify(self) -> Manifest:
        """Check every file against the manifest, and the parents likewise. Raises BadImage."""
        return self._verify(0)

    def _verify(self, depth: int) -> Manifest:
        if depth > _LONGEST_CHAIN:
            raise BadImage(path=self.directory, reason="its parents form a ring")
        manifest = self.manifest()
        with Fd(os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
            for name, wanted in manifest.files.items():
                self._check(directory, name, wanted)
            extra = set(self._names(directory)) - set(manifest.files)
            if extra:
                raise self._refusal(f"{min(extra)} is not part of it")
            if _link(directory) != manifest.parent:
                raise self._refusal("its parent link was changed")
        if manifest.parent is not None:
            above = os.path.join(self.directory, manifest.parent)
            CheckpointImage(os.path.normpath(above))._verify(depth + 1)
        return manifest

    def _check(self, directory: int, name: str, wanted: Mapping[str, Any]) -> None:
        if "/" in name or name in {"", ".", ".."}:
            raise self._refusal(f"{name!r} is no file name")
        try:
            fd = _open(name, directory)
        except OSError as error:
            raise self._refusal(f"{name}: {error.strerror}") from error
        with Fd(fd):
            size = os.fstat(fd).st_size
            if size != wanted.get("size"):
                raise self._refusal(f"{name} has {size} bytes and should have {wanted.get('size')}")
            if _digest(fd)["sha256"] != wanted.get("sha256"):
                raise self._refusal(f"the content of {name} was changed")

    def _refusal(self, reason: str) -> BadImage:
        return BadImage(path=self.directory, reason=reason)

    def _names(self, directory: int) -> list[str]:
        """The files that make up the checkpoint: images and the two documents of ours."""
        with os.scandir(directory) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(_LOOSE)
                and (entry.name.endswith(".img") or entry.name in {CONFIG, DESCRIPTORS})
            )

    def remove_files(self) -> None:
        """Remove what belongs to the checkpoint, manifest first; logs stay."""
        for name in (MANIFEST, PARENT):
            _unlink(self.path(name))
        try:
            with Fd(os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
                for name in self._names(fd):
                    os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            pass

    def move_to(self, other: "CheckpointImage", names: Iterable[str] = ()) -> None:
        """Move every file, the manifest last, into the directory of `other` on the same file system."""
        with os.scandir(self.directory) as entries:
            there = sorted(entry.name for entry in entries)
        chosen = list(names) or [name for name in there if name != MANIFEST]
        for name in chosen:
            os.rename(self.path(name), other.path(name))
        if not names and MANIFEST in there:
            files.fsync_directory(other.directory)
            os.rename(self.path(MANIFEST), other.path(MANIFEST))
            files.fsync_directory(other.directory)


def _open(name: str, directory: int) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return fd


def _digest(fd: int) -> dict[str, Any]:
    digest = hashlib.sha256()
    buffer = bytearray(1 << 20)
    view = memoryview(buffer)
    size = 0
    while count := os.preadv(fd, [buffer], size):
        digest.update(view[:count])
        size += count
    return {"size": size, "sha256": digest.hexdigest()}


def _link(directory: int) -> str | None:
    try:
        return os.readlink(PARENT, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError:
        return ""  # something else of that name: never equal to a manifest's


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
