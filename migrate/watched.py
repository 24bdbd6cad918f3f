"""The names of files that inotify and fanotify watch where the kernel's handles lead nowhere. Reads only.

CRIU finds what is watched by the handle in /proc/PID/fdinfo. On overlayfs, sysfs and devpts
open_by_handle_at(2) fails, and it looks below a few directories of its own and those it is told
(`irmap_scan_paths`): told the very names, it succeeds, and looks at nothing else.
"""

import os
from collections.abc import Iterable, Sequence

from ocimig import files
from ocimig.migrate import mountinfo
from ocimig.migrate.mountinfo import Mount

Key = tuple[int, int]  # device as the kernel prints it (sdev), inode

MOST = 1_000_000  # names that are looked at for one file system before it is given up
_WITHOUT_HANDLES = {"overlay", "proc", "sysfs", "devpts", "mqueue"}
_ONLY_TOP = {"proc", "sysfs"}  # made by the kernel as one looks: endless, and never the same


def marks(info: bytes) -> list[Key]:
    """What a descriptor watches: the lines `inotify wd:1 ino:… sdev:…` and `fanotify ino:… sdev:…`."""
    found = []
    for line in info.splitlines():
        if line.startswith((b"inotify ", b"fanotify ino:")):
            words = dict(word.split(b":", 1) for word in line.split()[1:] if b":" in word)
            found.append((int(words[b"sdev"], 16), int(words[b"ino"], 16)))
    return found


def blind(mounts: Iterable[Mount]) -> set[int]:
    """The devices (sdev) of file systems whose handles cannot be opened."""
    return {
        _sdev(mount.device)
        for mount in mounts
        if mount.fstype in _WITHOUT_HANDLES and "nfs_export=on" not in mount.super_options
    }


def find(init: int, wanted: set[Key], mounts: Sequence[Mount]) -> dict[Key, str]:
    """The names in the container, as far as they can be found."""
    found: dict[Key, str] = {}
    for mount in mounts:
        device = _sdev(mount.device)
        missing = {inode for sdev, inode in wanted if sdev == device} - {
            inode for sdev, inode in found if sdev == device
        }
        if missing:
            top = f"/proc/{init}/root"
            for inode, path in _search(top, mount, missing):
                found.setdefault((device, inode), path)
    return found


def paths(init: int, pids: Iterable[int]) -> list[str]:
    """All names that CRIU has to be told of the processes of a container."""
    marked = {
        key
        for pid in pids
        for number in _watching(pid)
        for key in marks(files.read(f"/proc/{pid}/fdinfo/{number}"))
    }
    if not marked:
        return []
    mounts = mountinfo.read(init)
    devices = blind(mounts)
    wanted = {key for key in marked if key[0] in devices}
    return sorted(find(init, wanted, mounts).values())


def _watching(pid: int) -> list[str]:
    found = []
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            link = os.readlink(f"/proc/{pid}/fd/{number}")
            if link in ("anon_inode:inotify", "anon_inode:[fanotify]"):
                found.append(number)
    except OSError:
        pass  # it ended, or closed one just now
    return found


def _search(top: str, mount: Mount, missing: set[int]) -> list[tuple[int, str]]:
    """Breadth first below one mount, until all are found; other file systems are not entered."""
    try:
        there = os.stat(top + mount.target)
    except OSError:
        return []
    missing = set(missing)
    found = []
    if there.st_ino in missing:
        found.append((there.st_ino, mount.target))
        missing.discard(there.st_ino)
    waiting = [] if mount.fstype in _ONLY_TOP else [mount.target.rstrip("/")]
    seen = 0
    while waiting and missing and seen < MOST:
        directory = waiting.pop(0)
        try:
            entries = list(os.scandir(top + directory + "/"))
        except OSError:
            continue
        seen += len(entries)
        for entry in entries:
            path = f"{directory}/{entry.name}"
            if entry.is_dir(follow_symlinks=False) or entry.inode() in missing:
                inside = entry.stat(follow_symlinks=False)
                if inside.st_dev != there.st_dev:
                    continue
                if inside.st_ino in missing:
                    found.append((inside.st_ino, path))
                    missing.discard(inside.st_ino)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
    return found


def _sdev(text: str) -> int:
    """ "8:1" as the kernel's own dev_t: twelve bits, then twenty."""
    major, _, minor = text.partition(":")
    return int(major) << 20 | int(minor)
