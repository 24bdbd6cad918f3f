"""Text from outside, made safe for a terminal; sizes for people. Never prints."""

import shlex


def shown(text: str) -> str:
    """What cannot be printed, such as a terminal's control characters or a change of direction, is escaped."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def line(words: list[str]) -> str:
    """A command line, as a shell would take it."""
    return shown(" ".join(shlex.quote(word) for word in words))


def amount(size: int) -> str:
    """Bytes in the unit that suits them: "512 B", "4.0 KiB", "1.5 GiB"."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"
