"""The words a field of config.json may be checked with. Never knows which field it is.

A check is `check(path, value, problems)`: it appends `(path, words)` for each thing that is wrong.
`record`, `rows` and `table` build checks out of checks, so a field table reads like the document.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Problems = list[tuple[str, str]]
    Check = Callable[[str, Any, Problems], None]

INT64 = (-(1 << 63), (1 << 63) - 1)
UINT16 = (0, (1 << 16) - 1)
UINT32 = (0, (1 << 32) - 1)
UINT64 = (0, (1 << 64) - 1)
MAX_TEXT = 262144  # bytes of one string: an annotation may be long, nothing else comes near
MAX_PATH = 4095  # PATH_MAX without its NUL
MAX_ARGUMENT = 131071  # MAX_ARG_STRLEN without its NUL: execve(2) takes no longer one
MAX_ROWS = 65536


def kind(value: "Any") -> str:
    """What a value is, as a person who wrote the JSON would say it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"


def shown(value: "Any") -> str:
    """A value short enough for a message, with nothing in it that a terminal would obey."""
    words = ascii(value)
    return words if len(words) <= 60 else words[:57] + "..."


def inside(path: str, name: str) -> str:
    """The path of a key: dotted, or bracketed where the key itself would read as a path."""
    if name.replace("_", "").isalnum() and name.isascii():
        return f"{path}.{name}" if path else name
    return f"{path}[{shown(name)}]"


def boolean(path: str, value: "Any", problems: "Problems") -> None:
    """true or false."""
    if value is not True and value is not False:
        problems.append((path, f"must be true or false, is {kind(value)}"))


def integer(low: int, high: int) -> "Check":
    """A whole number from `low` to `high`."""

    def check(path: str, value: "Any", problems: "Problems") -> None:
        if value.__class__ is not int:
            real = isinstance(value, float)
            found = shown(value) if real else kind(value)
            problems.append((path, f"must be a whole number, is {found}"))
        elif not low <= value <= high:
            number = hex(value) if abs(value) >> 128 else str(value)
            number = number if len(number) < 60 else "far outside"
            problems.append((path, f"must be from {low} to {high}, is {number}"))

    return check


def text(path: str, value: "Any", problems: "Problems", limit: int = MAX_TEXT) -> bool:
    """A string that can be handed to the kernel. True when it is one."""
    if value.__class__ is not str:
        problems.append((path, f"must be a string, is {kind(value)}"))
        return False
    if value.isascii():
        size = len(value)
    else:
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            problems.append((path, "holds half of a surrogate pair, which is not text"))
            return False
    if size > limit:
        problems.append((path, f"is {size} bytes long, at most {limit} are possible"))
        return False
    if "\0" in value:
        problems.append((path, "holds a NUL byte"))
        return False
    return True


def string(path: str, value: "Any", problems: "Problems") -> None:
    """Any string."""
    text(path, value, problems)


def argument(path: str, value: "Any", problems: "Problems") -> None:
    """A string of an argument list."""
    text(path, value, problems, MAX_ARGUMENT)


def short(limit: int) -> "Check":
    """A string of at most `limit` bytes."""

    def check(path: str, value: "Any", problems: "Problems") -> None:
        text(path, value, problems, limit)

    return check


def any_path(path: str, value: "Any", problems: "Problems") -> None:
    """A path that is not empty."""
    if text(path, value, problems, MAX_PATH) and not value:
        problems.append((path, "must not be empty"))


def absolute(path: str, value: "Any", problems: "Problems") -> None:
    """A path that starts with a slash."""
    if text(path, value, problems, MAX_PATH) and value[:1] != "/":
        problems.append((path, f"must be an absolute path, is {shown(value)}"))


def absolute_or_empty(path: str, value: "Any", problems: "Problems") -> None:
    """A path that starts with a slash, or nothing: many writers print empty fields."""
    if value != "":
        absolute(path, value, problems)


def choice(allowed: "Iterable[str]", *, empty: bool = False) -> "Check":
    """One of a few words."""
    words = frozenset(allowed) | ({""} if empty else frozenset())
    listed = ", ".join(allowed)

    def check(path: str, value: "Any", problems: "Problems") -> None:
        if value.__class__ is not str:
            problems.append((path, f"must be a string, is {kind(value)}"))
        elif value not in words:
            problems.append((path, f"is {shown(value)}, must be one of {listed}"))

    return check


def record(fields: "dict[str, Check]", required: "tuple[str, ...]" = ()) -> "Check":
    """An object with known fields. Unknown ones are ignored, as the specification demands."""

    def check(path: str, value: "Any", problems: "Problems") -> None:
        if value.__class__ is not dict:
            problems.append((path or "the document", f"must be an object, is {kind(value)}"))
            return
        prefix = path + "." if path else ""
        known = fields.get
        for name, inner in value.items():
            field = known(name)
            if field is not None and inner is not None:
                field(prefix + name, inner, problems)
        for name in required:
            if value.get(name) is None:
                problems.append((prefix + name, "is missing"))

    return check


def rows(each: "Check", *, limit: int = MAX_ROWS, least: int = 0) -> "Check":
    """A list whose every row passes `each`."""

    def check(path: str, value: "Any", problems: "Problems") -> None:
        if value.__class__ is not list:
            problems.append((path, f"must be a list, is {kind(value)}"))
        elif len(value) < least:
            problems.append((path, "must not be empty"))
        elif len(value) > limit:
            problems.append((path, f"has {len(value)} rows, at most {limit} are possible"))
        else:
            for number, inner in enumerate(value):
                each(f"{path}[{number}]", inner, problems)

    return check


def table(each: "Check", *, limit: int = MAX_ROWS) -> "Check":
    """An object whose keys are free and whose every value passes `each`."""

    def check(path: str, value: "Any", problems: "Problems") -> None:
        if value.__class__ is not dict:
            problems.append((path, f"must be an object, is {kind(value)}"))
            return
        if len(value) > limit:
            problems.append((path, f"has {len(value)} keys, at most {limit} are possible"))
            return
        for name, inner in value.items():
            where = inside(path, name)
            before = len(problems)
            text(where, name, problems)
            if not name:
                problems.append((where, "the key must not be empty"))
            if inner is not None and len(problems) == before:
                each(where, inner, problems)

    return check
