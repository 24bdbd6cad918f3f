"""Acts on one cgroup directory: make, write, join, list, remove. Never decides what is written."""

import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_WRITE = os.O_WRONLY | os.O_CLOEXEC


def make(path: str) -> bool:
    """Make the directory and those above it. False when it was there already."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return False
    except FileNotFoundError:
        above = os.path.dirname(path)
        if above in {path, "", "/"}:
            raise
        make(above)
        return make(path)
    return True


def write(path: str, value: str) -> None:
    """Write one value with one write(2), which is what the kernel reads as one request."""
    fd = os.open(path, _WRITE)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def read(path: str) -> str:
    """A file of the kernel's, without the last newline; empty when it is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    except OSError as error:
        if error.errno == errno.ENODEV:  # the cgroup was removed while we had the file open
            return ""
        error.filename = path
        raise
    finally:
        os.close(fd)
    return b"".join(chunks).decode("utf-8", "surrogateescape").rstrip("\n")


def below(path: str) -> "Iterator[str]":
    """The directory and all below it, the deepest first."""
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        yield from below(os.path.join(path, name))
    yield path


def pids(path: str, *, recursive: bool = True) -> "list[int]":
    """The processes in a cgroup, without those a pid namespace hides (the kernel shows them as 0)."""
    found: set[int] = set()
    for directory in below(path) if recursive else (path,):
        try:
            text = read(os.path.join(directory, "cgroup.procs"))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            # a threaded cgroup of v2 lists threads only; its processes are listed at its domain
            continue
        found.update(map(int, text.split()))
    found.discard(0)
    return sorted(found)


def remove(path: str, *, deadline: float) -> None:
    """Remove the cgroup and those below it. Waits until `deadline` for dying processes to be gone.

    Raises OSError(EBUSY) when something still lives there then.
    """
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in {errno.EBUSY, errno.ENOTEMPTY}:
            if not os.path.lexists(path):  # EROFS comes before ENOENT on a read-only mount
                return
            raise
    else:
        return
    delay = 0.0005
    while True:
        busy = _remove_once(path)
        if busy is None:
            return
        if time.monotonic() > deadline:
            raise busy
        time.sleep(delay)
        delay = min(delay * 2, 0.1)


def _remove_once(path: str) -> "OSError | None":
    for directory in below(path):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in {errno.EBUSY, errno.ENOTEMPTY}:
                raise
            return error
    return None


def signal_all(path: str, number: int) -> int:
    """Send a signal to every process of the cgroup, through pidfds. How many got it."""
    from ocimig.runtime.linux import process

    opened: list[tuple[int, int]] = []
    try:
        for pid in pids(path):
            try:
                opened.append((pid, process.pidfd_open(pid)))
            except OSError as error:
                if error.errno not in {errno.ESRCH, errno.EINVAL}:
                    raise
        # A pid that is listed after its pidfd was opened belongs to that pidfd, or that pidfd is dead.
        members = set(pids(path))
        sent = 0
        for pid, fd in opened:
            if pid in members:
                try:
                    process.pidfd_send_signal(fd, number)
                    sent += 1
                except ProcessLookupError:
                    pass  # it ended by itself
        return sent
    finally:
        for _, fd in opened:
            os.close(fd)


def who(path: str) -> str:
    """Who is in a cgroup that cannot be removed, for an error; empty when it cannot be told."""
    try:
        inside = pids(path)
    except OSError:
        return ""
    return f" (processes {' '.join(map(str, inside[:8]))})" if inside else ""
