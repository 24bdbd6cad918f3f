"""What /proc says of a process. Reads only; a process that is gone is None, never an error."""

import errno
import os

ZOMBIE = "Z"
DEAD = "X"
PF_EXITING = 0x4  # include/linux/sched.h: set before a process lets go of its files and locks


class ProcStat:
    """The fields of /proc/PID/stat that are used here. `start_time` is in clock ticks since boot."""

    __slots__ = (
        "comm", "flags", "pgrp", "pid", "ppid", "session", "start_time", "state", "threads", "tty",
    )  # fmt: skip

    def __init__(self, text: bytes) -> None:
        # comm is in parentheses and may hold any byte, parentheses and spaces too: the last ")" ends it
        opening, closing = text.index(b"("), text.rindex(b")")
        fields = text[closing + 2 :].split()
        self.pid = int(text[:opening])
        self.comm = text[opening + 1 : closing].decode("utf-8", "replace")
        self.state = fields[0].decode()
        self.ppid = int(fields[1])
        self.pgrp = int(fields[2])
        self.session = int(fields[3])
        self.tty = int(fields[4])
        self.flags = int(fields[6])
        self.threads = int(fields[17])
        self.start_time = int(fields[19])

    @property
    def ended(self) -> bool:
        """Whether it will never run again, though its parent has not asked for its status yet.

        A main thread that ended before the others looks like a zombie; the process lives on.
        """
        return self.state in {ZOMBIE, DEAD} and self.threads <= 1

    @property
    def ending(self) -> bool:
        """Whether its main thread ended or is about to: who gets a lock that it held sees it so."""
        return self.ended or bool(self.flags & PF_EXITING)


def stat(pid: int) -> "ProcStat | None":
    """What /proc/PID/stat says now."""
    text = _read(f"/proc/{pid}/stat")
    return ProcStat(text) if text else None


def status(pid: int) -> "dict[str, str] | None":
    """The lines of /proc/PID/status: {"Uid": "0\\t0\\t0\\t0", "NSpid": …, "CapEff": …}."""
    text = _read(f"/proc/{pid}/status")
    if not text:
        return None
    lines = (line.partition(":") for line in text.decode("utf-8", "replace").split("\n") if line)
    return {name: value.strip() for name, _, value in lines}


def children(pid: int) -> "list[int]":
    """The children of all threads of `pid`, zombies too."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        text = _read(f"/proc/{pid}/task/{thread}/children")
        if text is None and not os.path.exists("/proc/thread-self/children"):
            return _children_by_scan(pid)  # a kernel without CONFIG_PROC_CHILDREN
        found += map(int, (text or b"").split())
    return found


def _children_by_scan(pid: int) -> "list[int]":
    return [other for other in pids() if (it := stat(other)) is not None and it.ppid == pid]


def descendants(pid: int) -> "list[int]":
    """Everything below `pid`, parents first."""
    found: list[int] = []
    waiting = children(pid)
    while waiting:
        found += waiting
        waiting = [child for parent in waiting for child in children(parent)]
    return found


def pids() -> "list[int]":
    """Every process, smallest number first."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def boot_id() -> str:
    """Tells one boot of this machine from another: a start time means something only within it."""
    return (_read("/proc/sys/kernel/random/boot_id") or b"").decode().strip()


def _read(path: str) -> "bytes | None":
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ESRCH, errno.EACCES}:
            return None
        raise
    try:
        chunks = []
        while chunk := os.read(fd, 4096):
            chunks.append(chunk)
        return b"".join(chunks)
    except ProcessLookupError:  # it ended between open and read
        return None
    finally:
        os.close(fd)
