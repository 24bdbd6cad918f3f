"""An archive of a checkpoint as a snapshot: the other way than `export`.

    plan = carry.look(fd, shown, …)          # signature, manifest, limits, what it asks for: nothing is written
    snapshot = import_from(repository, fd, plan, wanted)

It is unpacked as `restore --import` does it, into a private directory below the cache; what would be restored
from there is stored instead: memory by page, files, CRIU's images, and last of all the snapshot. Whatever fails,
the store is as it was but for packs that a later one may use.
"""

import errno
import os
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ocimig import files, jsonio
from ocimig.criu_images import mappings, tree
from ocimig.criu_images.emptying import Emptying
from ocimig.criu_images.errors import BadImage
from ocimig.criu_images.image import CONFIG, CheckpointImage, Manifest
from ocimig.criu_images.opened import ImageDirectory
from ocimig.errors import NoSpace
from ocimig.files import Fd
from ocimig.migrate import facts
from ocimig.migrate.archive import content, engine_files
from ocimig.migrate.archive.errors import ArchiveRefused, CannotUnpack
from ocimig.migrate.archive.importing import ROOTFS, ImportPlan, Prepared, require_grants
from ocimig.migrate.backup.files import Capture
from ocimig.migrate.backup.memory import Keeper
from ocimig.migrate.backup.room import room
from ocimig.migrate.image_place import full
from ocimig.migrate.memory import spaces
from ocimig.migrate.memory.runs import PAGE, Run, merge, total
from ocimig.migrate.restore_request import mapped
from ocimig.migrate.store import head, stream
from ocimig.migrate.store import snapshot as snapshots
from ocimig.migrate.store import tree as lines
from ocimig.migrate.store.snapshot import Image, Segment, Snapshot, Tree
from ocimig.migrate.store.store import Store
from ocimig.migrate.store.writer import Writer
from ocimig.runtime.store import check_id

HOME = "imports"  # below the cache
_NAME = "archive"  # of every room there: who comes next sweeps what a crash left
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# As create() asks CRIU for; what the dump of another engine was asked for is not in its archive.
_USUAL = {"tcp_established": True, "file_locks": True}


@dataclass(frozen=True, slots=True)
class Wanted:
    """As the options of `ocimig backup import`. `bundle` is where a restore puts its files, `base` the root
    file system that it was made from ("" where the archive holds all of it), `id` its name ("" is its own)."""

    bundle: str
    id: str = ""
    base: str = ""
    tags: tuple[str, ...] = ()


def import_from(repository: Store, fd: int, plan: ImportPlan, wanted: Wanted) -> Snapshot:
    """Store what a restore of the archive would run, from the descriptor that `plan` was made of.

    The caller holds the store's shared lock. Raises NotGranted, CannotUnpack, ArchiveChanged, ArchiveRefused,
    NoCheckpoint, BadImage, InvalidId, NoSpace, TreeFailed, PlaceFailed.
    """
    id = wanted.id or plan.contents.name
    check_id(id)
    require_grants(plan)
    _require_base(plan, wanted.base)
    os.makedirs(repository.cache, mode=0o700, exist_ok=True)
    with room(repository.cache, _NAME, HOME) as place:
        work = _Import(repository, plan, replace(wanted, id=id), place)
        try:
            work.unpack(fd)
            with closing(repository.writer()) as writer:
                snapshot = work.store(writer)
        except BadImage as error:
            raise _of_the_archive(plan, error) from None
        except OSError as error:
            raise full(error, repository.cache) or error from None
        repository.add(snapshot)
    return snapshot


def _require_base(plan: ImportPlan, base: str) -> None:
    """Raises CannotUnpack before anything is written."""
    if plan.whole == bool(base):
        reason, remedy = (
            ("the archive holds all of it", "leave --base out") if base
            else ("the archive holds only what was changed of it", "name what it was made from: --base DIR")
        )  # fmt: skip
        raise _not_made(plan, reason, remedy)


def _not_made(plan: ImportPlan, reason: str, remedy: str) -> CannotUnpack:
    shown = plan.contents.plan.shown
    return CannotUnpack(path=shown, member="the root file system", reason=reason, left=remedy)


def _of_the_archive(plan: ImportPlan, error: BadImage) -> BadImage:
    """The same error; where the image lay for a while is nothing that a person can look at."""
    name = os.path.basename(str(error.fields["path"]))
    inside = f":{content.IMAGES}/{name}" if name.endswith(".img") else ""
    return BadImage(path=plan.contents.plan.shown + inside, reason=error.fields["reason"])


