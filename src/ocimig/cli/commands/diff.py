"""diff: what changed between two checkpoints."""

import sys
from collections.abc import Iterator
from dataclasses import asdict

from ocimig import jsonio
from ocimig.cli.shown import amount, shown
from ocimig.cli.verbs import Call
from ocimig.criu_images import compare

_SIGNS = {compare.ADDED: "+", compare.REMOVED: "-", compare.CHANGED: "~"}


def diff(call: Call) -> int:
    """0 where nothing differs, else 1, as diff(1) has it."""
    from ocimig.cli import inspect_source

    with inspect_source.sources(call) as opened:
        a, b = (compare.Side(opened(image)) for image in call.arguments)
        texts = _json(a, b) if call.text("format") == "json" else _lines(a, b)
        differs = False
        for text, differing in texts:
            sys.stdout.write(text)
            differs = differs or differing
    return int(differs)


def _lines(a: compare.Side, b: compare.Side) -> Iterator[tuple[str, bool]]:
    for each in compare.differences(a, b):
        where = f" {each.pid}" if each.pid else ""
        name = f" {shown(each.name)}" if each.name else ""
        said = " -> ".join(shown(text) for text in (each.before, each.after) if text)
        yield f"{_SIGNS[each.change]} {each.what}{where}{name}: {said}\n", True
    for page in compare.pages(a, b):
        kinds = ("changed", "added", "removed", "unknown")
        words = [f"{amount(getattr(page, kind))} {kind}" for kind in kinds if getattr(page, kind)]
        start, end = page.mapping.start, page.mapping.end
        name = shown(page.mapping.name) or "anonymous"
        said = ", ".join(words)
        yield f"~ memory {page.pid} {start:#x}-{end:#x} {name}: {said}\n", True


def _json(a: compare.Side, b: compare.Side) -> Iterator[tuple[str, bool]]:
    """Two lists, item by item."""
    head = jsonio.dumps({"version": 1, "before": a.directory.path, "after": b.directory.path})
    yield head[:-1] + ',\n"differences":[', False
    comma = "\n"
    for each in compare.differences(a, b):
        yield comma + jsonio.dumps(asdict(each)), True
        comma = ",\n"
    yield '],\n"memory":[', False
    comma = "\n"
    for page in compare.pages(a, b):
        found = asdict(page)
        mapping = found.pop("mapping")
        found |= {"name": mapping["name"], "start": f"{mapping['start']:#x}",
                  "end": f"{mapping['end']:#x}"}  # fmt: skip
        yield comma + jsonio.dumps(found), True
        comma = ",\n"
    yield "]}\n", False
