"""Two directory trees, compared in everything but inode numbers and access times."""

import os
import stat
from pathlib import Path
from typing import Any


def facts(root: str | Path) -> dict[str, dict[str, Any]]:
    """Everything about every name below `root` that a copy must keep."""
    found: dict[str, dict[str, Any]] = {}
    names: dict[tuple[int, int], list[str]] = {}
    base = os.fspath(root)
    for directory, below, files in os.walk(base):
        for name in ["", *below, *files] if directory == base else [*below, *files]:
            path = os.path.join(directory, name) if name else base
            status = os.lstat(path)
            relative = os.path.relpath(path, base)
            found[relative] = _facts(path, status)
            if not stat.S_ISDIR(status.st_mode):
                names.setdefault((status.st_dev, status.st_ino), []).append(relative)
    for twins in names.values():
        for name in twins:
            found[name]["links"] = sorted(twins)
    return found


def _facts(path: str, status: os.stat_result) -> dict[str, Any]:
    known: dict[str, Any] = {
        "mode": oct(status.st_mode),
        "owner": (status.st_uid, status.st_gid),
        "mtime": status.st_mtime_ns,
        "attributes": {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        },
    }
    if stat.S_ISREG(status.st_mode):
        known["content"] = Path(path).read_bytes()
        known["sparse"] = status.st_blocks * 512 < status.st_size
    elif stat.S_ISLNK(status.st_mode):
        known["target"] = os.readlink(path)
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        known["device"] = status.st_rdev
    return known


def differences(one: str | Path, other: str | Path) -> list[str]:
    """What differs, in words; empty when the trees are the same."""
    left, right = facts(one), facts(other)
    told = [f"{name}: only in {one}" for name in sorted(left.keys() - right.keys())]
    told += [f"{name}: only in {other}" for name in sorted(right.keys() - left.keys())]
    for name in sorted(left.keys() & right.keys()):
        for what, value in left[name].items():
            there = right[name].get(what)
            if value != there:
                told.append(f"{name}: {what} is {_short(value)} and {_short(there)}")
    return told


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}… ({len(text)})"
