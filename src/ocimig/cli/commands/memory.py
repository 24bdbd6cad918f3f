"""dirty-rate: what a container does to its memory."""

from ocimig import jsonio
from ocimig.cli import context
from ocimig.cli.verbs import Call

SECONDS = 2


def dirty_rate(call: Call) -> int:
    """Measure for a while, then say what was seen."""
    from ocimig.migrate import dirty_rate as room

    prefer = "" if call.text("tracker") == "auto" else call.text("tracker")
    seconds = max(1, call.number("seconds", SECONDS))
    found = room.measure(context.store(call), call.arguments[0], float(seconds), prefer)
    if call.flag("json"):
        print(jsonio.dumps(found.to_dict(), indent=2))
        return 0
    for line in found.lines():
        print(line)
    return 0
