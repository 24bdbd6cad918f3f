"""A sign in a container's state directory that some of its memory is still to come. Never waits on the memory.

The sign is a lock that the page handler and its guard hold together, so it ends with the last of them. While
it is held the container must not be dumped or tracked: what has not come looks as if it had never been.
"""

import fcntl
import os
import time
from contextlib import suppress

from ocimig.files import Fd
from ocimig.migrate.lazy import hurry
from ocimig.migrate.lazy.errors import StillFilling

NAME = "filling"
PATIENCE = 600.0  # seconds: 300 GiB at the slowest that was measured
_TICK = 0.01


def take(directory: str) -> int:
    """A descriptor that holds the sign as long as it, or a copy of it, is open."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with Fd(os.open(os.path.join(directory, NAME), flags, 0o600)) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return os.dup(fd)


def require(directory: str, id: str, seconds: float = PATIENCE) -> None:
    """Wait until all memory of a container has come. Raises StillFilling."""
    if not wait(directory, seconds):
        raise StillFilling(id=id, seconds=round(seconds))


def wait(directory: str, seconds: float = 0.0) -> bool:
    """Whether all memory has come, after waiting for it for so long at most."""
    path = os.path.join(directory, NAME)
    if seconds and os.path.exists(path):
        hurry.ask(directory)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return True
        with Fd(fd):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_TICK)
