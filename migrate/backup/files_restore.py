"""A tree out of a store into a new directory. Whatever the store says, nothing is written elsewhere.

The directory belongs to whoever restores, and to nobody else, until all is in it: its own owner and mode
come last. Names are made below open directories, through no link.
"""

import errno
import os
import stat
from dataclasses import dataclass, field

from ocimig import files
from ocimig.errors import NoSpace, OcimigError
from ocimig.migrate.backup.walk import inside
from ocimig.migrate.errors import DirectoryNotEmpty, TreeFailed
from ocimig.migrate.rootfs import metadata, paths, records
from ocimig.migrate.rootfs.paths import Directories, split
from ocimig.migrate.rootfs.records import Record
from ocimig.migrate.store import stream, tree
from ocimig.migrate.store.blobs import Origin
from ocimig.migrate.store.errors import TreeDamaged
from ocimig.migrate.store.tree import Node
from ocimig.runtime.linux.files import syncfs

_NODES = {
    tree.CHARACTER: stat.S_IFCHR,
    tree.BLOCK_DEVICE: stat.S_IFBLK,
    tree.FIFO: stat.S_IFIFO,
    tree.SOCKET: stat.S_IFSOCK,
}
_NOTES = 100


@dataclass(slots=True)
class Restored:
    """What came."""

    names: int = 0
    data: int = 0  # bytes that were written, holes not counted
    notes: list[str] = field(default_factory=list)  # attributes that could not be kept, 100 at most


def restore(origin: Origin, root: Node, directory: str, *, sync: bool = True) -> Restored:
    """Make the tree in `directory`, which is not there yet or empty, and is so again when this fails.

    With `sync` all of it is on disk when it returns. Raises DirectoryNotEmpty, NoSpace, TreeFailed,
    TreeDamaged, and what the origin does.
    """
    if root.type != tree.DIRECTORY:
        raise TreeDamaged(path="the root directory", reason="it is no directory")
    target = _Target(directory)
    try:
        try:
            target.fill(origin, root)
            if sync:
                syncfs(target.root)
        except BaseException:
            target.discard()
            raise
    except OSError as error:
        raise _failed("write", directory, target.path, error) from None
    finally:
        target.close()
    return target.restored


class _Target:
    def __init__(self, directory: str) -> None:
        self.restored = Restored()
        self.path = ""  # what is being made
        self._directory = directory
        self._made = False
        self._links: dict[int, tuple[str, Node]] = {}  # the first name of files with several
        try:
            self.root = self._open()
        except OSError as error:
            raise _failed("make", directory, "", error) from None
        self._directories = Directories(self.root)

    def _open(self) -> int:
        try:
            os.mkdir(self._directory, 0o700)
            self._made = True
        except FileExistsError:
            if os.listdir(self._directory):
                raise DirectoryNotEmpty(path=self._directory) from None
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        with files.Fd(os.open(self._directory, flags)) as fd:
            os.fchmod(fd, 0o700)
            return os.dup(fd)

    def fill(self, origin: Origin, root: Node) -> None:
        """All names, a directory's own before those of the directories in it, so that its times stay."""
        waiting = [("", root)]
        while waiting:
            path, node = waiting.pop()
            self.path = path
            fd = self._directories.open(path)
            found = []
            for below, each in inside(origin, path, node):
                self.path = below
                self._make(origin, fd, below, each)
                if each.type == tree.DIRECTORY:
                    found.append((below, each))
            self.path = path
            if path:
                self._note(metadata.apply(_record(path, node), fd))
            waiting += reversed(found)
        self.path = ""
        self._note(metadata.apply(_record("", root), self.root))
        self.restored.names += 1

    def _make(self, origin: Origin, fd: int, path: str, node: Node) -> None:
        self.restored.names += 1
        name = split(path)[1]
        if node.type == tree.DIRECTORY:
            os.mkdir(name, 0o700, dir_fd=fd)
            return
        if node.link and self._linked(fd, name, path, node):
            return
        if node.type == tree.FILE:
            self._regular(origin, fd, name, path, node)
            return
        if node.type == tree.SYMLINK:
            os.symlink(node.target, name, dir_fd=fd)
        else:
            os.mknod(name, _NODES[node.type] | 0o600, os.makedev(*node.device), dir_fd=fd)
        self._note(metadata.apply(_record(path, node), fd, name))

    def _linked(self, fd: int, name: str, path: str, node: Node) -> bool:
        """Whether it is another name of a file that was made already."""
        home, first = self._links.setdefault(node.link, (path, node))
        if home == path:
            return False
        if first.type != node.type:
            raise TreeDamaged(path=path, reason=f"it is {home} as well, of another type")
        parent, old = split(home)
        source = self._directories.open(parent)
        os.link(old, name, src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False)
        return True

    def _regular(self, origin: Origin, fd: int, name: str, path: str, node: Node) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with files.Fd(os.open(name, flags, 0o600, dir_fd=fd)) as file:
            try:
                self.restored.data += stream.write_file(origin, node.runs, node.size, file)
            except ValueError as error:
                raise TreeDamaged(path=path, reason=str(error)) from None
            self._note(metadata.apply(_record(path, node), file))

    def _note(self, notes: list[str]) -> None:
        self.restored.notes += notes[: _NOTES - len(self.restored.notes)]

    def discard(self) -> None:
        """Remove what was made. What was there before stays."""
        self._directories.forget()
        found = [""]
        for path in found:  # it grows
            # btrfs shows a directory as it was when it was opened: so it is opened now
            with files.Fd(paths.open_directory(self.root, path)) as fd:
                with os.scandir(fd) as entries:
                    names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
                for name, is_directory in names:
                    if is_directory:
                        found.append(f"{path}/{name}" if path else name)
                    else:
                        os.unlink(name, dir_fd=fd)
        for path in reversed(found[1:]):
            parent, name = split(path)
            os.rmdir(name, dir_fd=self._directories.open(parent))
        if self._made:
            os.rmdir(self._directory)

    def close(self) -> None:
        self._directories.forget()
        os.close(self.root)


def _record(path: str, node: Node) -> Record:
    """What metadata.apply() wants. Nobody has read the new file: its atime is its mtime."""
    kind = records.SYMLINK if node.type == tree.SYMLINK else records.REGULAR
    return Record(
        kind,
        os.fsencode(path),
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        mtime_ns=node.mtime,
        atime_ns=node.mtime,
        attributes=list(node.attributes),
    )


def _failed(what: str, directory: str, path: str, error: OSError) -> OcimigError:
    where = os.path.join(directory, path) if path else directory
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(path=where)
    return TreeFailed(what=what, path=where, reason=error.strerror or str(error))