class _Import:
    """One archive. `place` is a private directory: the bundle and the images are made in there."""

    def __init__(self, repository: Store, plan: ImportPlan, wanted: Wanted, place: str) -> None:
        self.repository = repository
        self.plan = plan
        self.wanted = wanted
        self.place = place
        self.bundle = os.path.join(place, "bundle")
        self.image = CheckpointImage(os.path.join(place, "images"))
        self.manifest = Manifest("")
        self.began = time.monotonic()

    def unpack(self, fd: int) -> None:
        """The bundle and the images as a restore would have them, but that they can be put anywhere."""
        if self.wanted.base:
            os.mkdir(self.bundle, 0o711)
            self._copy_base(os.path.join(self.bundle, ROOTFS))
        with Prepared(fd, self.plan, self.bundle) as made:
            os.rename(made.images, self.image.directory)
            made.keep()
        self.manifest = self.image.manifest()
        if self.plan.facts is None:
            self.manifest.options = {**_USUAL, **self.manifest.options}
        spec = self.plan.decision.spec
        for mount in [*(spec.get("mounts") or []), *(self.manifest.facts.get("mounts") or [])]:
            if "source" in mount:
                mount["source"] = self._movable(str(mount["source"]))
        self.image.write_json(CONFIG, spec)
        document = jsonio.dumps(spec, 1).encode()
        files.write_atomic(os.path.join(self.bundle, CONFIG), document, sync=False)

    def _copy_base(self, target: str) -> None:
        """It is changed afterwards, and what was named must stay as it is. Raises CannotUnpack."""
        base = os.path.realpath(self.wanted.base)  # of a link the link would be copied
        argv = ["cp", "-a", "-x", "--reflink=auto", "-T", "--", base, target]
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True,
            errors="replace", env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        if os.strerror(errno.ENOSPC) in ended.stderr:
            raise NoSpace(path=self.repository.cache)
        if ended.returncode or not os.path.isdir(target):
            reason = ended.stderr.strip().rpartition("\n")[2] or f"{base} is no directory"
            remedy = "nothing was stored; name what it was made from: --base DIR"
            raise _not_made(self.plan, reason, remedy)

    def _movable(self, source: str) -> str:
        """What was made in the bundle is named as it is from there: a bundle is put where it is wanted."""
        own = os.path.join(self.bundle, engine_files.DIRECTORY, "")
        return os.path.relpath(source, self.bundle) if source.startswith(own) else source

    def store(self, writer: Writer) -> Snapshot:
        """All of it into the store; the snapshot that names it is not yet in there."""
        keeper = Keeper(writer, self.repository.digest_key, None)
        kept = {} if mapped(self.plan.decision.spec) else _memory(self.image.directory, keeper)
        listed = keeper.segments(kept)
        images = self._images(writer)
        with Capture(writer, self.bundle, room=self.place) as capture:
            capture.scan()
            capture.freeze()
            captured = capture.finish()
        root = jsonio.loads(lines.encode(captured.root))
        written = writer.finish()
        made = Tree("bundle", os.path.abspath(self.wanted.bundle), root)
        read = keeper.read_bytes + captured.data
        return self._snapshot(kept, listed, images, made, (read, written.stored_bytes))

    def _snapshot(
        self,
        kept: dict[str, list[Run]],
        listed: dict[str, tuple[Segment, ...]],
        images: dict[str, Image],
        made: Tree,
        amounts: tuple[int, int],
    ) -> Snapshot:
        spec = self.plan.decision.spec
        self.manifest.id, self.manifest.files = self.wanted.id, {}
        snapshot = Snapshot(
            id=head.hexadecimal(head.fresh_number()),
            container=self.wanted.id,
            host=facts.host_name(),
            time=_instant(self.plan.contents.created),
            config=spec,
            manifest=jsonio.loads(self.manifest.to_json()),
            images=images,
            spaces=listed,
            shared={
                name: runs[-1][1] for name, runs in kept.items() if not spaces.is_process(name)
            },
            trees=(made,),
            labels={k: str(v) for k, v in (spec.get("annotations") or {}).items()},
            tags=self.wanted.tags,
            seconds=time.monotonic() - self.began,
            pages=sum(map(total, kept.values())) // PAGE,
            read_bytes=amounts[0],
            stored_bytes=amounts[1],
        )
        try:  # much of it is the archive's: what nobody could read must not be called a snapshot
            return snapshots.decode(snapshot.encode())
        except ValueError as error:
            shown = self.plan.contents.plan.shown
            raise ArchiveRefused(path=shown, reason=f"it makes no snapshot: {error}") from None

    def _images(self, writer: Writer) -> dict[str, Image]:
        found = {}
        for name in sorted(self.manifest.files):
            with Fd(os.open(self.image.path(name), _FILE)) as fd:
                size = os.fstat(fd).st_size
                found[name] = Image(size, stream.put_file(writer, fd, size).runs)
        return found


def _memory(directory: str, keeper: Keeper) -> dict[str, list[Run]]:
    """What CRIU can restore out of a store, moved there out of its images; the runs, by space."""
    kept: dict[str, list[Run]] = {}

    def into(space: str) -> Any:
        def put(start: int, data: bytes) -> None:
            runs = [(start, start + len(data))]
            keeper.take(space, runs, memoryview(data))
            kept.setdefault(space, []).extend(runs)

        return put

    with ImageDirectory(directory) as images:
        emptying = Emptying(images)
        for process in tree.processes(images):
            emptying.process(process, into(spaces.of_process(process.pid)))
        for each in mappings.shared_objects(images):
            emptying.shared(each.number, into(spaces.of_shared(each.number)))
    return {space: merge(runs) for space, runs in kept.items()}


def _instant(created: str) -> float:
    """When the checkpoint was made, as it says; now, where it says nothing that can be."""
    now = time.time()
    try:
        said = datetime.fromisoformat(created)
    except ValueError:
        return now
    if said.tzinfo is None:
        said = said.replace(tzinfo=UTC)
    seconds = said.timestamp()
    return seconds if 0 < seconds < now else now
