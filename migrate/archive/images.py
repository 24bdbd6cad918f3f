"""The images in an archive, to be looked at. Nothing of it gets a name here, and nothing is run.

Everything but pages is copied into a spool when it is opened, and of pages what processes keep their command
lines and environments in. Other pages come when the first of them is asked for, all at once: an archive can be
read from its begin only. Every member is compared with its digest in the plan while it is copied.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, BinaryIO

from ocimig.criu_images import tree
from ocimig.criu_images.opened import Images
from ocimig.criu_images.pages import Place
from ocimig.files import Fd
from ocimig.migrate.archive import content
from ocimig.migrate.archive.content import Contents
from ocimig.migrate.archive.errors import ArchiveChanged
from ocimig.migrate.archive.headers import Reader
from ocimig.migrate.archive.members import FILE, SYMLINK
from ocimig.migrate.archive.packing import Unpacked
from ocimig.migrate.archive.planning import Digest, Step, plan_of
from ocimig.migrate.memory.runs import Run, merge, total
from ocimig.migrate.spool import Region, Spool

PRE_DUMP = "pre-checkpoint"  # podman's name of what a checkpoint is based on
_STATISTICS = ("stats-dump", "stats-restore")  # podman has them beside the images
_PAGES = "pages-"


class ArchiveImages(Images):
    """The images of one directory in an archive; closing it leaves the archive to the caller."""

    kind = "archive"

    def __init__(self, copied: "_Copied", path: str, prefix: str) -> None:
        super().__init__(path)
        self._copied = copied
        self._prefix = prefix
        self._parent: ArchiveImages | None = None

    def close(self) -> None:
        """Give the copies back."""
        self._copied.close()

    def origin(self) -> dict[str, Any]:
        """What the archive says of itself; a signature is looked at by `archive verify`."""
        held = self._copied.contents
        return {
            "maker": held.maker, "id": held.id, "name": held.name, "image": held.image,
            "created": held.created, "signed": held.signed,
        }  # fmt: skip

    def names(self) -> list[str]:
        """See Images."""
        inside = (path.partition("/")[2] for path in self._copied.below(self._prefix))
        return sorted(name for name in inside if name.endswith(".img") and "/" not in name)

    def exists(self, name: str) -> bool:
        """See Images."""
        return self._member(name) in self._copied.steps

    def open(self, name: str) -> BinaryIO:
        """See Images."""
        region = self._copied.region(self._member(name))
        if region is None:
            raise self.refusal(name, "it is missing")
        return region.open()

    def _member(self, name: str) -> str:
        path = f"{self._prefix}/{name}"
        return name if name in _STATISTICS and path not in self._copied.steps else path

    def parent(self) -> "ArchiveImages | None":
        """See Images."""
        if self._parent is None and self._prefix == content.IMAGES and self._copied.has_parent():
            self._parent = ArchiveImages(self._copied, f"{self.path}:{PRE_DUMP}", PRE_DUMP)
        return self._parent

    def pages(self, number: int) -> "ArchivePages":
        """See Images."""
        return ArchivePages(self, self._copied, self._prefix, number)


class ArchivePages:
    """One file of pages. See criu_images.pages.PageFile."""

    def __init__(self, images: ArchiveImages, copied: "_Copied", prefix: str, number: int) -> None:
        self._images = images
        self._copied = copied
        self._name = f"{_PAGES}{number}.img"
        self._path = f"{prefix}/{self._name}"

    def read(self, offset: int, size: int) -> bytes:
        """See PageFile."""
        self._check(offset, size)
        return self._copied.read(self._path, offset, size)

    def want(self, offset: int, size: int) -> None:
        """These bytes will be asked for, when all that will be asked for is known."""
        self._check(offset, size)
        self._copied.want(self._path, offset, size)

    def places(self, offset: int, size: int) -> Iterator[Place]:
        """See PageFile."""
        yield Place(size, (id(self._copied), self._path), offset)

    def close(self) -> None:
        """See PageFile: nothing is held."""

    def _check(self, offset: int, size: int) -> None:
        step = self._copied.steps.get(self._path)
        if step is None:
            raise self._images.refusal(self._name, "it is missing")
        if offset + size > step.member.size:
            raise self._images.refusal(self._name, "it is shorter than its list of pages")


def opened(fd: int, shown: str) -> ArchiveImages:
    """The images of the archive `fd`, which the caller keeps open as long.

    Raises what content.read() does, ArchiveChanged, NoRoomToLook, BadImage."""
    copied = _Copied(fd, content.read(fd, shown))
    try:
        images = ArchiveImages(copied, shown, content.IMAGES)
        for process in tree.processes(images):
            for piece in tree.words(images, process.pid):
                assert isinstance(piece.pages, ArchivePages)
                piece.pages.want(piece.offset, piece.end - piece.start)
        copied.fetch()
    except BaseException:
        copied.close()
        raise
    return images


class _Copied:
    """What was copied of one archive, by member."""

    def __init__(self, fd: int, contents: Contents) -> None:
        self.contents = contents
        self.steps = {
            os.fsdecode(step.member.path): step
            for step in contents.plan.steps
            if step.member.type == FILE
        }
        self._fd = Fd(os.dup(fd))
        self._spool = Spool()
        self._regions: dict[str, Region] = {}
        self._wanted: dict[str, list[Run]] = {}
        self._parts: dict[
            str, list[Run]
        ] = {}  # of files of pages; what is not in here is copied whole
        try:
            paths = [*self.below(content.IMAGES), *self.below(PRE_DUMP)]
            self._pages = [path for path in paths if path.partition("/")[2].startswith(_PAGES)]
            small = {*paths, *self.steps.keys() & set(_STATISTICS)}.difference(self._pages)
            self._copy(dict.fromkeys(small))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the copies back."""
        self._spool.close()
        self._fd.close()

    def below(self, prefix: str) -> list[str]:
        """The files in a directory of the archive."""
        return [path for path in self.steps if path.startswith(f"{prefix}/")]

    def has_parent(self) -> bool:
        """Whether the images are based on others, and those are here too."""
        link = self.contents.plan.step(f"{content.IMAGES}/parent")
        return link is not None and link.member.type == SYMLINK and bool(self.below(PRE_DUMP))

    def region(self, path: str) -> Region | None:
        """Where a file is that is no pages."""
        return self._regions.get(path)

    def want(self, path: str, offset: int, size: int) -> None:
        """Note a part of a file of pages for fetch()."""
        self._wanted.setdefault(path, []).append((offset, offset + size))

    def fetch(self) -> None:
        """Copy what was noted."""
        wanted = {path: merge(runs) for path, runs in self._wanted.items()}
        self._wanted.clear()
        self._copy(wanted)
        self._parts = {path: wanted.get(path, []) for path in self._pages}

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Of a file of pages, which has so many bytes."""
        if self._parts and not _has(self._parts[path], offset, offset + size):
            self._parts = {}
            self._copy(dict.fromkeys(self._pages))
        return self._regions[path].read(offset, size)

    def _copy(self, wanted: Mapping[str, Sequence[Run] | None]) -> None:
        """These files, or these runs of them."""
        if not wanted:
            return
        plan, left = self.contents.plan, len(wanted)
        self._spool.require(
            sum(
                self.steps[path].member.size if runs is None else total(runs)
                for path, runs in wanted.items()
            )
        )
        limits = plan.rules.limits
        reader = Reader(Unpacked(self._fd.number, limits, plan.shown), limits, plan.shown)
        for step in plan_of(reader.members(), plan):
            path = os.fsdecode(step.member.path)
            if path in wanted:
                self._take(path, step, wanted[path], reader)
                left -= 1
                if not left:
                    return

    def _take(self, path: str, step: Step, runs: Sequence[Run] | None, reader: Reader) -> None:
        size = step.member.size
        if path not in self._regions:
            self._regions[path] = self._spool.take(size)
        region = self._regions[path]
        waiting = list(reversed([(0, size)] if runs is None else runs))
        digest = Digest()
        for offset, data in reader.data():
            digest.add(offset, data)
            end = offset + len(data)
            while waiting and waiting[-1][1] <= offset:
                waiting.pop()
            for start, stop in reversed(waiting):
                if start >= end:
                    break
                part = data[max(start, offset) - offset : min(stop, end) - offset]
                if part.count(0) != len(part):
                    region.write(max(start, offset), part)
        if digest.end(size) != step.digest:
            plan = self.contents.plan
            raise ArchiveChanged(path=plan.shown, reason=f"{step.member.shown} differs")


def _has(runs: Sequence[Run], start: int, end: int) -> bool:
    at = bisect_right(runs, start, key=itemgetter(0)) - 1
    return at >= 0 and end <= runs[at][1]
