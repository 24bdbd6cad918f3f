"""From process.capabilities to the five masks the kernel is given, with what had to be left out in words. Pure."""

from ocimig.runtime.linux.capabilities import mask, names_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALL = (1 << 64) - 1
SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


class CapabilityPlan:
    """Five masks that capset(2) and prctl(2) will take, and the warnings that got them there."""

    __slots__ = (*SETS, "warnings")

    def __init__(self, masks: "dict[str, int]", warnings: "list[str]") -> None:
        self.bounding = masks["bounding"]
        self.effective = masks["effective"]
        self.inheritable = masks["inheritable"]
        self.permitted = masks["permitted"]
        self.ambient = masks["ambient"]
        self.warnings = warnings

    def describe(self) -> str:
        """The sets on one line, as masks, in the kernel's order."""
        return (
            f"capabilities inh={self.inheritable:x} prm={self.permitted:x} "
            f"eff={self.effective:x} bnd={self.bounding:x} amb={self.ambient:x}"
        )


def plan(capabilities: "dict[str, Any] | None", *, available: int) -> CapabilityPlan:
    """The masks for `process.capabilities`; without it a process gets none at all.

    `available` is our own bounding set, or ALL in a user namespace other than ours, where a process
    starts with every capability. What cannot be had is left out with a warning, as the specification
    asks, so that a config written for a bigger host still starts here.
    """
    wanted = capabilities or {}
    warnings: list[str] = []
    unknown: set[str] = set()
    masks: dict[str, int] = {}
    absent = 0
    for kind in SETS:
        bits, strange = mask(wanted.get(kind) or ())
        unknown.update(strange)
        absent |= bits & ~available
        masks[kind] = bits & available
    if unknown:
        words = " ".join(sorted(unknown))
        warnings.append(f"ignoring unknown or unavailable capabilities: [{words}]")
    if absent:
        words = " ".join(names_of(absent))
        warnings.append(f"ignoring capabilities that this process does not have itself: [{words}]")
    # capset(2): effective within permitted; inheritable within the bounding set
    _within(masks, "effective", masks["permitted"], "permitted", warnings)
    _within(masks, "inheritable", masks["bounding"], "bounding", warnings)
    raisable = masks["permitted"] & masks["inheritable"]
    warnings += [
        f"can't raise ambient capability {name}: it is not permitted and inheritable"
        for name in names_of(masks["ambient"] & ~raisable)
    ]
    masks["ambient"] &= raisable
    return CapabilityPlan(masks, warnings)


def _within(
    masks: "dict[str, int]", kind: str, holder: int, what: str, warnings: "list[str]"
) -> None:
    outside = masks[kind] & ~holder
    if outside:
        words = " ".join(names_of(outside))
        warnings.append(f"leaving out {kind} capabilities that are not {what}: [{words}]")
        masks[kind] &= holder


def added(capabilities: "dict[str, Any] | None", names: "list[str]") -> "dict[str, Any]":
    """The capabilities of `exec --cap`: more bounding, effective and permitted ones, never inheritable.

    A filled inheritable set let programs with file capabilities gain more than the container has
    (CVE-2022-29162); ambient ones are raised only where the config itself has inheritable ones.
    """
    before = capabilities or {}
    kinds = ["bounding", "effective", "permitted"]
    if before.get("inheritable"):
        kinds.append("ambient")
    after = {kind: list(rows) for kind, rows in before.items()}
    for kind in kinds:
        held = after.setdefault(kind, [])
        held += [name for name in names if name not in held]
    return after
