"""What a container changed in its root file system: against the tree it was made from, or all of it.

    rootfs-diff.tar    every name that is new or differs in anything, in its last state
    deleted.files      names of the base that are gone, a removed directory as one name

Unlike podman's and CRI-O's this keeps changes of a directory's owner and mode, of attributes and of links,
and it compares contents rather than asking whether a path exists on the host. A name that became something
else is in the tar only; a reader unpacks the tar over the base, in either order with the deletions.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ocimig import files
from ocimig.migrate.archive import members
from ocimig.migrate.archive.members import Member
from ocimig.migrate.archive.writing import Writer, data_runs
from ocimig.migrate.rootfs.index import Entry, Index, scan
from ocimig.migrate.rootfs.paths import Directories, open_regular, split

_PIECE = 1 << 18
_KEPT = ("user.", "security.capability", "system.posix_acl_")
_TYPES = {
    stat.S_IFREG: members.FILE,
    stat.S_IFDIR: members.DIRECTORY,
    stat.S_IFLNK: members.SYMLINK,
    stat.S_IFCHR: members.CHARACTER,
    stat.S_IFBLK: members.DEVICE,
    stat.S_IFIFO: members.FIFO,
    stat.S_IFSOCK: members.SOCKET,
}


@dataclass(slots=True)
class Difference:
    """`changed` in the order of the tar, parents first; `deleted` are relative, the topmost ones only."""

    changed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # mount points: what is below is not looked at

    def documents(self) -> list[str]:
        """As deleted.files has them."""
        return [f"/{path}" for path in self.deleted]


class Tree:
    """One look at a directory tree; the descriptor stays the caller's. Close it to let go of others."""

    def __init__(self, root: int) -> None:
        self.index: Index = scan(root)
        self._directories = Directories(root)
        self._names: dict[tuple[int, int], list[str]] = {}
        for path, entry in self.index.entries.items():
            if entry.links > 1 and not stat.S_ISDIR(entry.mode):
                self._names.setdefault((entry.device, entry.inode), []).append(path)
        for names in self._names.values():
            names.sort(key=os.fsencode)

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, *_: object) -> None:
        self._directories.forget()

    def twins(self, path: str) -> list[str]:
        """All names of the file, itself among them, in order."""
        entry = self.index.entries[path]
        return self._names.get((entry.device, entry.inode), [path])

    def open(self, path: str) -> int:
        """A regular file, for reading; the caller closes it."""
        parent, name = split(path)
        return open_regular(self._directories.open(parent), name, os.O_RDONLY)

    def target(self, path: str) -> str:
        """Where a symbolic link points to."""
        parent, name = split(path)
        return os.readlink(name, dir_fd=self._directories.open(parent))

    def attributes(self, path: str) -> tuple[tuple[bytes, bytes], ...]:
        """The extended attributes that a container's file may have, by name."""
        parent, name = split(path)
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        with files.Fd(os.open(name or ".", flags, dir_fd=self._directories.open(parent))) as handle:
            place = f"/proc/self/fd/{handle}"
            if stat.S_ISLNK(os.fstat(handle).st_mode):
                return ()  # user.* and capabilities are not for links
            try:
                names = sorted(os.listxattr(place))
            except OSError:
                return ()
            return tuple(
                (os.fsencode(key), os.getxattr(place, key))
                for key in names
                if key.startswith(_KEPT) and not key.startswith("user.overlay.")
            )


def compare(base: Tree, now: Tree) -> Difference:
    """What has to be done to `base` to make it `now`."""
    made = Difference(skipped=list(now.index.skipped))
    found = set()
    for path, entry in now.index.entries.items():
        before = base.index.entries.get(path)
        if before is None or _differs(base, now, path, before, entry):
            found.add(path)
    for path in base.index.entries:
        if path in now.index.entries:
            continue
        parent = split(path)[0]
        above = now.index.entries.get(parent)
        if above is not None and stat.S_ISDIR(above.mode):
            made.deleted.append(path)
    # Unpacking and deleting changes the times of directories, and a file that is replaced parts from
    # its other names.
    for path in [*found, *made.deleted]:
        if path and split(path)[0] in now.index.entries:
            found.add(split(path)[0])
        if path in now.index.entries:
            found.update(now.twins(path))
    found.update({split(path)[0] for path in found if path})
    made.changed = sorted(found, key=os.fsencode)
    made.deleted.sort(key=os.fsencode)
    return made


def whole(now: Tree) -> Difference:
    """Everything, for a container of which nobody knows what it was made from."""
    names = sorted(now.index.entries, key=os.fsencode)
    return Difference(names, [], list(now.index.skipped))


def _differs(base: Tree, now: Tree, path: str, before: Entry, entry: Entry) -> bool:
    if (before.device, before.inode) == (entry.device, entry.inode):
        return False  # one file, seen through both trees
    if before[:1] + before[4:6] != entry[:1] + entry[4:6] or before.mtime_ns != entry.mtime_ns:
        return True
    kind = stat.S_IFMT(entry.mode)
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and before.rdev != entry.rdev:
        return True
    if kind == stat.S_IFLNK:
        return base.target(path) != now.target(path)
    if kind != stat.S_IFDIR and base.twins(path) != now.twins(path):
        return True
    if base.attributes(path) != now.attributes(path):
        return True
    if kind != stat.S_IFREG:
        return False
    if before.size != entry.size:
        return True
    with files.Fd(base.open(path)) as one, files.Fd(now.open(path)) as other:
        return not _same(one, other, entry.size)


def _same(one: int, other: int, size: int) -> bool:
    """Whether two files have the same content; times prove nothing, a container can set them. What is a
    hole in both is not read."""
    done = 0
    for start, length in sorted([*data_runs(one, size), *data_runs(other, size)]):
        offset, done = max(start, done), max(start + length, done)
        while offset < done:
            wanted = min(_PIECE, done - offset)
            left, right = os.pread(one, wanted, offset), os.pread(other, wanted, offset)
            if left != right or not left:
                return False
            offset += len(left)
    return True


def write(now: Tree, difference: Difference, writer: Writer) -> None:
    """The changed names into a tar archive. Raises CannotExport, OSError."""
    chosen = set(difference.changed)
    for path in difference.changed:
        for member in _members(now, path, chosen):
            if member.type == members.FILE:
                with files.Fd(now.open(path)) as file:
                    writer.add_file(member, file, holes=True)
            else:
                writer.add(member)


def _members(now: Tree, path: str, chosen: set[str]) -> Iterator[Member]:
    entry = now.index.entries[path]
    name = os.fsencode(path)
    first = next(twin for twin in now.twins(path) if twin in chosen)
    plain = Member(
        name, mode=stat.S_IMODE(entry.mode), uid=entry.uid, gid=entry.gid, mtime_ns=entry.mtime_ns
    )
    if first != path:
        yield replace(plain, type=members.HARD_LINK, target=os.fsencode(first))
        return
    type_ = _TYPES[stat.S_IFMT(entry.mode)]
    node = type_ in (members.CHARACTER, members.DEVICE)
    yield replace(
        plain,
        type=type_,
        target=os.fsencode(now.target(path)) if type_ == members.SYMLINK else b"",
        major=os.major(entry.rdev) if node else 0,
        minor=os.minor(entry.rdev) if node else 0,
        attributes=now.attributes(path),
    )
