"""inspect, diff, memory: what is in a checkpoint. Reads images, starts nothing."""

import sys

from ocimig.cli.verbs import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocimig.cli.inspect_document import Wanted


def inspect(call: Call) -> int:
    """The processes of a checkpoint, with what is asked for of them."""
    from ocimig.cli import inspect_document, inspect_source, inspect_text

    with inspect_source.sources(call) as opened:
        document = inspect_document.Document(opened(call.arguments[0]), _wanted(call))
        if call.text("html"):
            from ocimig.cli import inspect_html

            inspect_html.write(call.text("html"), document)
        elif call.text("format") == "json":
            for text in inspect_document.json_text(document):
                sys.stdout.write(text)
        else:
            for line in inspect_text.lines(document):
                sys.stdout.write(line + "\n")
    return 0


def _wanted(call: Call) -> "Wanted":
    from ocimig.cli import inspect_document

    every = call.flag("all") or bool(call.text("html"))
    return inspect_document.Wanted(
        pid=call.number("pid"),
        files=every or call.flag("files"),
        sockets=every or call.flag("sockets"),
        mounts=every or call.flag("mounts"),
        memory=every or call.flag("memory"),
        environment=every or call.flag("env"),
        statistics=every or call.flag("stats"),
    )
