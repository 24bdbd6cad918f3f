"""What a far program printed, fit for an error message. Pure."""

_QUOTE = 300  # characters that an error shows


def readable(noise: bytes | bytearray) -> str:
    """Bytes as text, whatever they are."""
    return bytes(noise).decode(errors="replace").strip()


def last_line(text: str) -> str:
    """The line that most likely says why."""
    return text.strip().rpartition("\n")[2].strip()


def shortened(text: str) -> str:
    """The beginning of a text that may be long."""
    return text if len(text) <= _QUOTE else text[:_QUOTE] + "…"
