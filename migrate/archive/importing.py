"""A container back from an archive: decide everything, then unpack, build the bundle, and hand over.

    plan = plan_import(contents, granted)      # pure; can be printed
    with Prepared(fd, plan, bundle) as made:   # the bundle, and the images in a private directory
        restore(store, id, RestoreOptions(image_path=made.images, bundle=bundle, …))
        made.keep()

What it made is removed when it is left without `keep`; the private directory always.
"""

import os
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from ocimig import files, jsonio, log
from ocimig.criu_images import binary, mounts, screening
from ocimig.criu_images.image import CONFIG, MANIFEST, CheckpointImage, Manifest
from ocimig.errors import NoSpace
from ocimig.files import Fd
from ocimig.migrate.archive import applying, asks, content, engine_files, planning
from ocimig.migrate.archive.asks import Decision
from ocimig.migrate.archive.content import Contents
from ocimig.migrate.archive.errors import ArchiveRefused, CannotUnpack, NoCheckpoint, NotGranted
from ocimig.migrate.archive.extract import extract
from ocimig.migrate.archive.foreign import in_own_terms
from ocimig.migrate.archive.limits import Rules
from ocimig.migrate.archive.members import legible
from ocimig.migrate.external import External
from ocimig.migrate.restore_request import of_bundle
from ocimig.migrate.rootfs import paths

ROOTFS = "rootfs"
_RESERVE = 64 << 20  # bytes that stay free for others


@dataclass(slots=True)
class ImportPlan:
    """What is going to be done with an archive. `facts` are those of ocimig's own checkpoints."""

    contents: Contents
    decision: Decision
    granted: frozenset[str]
    facts: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> Iterator[str]:
        """Lines for a person: what it is, who made it, what it asks for, what is unpacked."""
        return map(legible, self._lines())

    def _lines(self) -> Iterator[str]:
        held = self.contents
        by = f"signed by {held.signer}" if held.signer else (
            "signed, by whom was not checked" if held.signed else "not signed"
        )  # fmt: skip
        yield f"checkpoint of {held.name or '?'} ({held.id or 'no id'}), made by {held.maker}, {by}"
        if held.image:
            yield f"from the image {held.image}"
        yield f"{held.processes} processes, {held.plan.size} bytes, {held.created or 'no date'}"
        yield "restoring it runs the memory and the credentials that are in it"
        for item in self.decision.asked:
            yield item.describe()
        if self.whole:
            yield "the root file system is made from the archive"
        elif held.holds(content.ROOTFS_DIFF):
            deleted = len(held.documents.get(content.DELETED) or [])
            yield f"the root file system is changed by {content.ROOTFS_DIFF}, {deleted} deletions"
        for note in held.notes:
            yield f"left out: {note}"

    @property
    def whole(self) -> bool:
        """Whether the archive has all of the root file system."""
        return bool((self.contents.manifest or {}).get("rootfs") == "whole")


def plan_import(contents: Contents, granted: Collection[str]) -> ImportPlan:
    """Decide. Raises ArchiveRefused for what cannot be a checkpoint's document."""
    allowed = frozenset(asks.GRANTS) if "all" in granted else frozenset(granted)
    shown = contents.plan.shown
    try:
        decision = asks.decide(contents.spec, allowed)
        plan = ImportPlan(contents, decision, allowed)
        ours = contents.documents.get(content.OUR_MANIFEST)
        if ours is not None:
            plan.facts = asks.decide_facts(ours.get("facts") or {}, decision, allowed)
            plan.options = dict(ours.get("options") or {})
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArchiveRefused(path=shown, reason=f"a document of it is odd: {error}") from None
    applying.deletions(contents.documents.get(content.DELETED), shown)
    return plan


