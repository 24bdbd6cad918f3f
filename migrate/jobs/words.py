"""Times and parts as people write them in a job's file. Pure; ValueError with the reason."""

import re

_UNITS = {
    "second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400,
    "month": 30 * 86400, "year": 365 * 86400,
}  # fmt: skip
_SHORT = {"s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour", "hr": "hour",
          "d": "day", "w": "week", "y": "year"}  # fmt: skip
ALWAYS = "always"
_LONGEST = 10 * 365 * 86400.0  # of a timeout or a frequency more is a slip of the finger


def seconds(text: str) -> float:
    """A length of time: "90 s", "1 hour 30 min", "2 weeks", "1 month" (30 days); systemd's short units.

    m is a minute, as for systemd. A bare number is refused, but for 0.
    """
    if text.strip() == "0":
        return 0.0
    pairs = re.findall(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", text)
    if not pairs or "".join(text.split()) != "".join(number + unit for number, unit in pairs):
        raise ValueError(f"{text!r} is no length of time: as in 90 s, 2 hours, 1 week")
    total = 0.0
    for number, unit in pairs:
        name = _SHORT.get(unit, unit.lower().removesuffix("s"))
        if name not in _UNITS:
            raise ValueError(f"{text!r}: {unit!r} is no unit of time: {', '.join(_UNITS)}")
        total += float(number) * _UNITS[name]
    if total > _LONGEST:
        raise ValueError(f"{text[:40]!r} is more than {duration(_LONGEST)}")
    return total


def frequency(text: str) -> float:
    """How often, in seconds: as borgmatic, a length of time or "always", which is 0."""
    return 0.0 if text == ALWAYS else seconds(text)


def part(text: str) -> float:
    """A part of the whole, 0 to 1: "5%"."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*%", text)
    if found is None or not 0 < float(found[1]) <= 100:
        raise ValueError(f"{text!r} is no part: as in 5%, more than 0% and at most 100%")
    return float(found[1]) / 100


def duration(length: float) -> str:
    """Seconds for people: the two largest units, "1 week 2 days"."""
    if length < 1:
        return f"{length:.2f} s"
    left, parts = round(length), []
    for name, unit in (("week", 604800), ("day", 86400), ("hour", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, unit)
        if count:
            plural = "s" if count > 1 and name not in ("min", "s") else ""
            parts.append(f"{count} {name}{plural}")
    return " ".join(parts[:2])
