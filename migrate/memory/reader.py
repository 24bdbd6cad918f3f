"""Pages of another process, or of a shared object, into a buffer. Never writes and never sends.

/proc/PID/mem copies twice but takes pages as they are. process_vm_readv(2) copies once and takes a
thousand runs at a time, yet pins the pages: since Linux 5.19 a page shared with a forked relative is
copied for that, so a first reading of everything would double the memory of a server that forks.
"""

import errno
import os

from ocimig.migrate.memory.runs import PAGE, Run, intersect, merge
from ocimig.runtime.linux import memory

_BATCH = memory.IOV_MAX
_REFUSED = (errno.EPERM, errno.ENOSYS)


class Reader:
    """One space. A process that is gone reads as one without any page."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._own = True
        self._pinning = False
        try:
            self._fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            self._fd = -1

    @classmethod
    def of_file(cls, fd: int) -> "Reader":
        """Reads a shared object by a descriptor of it, which stays the caller's: address = offset."""
        made = cls.__new__(cls)
        made.pid = 0
        made._own = False
        made._pinning = False
        made._fd = fd
        return made

    def pin(self) -> None:
        """From now on pages are read that were written lately, hence hardly shared: the fast way."""
        self._pinning = self.pid != 0

    def read(self, runs: list[Run], into: memoryview, address: int) -> list[Run]:
        """Read the runs one behind the other into a buffer, which lies at `address`.

        What came is returned as runs (touching ones are not joined), and their bytes lie one behind
        the other from the start of the buffer. What is missing in them is not there any more.
        """
        if self._fd < 0:
            return []
        if self._pinning and self._whole_pinned(runs, address):
            return runs
        if self._whole(runs, into):
            return runs
        return self._what_is_there(runs, into)

    def _whole_pinned(self, runs: list[Run], address: int) -> bool:
        for first in range(0, len(runs), _BATCH):
            batch = runs[first : first + _BATCH]
            wanted = sum(end - start for start, end in batch)
            try:
                if memory.process_vm_readv(self.pid, address, batch) != wanted:
                    return False
            except OSError as error:
                if error.errno in _REFUSED:
                    self._pinning = False
                elif error.errno not in {errno.EFAULT, errno.ESRCH}:
                    raise
                return False
            address += wanted
        return True

    def _whole(self, runs: list[Run], into: memoryview) -> bool:
        position = 0
        for start, end in runs:
            stop = position + end - start
            if self._piece(into[position:stop], start) != end - start:
                return False
            position = stop
        return True

    def _what_is_there(self, runs: list[Run], into: memoryview) -> list[Run]:
        """The same, after part of it went away: what is still mapped, and of that what can be read."""
        if self.pid:
            runs = intersect(runs, _mapped(self.pid))
        came: list[Run] = []
        position = 0
        for start, end in runs:
            at = start
            while at < end:
                count = self._piece(into[position : position + end - at], at)
                count -= count % PAGE
                if count:
                    came.append((at, at + count))
                    position += count
                    at += count
                else:
                    at += PAGE
        return came

    def _piece(self, into: memoryview, start: int) -> int:
        """As much as there is from one address on, at once; 0 where there is nothing."""
        try:
            return os.preadv(self._fd, [into], start)
        except OSError as error:
            if error.errno in {errno.EIO, errno.EFAULT, errno.ESRCH}:
                return 0
            raise

    def close(self) -> None:
        """Give the descriptor back."""
        if self._own and self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def _mapped(pid: int) -> list[Run]:
    found: list[Run] = []
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            for line in file:
                start, _, end = line.split(None, 1)[0].partition(b"-")
                found.append((int(start, 16), int(end, 16)))
    except (FileNotFoundError, ProcessLookupError):
        return []
    return merge(found)