def require_grants(plan: ImportPlan) -> None:
    """Raises NotGranted naming all that is missing, and how to grant it."""
    if wanting := plan.decision.wanting:
        asked = [item.what for item in plan.decision.asked if item.verdict == asks.WANTED]
        raise NotGranted(
            path=plan.contents.plan.shown,
            asked="; ".join(asked[:20]),
            remedy=" ".join(f"--allow {grant}" for grant in wanting),
        )


class Prepared:
    """A bundle and images ready for a restore. `images` is the checkpoint directory."""

    def __init__(self, fd: int, plan: ImportPlan, bundle: str) -> None:
        self._fd = fd
        self._plan = plan
        self.bundle = os.path.abspath(bundle)
        self._made: list[str] = []  # to be removed unless kept
        self._filled = ""  # a directory that was there, empty
        self._private = ""
        self._kept = False

    @property
    def images(self) -> str:
        """The directory that migrate.restore works from."""
        return os.path.join(self._private, "archive", content.IMAGES)

    def keep(self) -> None:
        """The container runs: the bundle is its own now."""
        self._kept = True

    def __enter__(self) -> "Prepared":
        require_grants(self._plan)
        try:
            self._prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        doomed = [self._private] if self._private else []
        if not self._kept:
            doomed += reversed(self._made)
            doomed.append(self._filled)
        for path in filter(None, doomed):
            try:
                if path == self._filled:
                    self._empty(path)
                    continue
                files.remove_tree(path) if os.path.isdir(path) else os.unlink(path)
            except OSError as error:
                log.warning(f"{path} could not be removed: {error}")

    @staticmethod
    def _empty(path: str) -> None:
        with Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
            paths.empty(fd, os.fstat(fd).st_dev)

    def _prepare(self) -> None:
        plan = self._plan
        self._make_bundle()
        self._private = tempfile.mkdtemp(prefix=".import-", dir=self.bundle)
        place = os.path.join(self._private, "archive")
        self._require_room()
        extract(self._fd, plan.contents.plan, place)
        self._screen(os.path.join(place, content.IMAGES))
        self._seal(place)
        self._make_rootfs(place)  # last: a base that is there cannot be put back
        config = os.path.join(self.bundle, CONFIG)
        if not os.path.lexists(config):
            self._made.append(config)
            files.write_atomic(config, jsonio.dumps(plan.decision.spec, 1).encode(), sync=False)

    def _screen(self, directory: str) -> None:
        """What the processes in the images are, whatever config.json says of them."""
        plan = self._plan
        found = screening.screen(directory, binary.find())
        asks.decide_processes(found, plan.decision, plan.granted)
        require_grants(plan)

    def _make_bundle(self) -> None:
        if os.path.isdir(self.bundle):
            return
        try:
            os.mkdir(self.bundle, 0o711)
        except OSError as error:
            raise self._failure(self.bundle, error.strerror or str(error)) from None
        self._made.append(self.bundle)

    def _require_room(self) -> None:
        """Raises NoSpace before anything is written. The files of the container are there twice for a
        while: in the archive's tar and in the root file system."""
        plan, file_system = self._plan.contents.plan, os.statvfs(self.bundle)
        twice = plan.step(content.ROOTFS_DIFF)
        needed = plan.size + (twice.member.size if twice is not None else 0) + _RESERVE
        if needed > file_system.f_bavail * file_system.f_frsize:
            raise NoSpace(path=self.bundle)

    def _make_rootfs(self, place: str) -> None:
        """The base, where there is one, changed; or all of it from the archive."""
        plan = self._plan
        root, _ = of_bundle(self.bundle)
        rootfs = os.path.join(self.bundle, root or ROOTFS)
        there = os.path.isdir(rootfs) and bool(os.listdir(rootfs))
        if there == plan.whole:
            raise self._failure(rootfs, (
                "it is there already, and the archive holds all of it" if there
                else "it is missing, and the archive holds only what was changed of it"
            ))  # fmt: skip
        if os.path.isdir(rootfs):
            self._filled = "" if there else rootfs
        else:
            os.mkdir(rootfs, 0o755)
            self._made.append(rootfs)
        if not plan.contents.holds(content.ROOTFS_DIFF):
            return
        path = os.path.join(place, content.ROOTFS_DIFF)
        rules = Rules(
            plan.contents.plan.rules.limits, rootfs=True, devices="devices" in plan.granted
        )
        deleted = plan.contents.documents.get(content.DELETED)
        with Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)) as fd:
            shown = f"{plan.contents.plan.shown}:{content.ROOTFS_DIFF}"
            inner = planning.plan(fd, rules, shown)
            notes = applying.apply(rootfs, fd, inner, applying.deletions(deleted, shown))
        for note in [*inner.notes, *notes]:
            log.warning(f"{shown}: left out {note}")

    def _seal(self, place: str) -> None:
        """Make of the images a checkpoint of ours, with the configuration that was decided."""
        plan = self._plan
        image = CheckpointImage(os.path.join(place, content.IMAGES))
        if plan.facts is not None:
            manifest = image.verify()
            facts = plan.facts
        else:
            manifest = Manifest.new(plan.contents.id, "")
            facts = self._foreign_facts(image.directory)
        if manifest.parent is not None or os.path.lexists(image.path("parent")):
            raise NoCheckpoint(
                path=plan.contents.plan.shown, reason="its memory is based on an earlier dump"
            )
        facts["mounts"] = [self._placed(item) for item in facts.get("mounts") or []]
        placed = {item["target"]: item["source"] for item in facts["mounts"] if item.get("source")}
        for mount in plan.decision.spec.get("mounts") or []:
            if mount.get("destination") in placed:
                mount["source"] = placed[mount["destination"]]
        manifest.facts, manifest.options = facts, plan.options
        if os.path.lexists(image.path(MANIFEST)):
            os.unlink(image.path(MANIFEST))
        image.write_json(CONFIG, plan.decision.spec)
        image.seal(manifest)

    def _foreign_facts(self, directory: str) -> dict[str, Any]:
        """As ocimig would have noted them: what CRIU's images left to the runtime, found by name."""
        plan = self._plan
        streams = plan.contents.documents.get(content.STREAMS)
        left = mounts.left_to_us(directory, binary.find())
        found, unknown = in_own_terms(left, plan.decision.spec)
        if unknown:
            raise NoCheckpoint(
                path=plan.contents.plan.shown,
                reason=f"nobody knows what was mounted at {', '.join(unknown)}",
            )
        return {
            "mounts": [item.to_json() for item in found],
            "streams": [str(name) for name in streams or []][:3],
            "state": {"bundle": "", "rootfs": ""},
        }

    def _placed(self, item: dict[str, Any]) -> dict[str, Any]:
        """A bind mount with the source that was decided for it."""
        external = External.from_json(item)
        if external.kind != "bind":
            return item
        source = self._plan.decision.binds.get(os.path.normpath(external.target), None)
        if source is None:
            raise NotGranted(
                path=self._plan.contents.plan.shown,
                asked=f"a mount at {external.target}",
                remedy="--allow mounts",
            )
        if not source:
            source = self._engine_file(os.path.normpath(external.target))
        return {**item, "source": source}

    def _engine_file(self, target: str) -> str:
        place = os.path.join(self.bundle, engine_files.DIRECTORY)
        if not os.path.lexists(place):
            self._made.append(place)
        hostname = self._plan.decision.spec.get("hostname")
        return engine_files.make(
            self.bundle, target, hostname if isinstance(hostname, str) else "",
            os.path.dirname(self.images), self._plan.contents.plan.rules.limits,
        )  # fmt: skip

    def _failure(self, member: str, reason: str) -> CannotUnpack:
        return CannotUnpack(
            path=self._plan.contents.plan.shown,
            member=member,
            reason=reason,
            left="an archive with changes needs its base as rootfs in --bundle, and only then",
        )
