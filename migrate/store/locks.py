"""Who holds a store. The kernel keeps the locks, so none outlives its process; the records are for people.

The lock is flock(2) on the file `lock`. Each holder has a record in `holders/` and a flock on that too:
a record that nobody holds is of somebody dead, whatever its pid, host, boot or clock say.
"""

import errno
import fcntl
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ocimig import jsonio, log
from ocimig.files import Fd, write_all
from ocimig.migrate.store.errors import StoreLocked
from ocimig.runtime.linux import proc

LOCK, HOLDERS, TMP = "lock", "holders", "tmp"

_UNKNOWN = "somebody who left no word who it is"
_LARGEST = 4096  # bytes of a record
_LONGEST = 120  # characters of one of its fields
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def held(
    root: int, words: str, *, exclusive: bool, purpose: str, alone: Callable[[], None]
) -> Iterator[None]:
    """Hold the store whose directory is `root`; `alone` is called where nobody else is there.

    Raises StoreLocked at once where others are in the way, OSError for the rest.
    """
    with Fd(_open(root)) as fd:
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            found = "; ".join(holders(root)) or _UNKNOWN
            raise StoreLocked(place=words, holders=found) from None
        if exclusive:
            alone()
            holders(root)  # every record that is still there is of somebody dead
        name, record = _record(root, exclusive=exclusive, purpose=purpose)
        try:
            yield
        finally:
            if record >= 0:
                with suppress(OSError), Fd(os.open(HOLDERS, _DIRECTORY, dir_fd=root)) as directory:
                    os.unlink(name, dir_fd=directory)
                os.close(record)


def holders(root: int) -> list[str]:
    """Who holds the store, in words; records of the dead are removed on the way. Raises OSError."""
    found = []
    try:
        opened = os.open(HOLDERS, _DIRECTORY, dir_fd=root)
    except FileNotFoundError:
        return []
    with Fd(opened) as directory:
        for name in sorted(os.listdir(directory)):
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                record = os.open(name, flags, dir_fd=directory)
            except OSError:  # its holder is done, or it is no record
                continue
            with Fd(record) as fd:
                try:
                    # shared: two who look at the same moment do not take each other for the holder
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    found.append(_words(os.pread(fd, _LARGEST, 0)))
                else:
                    with suppress(OSError):
                        os.unlink(name, dir_fd=directory)
    return found


def _open(root: int) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(LOCK, flags | os.O_RDWR | os.O_CREAT, 0o600, dir_fd=root)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return os.open(LOCK, flags | os.O_RDONLY, dir_fd=root)


def _record(root: int, *, exclusive: bool, purpose: str) -> tuple[str, int]:
    """Leave word who holds it: the record's name and descriptor, which is -1 where nothing can be written.

    It comes into `holders/` with its lock on, so that nobody takes it for one of the dead.
    """
    stat = proc.stat(os.getpid())
    about = {
        "pid": os.getpid(),
        "start_time": stat.start_time if stat else 0,
        "boot_id": proc.boot_id(),
        "host": socket.gethostname(),
        "purpose": _plain(purpose),
        "since": round(time.time(), 3),
        "alone": exclusive,
    }
    name = f"{secrets.token_hex(8)}.json"
    fd = -1
    try:
        with (
            Fd(os.open(TMP, _DIRECTORY, dir_fd=root)) as tmp,
            Fd(os.open(HOLDERS, _DIRECTORY, dir_fd=root)) as directory,
        ):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=tmp)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                write_all(fd, jsonio.dumps(about).encode())
                os.rename(name, name, src_dir_fd=tmp, dst_dir_fd=directory)
            except BaseException:
                with suppress(OSError):
                    os.unlink(name, dir_fd=tmp)
                raise
    except OSError as error:  # a full or read-only disk: the lock holds without it
        log.debug(f"no record of who holds the store: {error}")
        if fd >= 0:
            os.close(fd)
        return name, -1
    return name, fd


def _words(data: bytes) -> str:
    try:
        value = jsonio.loads(data)
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(value["since"])))
        how = "alone" if value["alone"] else "with others"
        who = f"pid {int(value['pid'])} on {_plain(value['host'])}"
        return f"{who}, {_plain(value['purpose'])}, {how}, since {since}"
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return _UNKNOWN


def _plain(text: object) -> str:
    """Fit for one line of a terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(text)[:_LONGEST]) or "unnamed"
