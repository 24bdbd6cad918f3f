"""Tmpfs mounts that hold next to nothing: listed inside the freeze, made anew at restore.

CRIU saves a tmpfs by running `tar`, 6 ms for each inside the freeze. Most hold a few device nodes, links
and empty directories; those, with small files beside them, are written down here instead. Whatever a list
cannot carry exactly (large files, hard links, extended attributes, sockets, renamed-over mounts) makes
the whole mount CRIU's again.
"""

import base64
import os
import stat
import zlib
from typing import Any

from ocimig import files
from ocimig.files import Fd
from ocimig.migrate.mountinfo import Mount, below
from ocimig.runtime.linux import openat2

MOST_ENTRIES = 512
MOST_BYTES = 2 << 20
_PLAIN_BYTES = (
    4096  # more of one file is packed: a megabyte that is mostly zeros in 3 ms (zlib, level 1)
)
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
# What the kernel shows of a tmpfs and takes back; the others are defaults or not for mount(2).
_OPTIONS = ("size=", "nr_inodes=", "nr_blocks=", "mode=", "uid=", "gid=", "huge=", "noswap")
READ_ONLY = "ro"


class _Unfit(Exception):
    """The content cannot be carried as a list."""


def options(mount: Mount) -> tuple[str, ...]:
    """The options that make the same tmpfs again."""
    words = mount.super_options
    return tuple(word for word in words if word.startswith(_OPTIONS) or word == READ_ONLY)


def listing(root: int, mount: Mount) -> tuple[dict[str, Any], ...] | None:
    """What the tmpfs holds, the directory itself first; None when a list cannot carry it.

    `root` is the container's root directory. The processes are frozen, or the answer is only a guess.
    """
    try:
        fd = openat2.openat2(
            root, mount.target, _FLAGS | os.O_DIRECTORY, 0,
            openat2.RESOLVE_IN_ROOT | openat2.RESOLVE_NO_MAGICLINKS,
        )  # fmt: skip
    except OSError:
        return None
    with Fd(fd):
        info = os.fstat(fd)
        if f"{os.major(info.st_dev)}:{os.minor(info.st_dev)}" != mount.device:
            return None  # something lies over it
        found = [_entry("", info)]
        try:
            _walk(fd, "", info.st_dev, found, [0])
        except (_Unfit, OSError):
            return None
    return tuple(found)


def _entry(name: str, info: os.stat_result) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": name,
        "mode": info.st_mode,
        "uid": info.st_uid,
        "gid": info.st_gid,
    }
    if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        entry["device"] = info.st_rdev
    entry["mtime"] = info.st_mtime_ns
    return entry


def _walk(
    directory: int, prefix: str, device: int, found: list[dict[str, Any]], used: list[int]
) -> None:
    if os.listxattr(directory):
        raise _Unfit
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        path = os.path.join(prefix, name)
        if len(found) >= MOST_ENTRIES:
            raise _Unfit
        if info.st_dev != device:
            found.append(_mount_point(path, info))
            continue
        entry = _entry(path, info)
        found.append(entry)
        if stat.S_ISDIR(info.st_mode):
            with Fd(os.open(name, _FLAGS | os.O_DIRECTORY, dir_fd=directory)) as fd:
                _walk(fd, path, device, found, used)
            continue
        if info.st_nlink > 1:
            raise _Unfit
        if stat.S_ISLNK(info.st_mode):
            entry["target"] = os.readlink(name, dir_fd=directory)
        elif stat.S_ISREG(info.st_mode):
            _content(directory, name, info, entry, used)
        elif stat.S_ISSOCK(info.st_mode):
            found.pop()  # CRIU binds it again, if somebody listens


def _mount_point(path: str, info: os.stat_result) -> dict[str, Any]:
    """What lies under a mount cannot be seen; a plain directory or file takes the mount again."""
    kind = stat.S_IFDIR | 0o755 if stat.S_ISDIR(info.st_mode) else stat.S_IFREG | 0o644
    return {"name": path, "mode": kind, "uid": 0, "gid": 0, "mtime": info.st_mtime_ns}


def _content(
    directory: int, name: str, info: os.stat_result, entry: dict[str, Any], used: list[int]
) -> None:
    used[0] += info.st_size
    if used[0] > MOST_BYTES or info.st_blocks * 512 < info.st_size:
        raise _Unfit
    with Fd(os.open(name, _FLAGS | os.O_NONBLOCK, dir_fd=directory)) as fd:
        if os.listxattr(fd):
            raise _Unfit
        data = os.pread(fd, info.st_size, 0)
        if len(data) > _PLAIN_BYTES:
            entry["packed"] = base64.b64encode(zlib.compress(data, 1)).decode()
        elif data:
            entry["data"] = base64.b64encode(data).decode()


def fill(directory: int, content: tuple[dict[str, Any], ...]) -> None:
    """Make what `listing` wrote down in an empty tmpfs of our own. Raises ValueError, see check()."""
    check(content)
    for entry in content[1:]:
        _make(directory, entry)
    for entry in reversed(content):  # children first: making them changed their parents' times
        name = entry["name"] or "."
        if entry["name"]:
            os.chown(name, entry["uid"], entry["gid"], dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISLNK(entry["mode"]):
                os.chmod(name, stat.S_IMODE(entry["mode"]), dir_fd=directory)
        else:
            os.fchown(directory, entry["uid"], entry["gid"])
            os.fchmod(directory, stat.S_IMODE(entry["mode"]))
        times = (entry["mtime"], entry["mtime"])
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)


def check(content: tuple[dict[str, Any], ...]) -> None:
    """Whether this is what `listing` writes: the directory first, then names once each, every one in a
    directory that came before. Else a name could lead through a link out of the tmpfs. Raises ValueError."""
    directories: set[str] = set()
    seen: set[str] = set()
    for entry in content:
        name, mode = entry["name"], entry["mode"]
        if not isinstance(name, str) or not isinstance(mode, int) or name in seen:
            raise ValueError(f"{name!r} is no name inside a directory, or there twice")
        if name and below(os.path.normpath("/" + name), "/") != name:
            raise ValueError(f"{name!r} is no name inside a directory")
        if bool(name) != bool(seen) or (name and os.path.dirname(name) not in directories):
            raise ValueError(f"{name!r} is in no directory that came before it")
        seen.add(name)
        if stat.S_ISDIR(mode):
            directories.add(name)


def _make(directory: int, entry: dict[str, Any]) -> None:
    name, mode = entry["name"], entry["mode"]
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=directory)
    elif kind == stat.S_IFLNK:
        os.symlink(entry["target"], name, dir_fd=directory)
    elif kind == stat.S_IFREG:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with Fd(os.open(name, flags, 0o600, dir_fd=directory)) as fd:
            files.write_all(fd, _data(entry))
    else:
        os.mknod(name, mode, entry.get("device", 0), dir_fd=directory)


def _data(entry: dict[str, Any]) -> bytes:
    if "packed" not in entry:
        return base64.b64decode(entry.get("data", ""))
    unpacking = zlib.decompressobj()
    data = unpacking.decompress(base64.b64decode(entry["packed"]), MOST_BYTES)
    if not unpacking.eof:
        raise ValueError(f"{entry['name']!r} holds more than a list carries")
    return data
