"""Performs a plan of values, and says in words what the kernel did not take."""

import errno

from ocimig.runtime.cgroups import tree
from ocimig.runtime.cgroups.errors import LimitRefused
from ocimig.runtime.cgroups.write import AGAIN, IF_THERE, Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def perform(writes: "list[Write]", file: "Callable[[Write], str]") -> None:
    """Write each value to `file(write)`. Raises LimitRefused at the first one that must be and cannot."""
    waiting: list[Write] = []
    for index, write in enumerate(writes):
        later = any(after.controller == write.controller for after in writes[index + 1 :])
        try:
            tree.write(file(write), write.value)
        except OSError as error:
            if write.policy == IF_THERE and error.errno in {errno.ENOENT, errno.EOPNOTSUPP}:
                continue
            if write.policy == AGAIN and error.errno == errno.EINVAL and later:
                waiting.append(write)
                continue
            raise _refused(write, error) from error
    for write in waiting:
        try:
            tree.write(file(write), write.value)
        except OSError as error:
            raise _refused(write, error) from error


def _refused(write: Write, error: OSError) -> LimitRefused:
    reason = f"{error.filename} = {write.value}: {error.strerror}"
    if error.errno == errno.ENOENT:
        reason = f"{error.filename} does not exist: the kernel has no such limit, or the controller is not available here"
    elif error.errno == errno.EBUSY and write.file in {"memory.limit_in_bytes", "memory.max"}:
        usage = tree.read(str(error.filename).rpartition("/")[0] + "/memory.usage_in_bytes")
        reason = f"unable to set memory limit to {write.value} (current usage: {usage})"
    return LimitRefused(controller=write.controller, reason=reason)
