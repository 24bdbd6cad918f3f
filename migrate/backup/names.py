"""One name of a directory tree as what the store keeps of it. Follows no link, opens no device."""

import errno
import os
import stat
import time

from ocimig.migrate.rootfs.index import Entry, entry_of
from ocimig.migrate.rootfs.paths import Directories, open_regular, split
from ocimig.migrate.store import tree
from ocimig.migrate.store.tree import Node

GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
_TYPES = {
    stat.S_IFREG: tree.FILE,
    stat.S_IFDIR: tree.DIRECTORY,
    stat.S_IFLNK: tree.SYMLINK,
    stat.S_IFCHR: tree.CHARACTER,
    stat.S_IFBLK: tree.BLOCK_DEVICE,
    stat.S_IFIFO: tree.FIFO,
    stat.S_IFSOCK: tree.SOCKET,
}


def open_node(directories: Directories, path: str, entry: Entry) -> tuple[int, Entry, Node]:
    """The file that `entry` was, open (for reading only when it is a regular one), its facts now, and its
    node without content. The facts are older than whatever is read afterwards.

    Raises OSError: one of GONE when the name stands for another file now, or for none.
    """
    parent, name = split(path)
    directory = directories.open(parent)
    if stat.S_ISREG(entry.mode):
        fd = open_regular(directory, name, os.O_RDONLY)
    else:
        fd = os.open(name or ".", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        now = time.time_ns()
        status = os.fstat(fd)
        other = (status.st_dev, status.st_ino) != (entry.device, entry.inode)
        if other or stat.S_IFMT(status.st_mode) != stat.S_IFMT(entry.mode):
            raise FileNotFoundError(errno.ENOENT, "another file has its name", path)
        facts = entry_of(status, now)
        return fd, facts, _node(fd, name, facts)
    except BaseException:
        os.close(fd)
        raise


def _node(fd: int, name: str, entry: Entry) -> Node:
    kind = _TYPES[stat.S_IFMT(entry.mode)]
    several = entry.links > 1 and kind != tree.DIRECTORY
    device = kind in (tree.CHARACTER, tree.BLOCK_DEVICE)
    return Node(
        os.fsencode(name),
        kind,
        stat.S_IMODE(entry.mode),
        entry.uid,
        entry.gid,
        entry.mtime_ns,
        _attributes(fd if kind == tree.FILE else f"/proc/self/fd/{fd}"),
        link=entry.inode if several else 0,
        target=os.fsencode(os.readlink("", dir_fd=fd)) if kind == tree.SYMLINK else b"",
        device=(os.major(entry.rdev), os.minor(entry.rdev)) if device else (0, 0),
    )


def _attributes(of: int | str) -> tuple[tuple[bytes, bytes], ...]:
    """Extended attributes as raw bytes: capabilities and ACLs are among them."""
    found = []
    try:
        names = os.listxattr(of)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return ()
        raise
    for name in names:
        try:
            found.append((os.fsencode(name), os.getxattr(of, name)))
        except OSError as error:
            if error.errno != errno.ENODATA:  # it went while we looked
                raise
    return tuple(sorted(found))
