"""One value for one file of a cgroup: what a plan is made of, and how a plan is carried out."""

import errno

from ocimig.runtime.cgroups import tree
from ocimig.runtime.errors import LimitRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MUST = 0  # a refusal ends the work
AGAIN = 1  # EINVAL now: once more after the controller's next values (cpu period, burst and quota)
IF_THERE = 2  # nothing to do where the kernel has no such file


class Write:
    """Write `value` to `file` of the cgroup that `controller` has."""

    __slots__ = ("controller", "file", "policy", "value")

    def __init__(self, controller: str, file: str, value: "str | int", policy: int = MUST) -> None:
        self.controller = controller
        self.file = file
        self.value = str(value)
        self.policy = policy

    def describe(self) -> str:
        """The act in words."""
        return f"write {self.value} -> {self.controller}:{self.file}"

    __repr__ = describe

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Write) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> "tuple[str, str, str, int]":
        return (self.controller, self.file, self.value, self.policy)


class Cgroupfs:
    """What a plan may ask of the machine: which files there are, and what is in them now."""

    __slots__ = ("has", "value")

    def __init__(
        self, has: "Callable[[str, str], bool]", value: "Callable[[str, str], str]"
    ) -> None:
        self.has = has
        self.value = value


def limit(section: "dict[str, Any] | None", name: str) -> int:
    """A number of a section of the resources; 0, which everywhere means "leave it", when absent."""
    return (section.get(name) or 0) if section else 0


def device(row: "dict[str, Any]") -> str:
    """A device of a blockIO row as the kernel writes it."""
    return f"{row.get('major', 0)}:{row.get('minor', 0)}"


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
