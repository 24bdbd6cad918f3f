"""linux.resources.devices → what is allowed, in the terms both versions of cgroups can enforce. Pure.

The result is a default (nothing, or everything) and exceptions to it. That is all that v1 can say,
and v2's program is generated from the same value, so a config means the same on every host.
"""

from ocimig.runtime.errors import DevicesRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ANY = -1

# What every container may use, as runc has it: making any node, and using the default nodes and
# pseudo-terminals. Not /dev/net/tun and not the host's console. (type, major, minor, access)
DEFAULT = (
    ("c", ANY, ANY, "m"),
    ("b", ANY, ANY, "m"),
    ("c", 1, 3, "rwm"),  # null
    ("c", 1, 8, "rwm"),  # random
    ("c", 1, 7, "rwm"),  # full
    ("c", 5, 0, "rwm"),  # tty
    ("c", 1, 5, "rwm"),  # zero
    ("c", 1, 9, "rwm"),  # urandom
    ("c", 136, ANY, "rwm"),  # /dev/pts
    ("c", 5, 2, "rwm"),  # ptmx
)


class Allowed:
    """All devices (`everything`) or none, and the exceptions: (type, major, minor) → access."""

    __slots__ = ("everything", "exceptions")

    def __init__(self) -> None:
        self.everything = False
        self.exceptions: dict[tuple[str, int, int], str] = {}

    def apply(self, allow: bool, kind: str, major: int, minor: int, access: str) -> None:
        """One rule. Raises DevicesRefused for a rule that could only be enforced in appearance."""
        if kind in {"", "a"}:
            self.everything = allow
            self.exceptions = {}
            return
        key = ("c" if kind == "u" else kind, major, minor)  # mknod(1)'s u is a character device
        if allow is not self.everything:
            self.exceptions[key] = _sorted(self.exceptions.get(key, "") + access)
            return
        self._refuse_holes(key, access)
        left = [letter for letter in self.exceptions.get(key, "") if letter not in access]
        if left:
            self.exceptions[key] = "".join(left)
        else:
            self.exceptions.pop(key, None)

    def _refuse_holes(self, key: "tuple[str, int, int]", access: str) -> None:
        # cgroup v1 takes an exception back only as it was made. A hole in a wildcard would be
        # silently ignored by the kernel, and the device stay open.
        kind, major, minor = key
        for wide in ((kind, ANY, minor), (kind, major, ANY), (kind, ANY, ANY)):
            if wide != key and set(self.exceptions.get(wide, "")) & set(access):
                raise DevicesRefused(
                    reason=f"rule {line(key, access)!r} would punch a hole in the wildcard rule "
                    f"{line(wide, self.exceptions[wide])!r}"
                )


def settle(rules: "list[dict[str, Any]] | None") -> Allowed:
    """The rules of config.json in their order, then the defaults. It starts from nothing allowed."""
    allowed = Allowed()
    for rule in rules or []:
        major, minor = rule.get("major"), rule.get("minor")
        allowed.apply(
            bool(rule.get("allow")),
            rule.get("type") or "a",
            ANY if major is None else major,
            ANY if minor is None else minor,
            rule.get("access") or "rwm",
        )
    for kind, major, minor, access in DEFAULT:
        allowed.apply(True, kind, major, minor, access)
    return allowed


def lines_v1(allowed: Allowed) -> "list[tuple[str, str]]":
    """(file, line) in the order in which v1 must get them."""
    first, then = ("devices.deny", "devices.allow")
    if allowed.everything:
        first, then = then, first
    rows = [(then, line(key, access)) for key, access in allowed.exceptions.items()]
    return [(first, "a"), *rows]


def line(key: "tuple[str, int, int]", access: str) -> str:
    """A rule as the kernel writes it: c 1:* rwm."""
    kind, major, minor = key
    return f"{kind} {_number(major)}:{_number(minor)} {access}"


def _number(value: int) -> str:
    return "*" if value == ANY else str(value)


def _sorted(access: str) -> str:
    return "".join(letter for letter in "rwm" if letter in access)
