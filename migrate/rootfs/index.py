"""What a directory tree looks like at one moment: one lstat(2) a file. Reads no file."""

import errno
import os
import stat
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ocimig import files
from ocimig.errors import SystemFailure
from ocimig.migrate.rootfs.paths import open_directory

if TYPE_CHECKING:
    from ocimig.migrate.rootfs.watch import Watch

# A change within the same tick of the kernel's clock (10 ms at most) as our lstat leaves the times
# as they are. Whatever changed so shortly before is taken as changed again.
_TICK_NS = 20_000_000


class Entry(NamedTuple):
    """The facts of one name that tell whether it changed."""

    mode: int
    inode: int
    device: int
    links: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    rdev: int
    atime_ns: int
    blocks: int
    young: bool

    def same(self, other: "Entry") -> bool:
        """Whether nothing can have changed between the two looks. Reading a file is no change."""
        return self[:10] == other[:10] and not self.young


@dataclass(slots=True)
class Index:
    """Entries by relative path, directories before what is in them; "" is the root itself."""

    entries: dict[str, Entry] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)  # mount points: not entered
    links: dict[str, str] = field(default_factory=dict)  # name -> the name it was sent as a link to
    mapped: frozenset[int] = (
        frozenset()
    )  # inodes that may have been written unseen since they were read


def scan(
    root: int,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    one_filesystem: bool = True,
    watch: "Watch | None" = None,
) -> Index:
    """Look at everything below an open directory; what vanishes meanwhile is left out.

    `only` names what is looked at of the root directory (and leaves the root itself out), `skip`
    relative paths that are not looked at. `watch` gets to know every directory.
    """
    index = Index()
    now = time.time_ns()
    top = os.fstat(root)
    if not only:
        index.entries[""] = entry_of(top, now)
    if watch is not None:
        watch.forget()
    descend(root, [""], index, only, skip, one_filesystem, watch)
    doubt_twins(index)
    return index


def doubt_twins(index: Index) -> None:
    """Names of one file that were looked at before and after a change: none of them tells what is there."""
    names: dict[tuple[int, int], list[str]] = {}
    for path, entry in index.entries.items():
        if entry.links > 1 and not stat.S_ISDIR(entry.mode):
            names.setdefault((entry.device, entry.inode), []).append(path)
    for paths in names.values():
        first = index.entries[paths[0]]
        if any(index.entries[path][:10] != first[:10] for path in paths):
            for path in paths:
                index.entries[path] = index.entries[path]._replace(young=True)


def descend(
    root: int,
    pending: list[str],
    index: Index,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    one_filesystem: bool = True,
    watch: "Watch | None" = None,
) -> None:
    """Everything below these directories into the index, not the directories themselves."""
    while pending:
        path = pending.pop()
        try:
            fd = open_directory(root, path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if path and error.errno == errno.ELOOP:  # it became a symbolic link
                continue
            raise SystemFailure.of(f"read the directory {path or '.'}", error) from None
        with files.Fd(fd):
            if watch is not None:
                watch.enter(fd, path)
            _look(fd, path, index, pending, only if not path else (), skip, one_filesystem)


def _look(
    fd: int,
    path: str,
    index: Index,
    pending: list[str],
    only: Collection[str],
    skip: Collection[str],
    one_filesystem: bool,
) -> None:
    """One directory: its names into the index, its directories onto the pile."""
    found = index.entries
    before = f"{path}/" if path else ""
    device = os.fstat(fd).st_dev
    now = time.time_ns()
    with os.scandir(fd) as names:
        for name in names:
            below = before + name.name
            if (only and name.name not in only) or (skip and below in skip):
                continue
            try:
                status = name.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            found[below] = entry_of(status, now)
            if not stat.S_ISDIR(status.st_mode):
                continue
            if one_filesystem and status.st_dev != device:
                index.skipped.append(below)
            else:
                pending.append(below)


def entry_of(status: os.stat_result, now: int) -> Entry:
    """An lstat(2) as an entry; `now` is the time at which it was made, or shortly before."""
    ctime = status.st_ctime_ns
    return Entry(
        status.st_mode,
        status.st_ino,
        status.st_dev,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        ctime,
        status.st_rdev,
        status.st_atime_ns,
        status.st_blocks,
        ctime > now - _TICK_NS,
    )


def shared_mappings(pids: Iterable[int]) -> frozenset[int]:
    """Inodes that processes map shared and writable.

    A write through such a mapping changes the times of the file only when the page was clean before
    (never, on tmpfs). Such files are sent again in the freeze, whatever their times say.
    """
    found = set()
    for pid in pids:
        try:
            maps = files.read(f"/proc/{pid}/maps")
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in maps.split(b"\n"):  # a name may hold any other end of line
            fields = line.split(None, 5)
            if len(fields) >= 5 and fields[1][1:2] == b"w" and fields[1][3:4] == b"s":
                found.add(int(fields[4]))
    return frozenset(found)


def opened(pids: Iterable[int]) -> frozenset[int]:
    """Inodes of the regular files that processes hold open: io_submit(2) writes to them without a word."""
    found = set()
    for pid in pids:
        directory = f"/proc/{pid}/fd"
        try:
            names = os.listdir(directory)
        except (FileNotFoundError, ProcessLookupError):
            continue
        for name in names:
            try:
                status = os.stat(f"{directory}/{name}")
            except OSError:  # it was closed meanwhile
                continue
            if stat.S_ISREG(status.st_mode):
                found.add(status.st_ino)
    return frozenset(found)
