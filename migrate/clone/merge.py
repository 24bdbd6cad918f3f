"""Copies' memory marked for the kernel to merge where it is the same (KSM). Never starts or tunes the merging.

A process says it of itself (PR_SET_MEMORY_MERGE, Linux 6.4), and what it forks is marked as well; from 6.7 on
what it executes, too. So the keeper says it before it starts CRIU, whose children the copy's processes are.
"""

import errno

from ocimig.migrate.clone.errors import NotMergeable
from ocimig.runtime.linux import process

AUTO, ON, OFF = "auto", "on", "off"
RUN = "/sys/kernel/mm/ksm/run"
_MERGES = "1"  # 0: it has stopped, 2: it takes apart what it merged


def decide(wanted: str) -> tuple[bool, str]:
    """Whether copies are to be marked, and what a person should know about that.

    `wanted` is one of the three words; AUTO marks where the host merges. Raises NotMergeable where it has to
    be, and this kernel cannot."""
    reason = impossible()
    if wanted == ON and reason:
        raise NotMergeable(reason=reason)
    if wanted == ON and not merging():
        return True, f"nothing merges what is marked: KSM is off on this host (echo 1 >{RUN})"
    return wanted == ON or (wanted == AUTO and not reason and merging()), ""


def impossible() -> str:
    """Why this kernel marks no process, or nothing."""
    try:
        process.prctl(process.PR_GET_MEMORY_MERGE)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return "this kernel cannot mark a process for KSM (Linux 6.4 with CONFIG_KSM can)"
        return error.strerror or str(error)
    return ""


def merging() -> bool:
    """Whether somebody has switched KSM on here."""
    try:
        with open(RUN, encoding="ascii") as file:
            return file.read().strip() == _MERGES
    except OSError:
        return False


def mark() -> None:
    """Mark this process, and what it starts from now on. Raises OSError."""
    process.prctl(process.PR_SET_MEMORY_MERGE, 1)


def marked(pid: int) -> bool:
    """Whether any mapping of a process is marked. Raises OSError when it is gone."""
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
        return any(line.startswith("VmFlags:") and "mg" in line.split() for line in file)
