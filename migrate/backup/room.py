"""Where the files of one restore, or of one import, lie while it is under way: a directory that nobody else uses.

`.restores/<id>.<random>` below the state of containers (of an import `imports/` below the cache), locked by flock(2) on the directory itself: what
nobody holds was left by a crash, or is the log of a restore that failed, and goes with the next restore of
that name.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ocimig import files
from ocimig.files import Fd

_HOME = ".restores"
WORK = "criu"  # the directory of CRIU's log in a room
_PLACE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def room(root: str, id: str, home: str = _HOME) -> Iterator[str]:
    """A new directory (0700) for a restore of `id`, gone afterwards; of one that fails with an error that
    names a log in there, the log stays. Raises OSError."""
    home = os.path.join(root, home)
    os.makedirs(home, mode=0o700, exist_ok=True)
    _sweep(home, id)
    path, lock = taken(home, id)
    with lock:
        try:
            yield path
        except BaseException as error:
            _clear(path, _log(error, path))
            raise
        files.remove_tree(path)


def taken(home: str, id: str) -> tuple[str, Fd]:
    """A new directory in `home`, and the lock on it: its maker is at work as long as that is held."""
    while True:
        path = os.path.join(home, f"{id}.{secrets.token_hex(4)}")
        os.mkdir(path, 0o700)
        lock = locked(path)
        if lock is not None and os.path.isdir(path):  # else somebody took it for a leftover
            return path, lock


def _sweep(home: str, id: str) -> None:
    for name in os.listdir(home):
        path = os.path.join(home, name)
        if name.rpartition(".")[0] == id and (lock := locked(path)) is not None:
            with lock:
                files.remove_tree(path)


def locked(path: str) -> Fd | None:
    """The lock on a directory, or nothing where somebody holds it or it is gone."""
    fd = Fd(-1)
    try:
        fd = Fd(os.open(path, _PLACE))
        fcntl.flock(fd.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError, NotADirectoryError):
        fd.close()
        return None
    return fd


def _log(error: BaseException | None, path: str) -> str:
    """The log in there that an error, or what it came from, names."""
    while error is not None:
        named = str(getattr(error, "fields", {}).get("log") or "")
        if os.path.dirname(named) == os.path.join(path, WORK) and os.path.exists(named):
            return named
        error = error.__cause__
    return ""


def _clear(path: str, log: str) -> None:
    """All of it but the log goes."""
    if not log:
        files.remove_tree(path)
        return
    for name in os.listdir(path):
        if name != WORK:
            files.remove_tree(os.path.join(path, name))
    for name in os.listdir(os.path.dirname(log)):
        inner = os.path.join(os.path.dirname(log), name)
        if inner != log:
            with suppress(IsADirectoryError):
                os.unlink(inner)
