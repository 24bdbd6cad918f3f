"""Names of what holds memory: `p<pid>` a process, `s<shmid>` a shared object. Never looks inside.

The pid is that in the container's own pid namespace, and the shmid CRIU's: both are in the names of
CRIU's images (pagemap-<pid>.img, pagemap-shmem-<shmid>.img), so that both hosts mean the same by them.
"""

import re
from dataclasses import dataclass

_NAME = re.compile(r"p[1-9][0-9]{0,9}|s(?:0|[1-9][0-9]{0,19})")
_MOST_PID = (1 << 31) - 1
_MOST_SHMID = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Space:
    """One address space of this host, by the name both hosts know."""

    name: str
    pid: int  # on this host
    start_time: int = 0  # clock ticks after boot: with it the pid is one process for ever


def of_process(pid: int) -> str:
    """The name of the address space of a process, by its pid in the container."""
    return f"p{pid}"


def of_shared(shmid: int) -> str:
    """The name of a shared memory object, by CRIU's number for it."""
    return f"s{shmid}"


def check(name: object) -> str:
    """The same name. Raises ValueError where it is no name of a space."""
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ValueError(f"{name!r} is not a space")
    if int(name[1:]) > (_MOST_PID if name[0] == "p" else _MOST_SHMID):
        raise ValueError(f"{name!r} is not a space")
    return name


def number(name: str) -> int:
    """The pid or shmid in a name. Raises ValueError where it is no name of a space."""
    return int(check(name)[1:])


def is_process(name: str) -> bool:
    """Whether the name is that of a process's address space."""
    return name.startswith("p")
