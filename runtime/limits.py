"""What is set on a process from outside, before it drops its rights: resource limits, OOM score."""

import errno
import os
import resource

from ocimig import log
from ocimig.runtime.errors import InitFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# <asm-generic/resource.h>: numbers that the `resource` module has not got
_NUMBERS = {"RLIMIT_LOCKS": 10}
_INFINITY = 2**64 - 1


def apply(pid: int, process: "dict[str, Any]") -> None:
    """Set what `process` of config.json asks of `pid`. Raises InitFailed naming the limit."""
    for limit in process.get("rlimits") or []:
        _set(pid, limit["type"], limit["soft"], limit["hard"])
    score = process.get("oomScoreAdj")
    if score is not None:
        _oom_score(pid, score)


def _set(pid: int, name: str, soft: int, hard: int) -> None:
    number = _NUMBERS.get(name)
    if number is None:
        number = getattr(resource, name)
    try:
        resource.prlimit(pid, number, (_number(soft), _number(hard)))
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else str(error)
        now = resource.prlimit(pid, number)[1]
        raise InitFailed(
            what=f"error setting rlimit {name} to {soft}:{hard}",
            reason=f"{reason} (the hard limit here is {'unlimited' if now == -1 else now})",
        ) from None


def _number(value: int) -> int:
    return resource.RLIM_INFINITY if value >= _INFINITY else value


def _oom_score(pid: int, score: int) -> None:
    path = f"/proc/{pid}/oom_score_adj"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if int(os.read(fd, 16)) != score:
                os.lseek(fd, 0, os.SEEK_SET)
                os.write(fd, str(score).encode())
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM}:
            raise InitFailed(what=f"set oomScoreAdj {score}", reason=error.strerror or "") from None
        log.warning(f"oomScoreAdj {score} was not set: lowering it needs CAP_SYS_RESOURCE")
