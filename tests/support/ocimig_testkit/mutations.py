"""Random changes to a directory tree, for whoever must keep up with them. Needs root."""

import errno
import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path


def mutate(root: Path, dice: random.Random) -> None:
    """One random change somewhere below `root`."""
    directories, names = [], []
    for directory, below, others in os.walk(root):
        if directory.count("/") > str(root).count("/") + 5:
            below.clear()
        directories.append(Path(directory))
        names += [Path(directory, name) for name in (*below, *others)]
    names.sort()
    directories.sort()
    place = dice.choice(directories) / f"n{dice.randrange(12)}"
    victim = dice.choice(names) if names else place
    try:
        _ACTS[dice.randrange(len(_ACTS))](place, victim, dice)
    except OSError as error:
        allowed = (errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY)
        more = (errno.EINVAL, errno.EPERM, errno.ELOOP, errno.EXDEV, errno.ENXIO, errno.EOPNOTSUPP)
        sticky = (errno.EACCES,)  # another's file in a directory like /tmp: fs.protected_regular
        if error.errno not in allowed + more + sticky:
            raise


def _write(place: Path, victim: Path, dice: random.Random) -> None:
    size = dice.choice([0, 1, 100, 4096, 200_000])
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(place, flags, 0o644)
    with os.fdopen(fd, "wb") as file:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            file.write(dice.randbytes(size))


def _append(place: Path, victim: Path, dice: random.Random) -> None:
    if stat.S_ISREG(victim.lstat().st_mode):
        with victim.open("ab") as file:
            file.write(b"more")


def _hole(place: Path, victim: Path, dice: random.Random) -> None:
    if not place.exists() and not place.is_symlink():
        place.touch()
        os.truncate(place, dice.choice([1 << 16, 5 << 20]))


def _remove(place: Path, victim: Path, dice: random.Random) -> None:
    if victim.is_dir() and not victim.is_symlink():
        shutil.rmtree(victim, ignore_errors=True)
    else:
        victim.unlink()


def _attribute(place: Path, victim: Path, dice: random.Random) -> None:
    os.setxattr(victim, f"trusted.t{dice.randrange(3)}", dice.randbytes(9), follow_symlinks=False)


def _mode(place: Path, victim: Path, dice: random.Random) -> None:
    if not victim.is_symlink():
        victim.chmod(dice.choice([0, 0o600, 0o755, 0o4711, 0o2775, 0o1777]))


_ACTS: list[Callable[[Path, Path, random.Random], object]] = [
    _write,
    _write,
    _append,
    _hole,
    _remove,
    _attribute,
    _mode,
    lambda place, victim, dice: place.mkdir(),
    lambda place, victim, dice: place.mkdir(),
    lambda place, victim, dice: os.symlink(dice.choice(["x", "/", "../.."]), place),
    lambda place, victim, dice: os.link(victim, place, follow_symlinks=False),
    lambda place, victim, dice: os.link(victim, place, follow_symlinks=False),
    lambda place, victim, dice: victim.rename(place),
    lambda place, victim, dice: os.mkfifo(place),
    lambda place, victim, dice: os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    lambda place, victim, dice: os.chown(
        victim, dice.randrange(3), dice.randrange(3), follow_symlinks=False
    ),
    lambda place, victim, dice: os.utime(
        victim, ns=(0, dice.randrange(1 << 60)), follow_symlinks=False
    ),
]
