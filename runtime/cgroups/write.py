"""One value for one file of a cgroup: what a plan is made of. Never touches a file."""

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

    def __init__(self, has: "Callable[[str, str], bool]", value: "Callable[[str, str], str]") -> None:
        self.has = has
        self.value = value


def limit(section: "dict[str, Any] | None", name: str) -> int:
    """A number of a section of the resources; 0, which everywhere means "leave it", when absent."""
    return (section.get(name) or 0) if section else 0


def device(row: "dict[str, Any]") -> str:
    """A device of a blockIO row as the kernel writes it."""
    return f"{row.get('major', 0)}:{row.get('minor', 0)}"
