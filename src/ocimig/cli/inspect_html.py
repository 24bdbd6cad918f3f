"""`inspect` as one HTML page that needs nothing else: no script, no network, drawings as inline SVG.

Everything that comes from images is escaped, for terminals (it is copied from a browser too) and for HTML. A
page is read by a person: it shows the largest of what there is most of, and says how much it leaves out.
"""

import heapq
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from ocimig import files
from ocimig.cli import inspect_text
from ocimig.cli.inspect_document import PLACES, Document
from ocimig.cli.shown import amount, line, shown

WIDTH, LEFT, ROW = 1000, 180, 20
DRAWN, LISTED = 400, 2000  # processes and mappings in a drawing; rows of a table
CONSIDERED = 4096  # processes, of which the largest are drawn
_LONGEST = 160
_COLOURS = {
    "saved": "#b45309", "inherited": "#2563eb", "elsewhere": "#7e22ce", "lost": "#dc2626",
    "untouched": "#9aa5b1",
}  # fmt: skip
_MEANING = {
    "saved": "in this image", "inherited": "in a parent", "elsewhere": "held elsewhere",
    "lost": "nowhere", "untouched": "never touched, or as in the mapped file",
}  # fmt: skip
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --paper: #fff; --rule: #cbd2d9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --paper: #14181d; --rule: #3e4c59; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1040px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
svg { width: 100%; height: auto; display: block; } svg text { font: 12px system-ui, sans-serif;
  fill: var(--ink); } svg line { stroke: var(--rule); } svg path { stroke: var(--rule); fill: none; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
td, th { text-align: left; padding: .15rem .6rem; border-bottom: 1px solid var(--rule);
  overflow-wrap: anywhere; vertical-align: top; } pre { white-space: pre-wrap; overflow-wrap: anywhere; }
"""


def write(path: str, document: Document) -> None:
    """Write the page, whole or not at all."""
    files.write_atomic(path, page(document).encode("utf-8", "backslashreplace"), sync=False)


def page(document: Document) -> str:
    """The whole page."""
    head = list(inspect_text.head_lines(document.head()))
    processes, more = _processes(document)
    tail = document.tail()
    body = [
        f"<h1>{escape(head[0])}</h1>",
        *(f"<p>{escape(each)}</p>" for each in head[1:]),
        *_section("Memory", _legend() + _sizes(processes)),
        *_section("Processes", _tree(processes)),
    ]
    for found in processes[:DRAWN]:
        body += _details(found, document)
    if more := more + max(0, len(processes) - DRAWN):
        body.append(f"<p>{more} more processes are not on this page.</p>")
    body += _section("Mounts", _table(_mount_rows(document)))
    body += _section("Cgroups", _list(map(inspect_text.cgroup_line, document.cgroups())))
    body += _section("In all", _list(inspect_text.tail_lines(tail)))
    return "\n".join([
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(head[0])}</title><style>{_STYLE}</style></head><body>",
        *body, "</body></html>\n",
    ])  # fmt: skip


def _processes(document: Document) -> tuple[list[dict[str, Any]], int]:
    """The first ones without what may be long, with a title; and how many more there are."""
    found: list[dict[str, Any]] = []
    more = 0
    for each in document.processes():
        if len(found) == CONSIDERED:
            more += 1  # it still counts in the totals
            continue
        words = line(each.pop("command")) or f"[{shown(each['name'])}]"
        each["title"] = f"{each['pid']} {words[:_LONGEST]}"
        each.pop("environment", None)
        found.append(each)
    return found, more


def _section(title: str, inner: str) -> list[str]:
    return [f"<h2>{escape(title)}</h2>", inner] if inner else []


# ---- drawings


def _svg(title: str, height: float, drawn: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"{''.join(drawn)}</svg>"
    )


def _legend() -> str:
    return (
        "<p>"
        + " · ".join(
            f'<span style="color: {_COLOURS[name]}">■</span> {words}'
            for name, words in _MEANING.items()
        )
        + "</p>"
    )


def _title(found: dict[str, Any], longest: int) -> str:
    words = found["title"]
    return escape(words if len(words) <= longest else words[: longest - 1] + "…")


def _bars(x: float, y: float, scale: float, sizes: dict[str, int], label: str) -> Iterator[str]:
    """Boxes side by side, one for each place that has bytes."""
    for place, colour in _COLOURS.items():
        size = sizes.get(place, 0)
        if size <= 0:
            continue
        width = size * scale
        yield (
            f'<rect x="{x:.2f}" y="{y:.0f}" width="{max(width, 0.4):.2f}" height="{ROW - 5}" '
            f'fill="{colour}"><title>{label}: {escape(amount(size))} {_MEANING[place]}</title></rect>'
        )
        x += width


def _sizes(processes: list[dict[str, Any]]) -> str:
    """A bar for each of the largest processes: what of its memory is where."""
    having = [each for each in processes if each.get("memory")]
    largest = heapq.nlargest(DRAWN // 10, having, key=_held)
    most = max((_held(each) for each in largest), default=0)
    if not most:
        return ""
    drawn: list[str] = []
    for number, found in enumerate(largest):
        sizes = {place: found["memory"][place] for place in PLACES}
        label = _title(found, 24)
        drawn.append(f'<text x="0" y="{number * ROW + 12}">{label}</text>')
        drawn += _bars(LEFT, number * ROW, (WIDTH - LEFT) / most, sizes, label)
    return _svg("memory by process", len(largest) * ROW, drawn)


def _held(found: dict[str, Any]) -> int:
    return sum(found["memory"][place] for place in PLACES) if found.get("memory") else 0


def _tree(processes: list[dict[str, Any]]) -> str:
    """Who is whose child: lines from each to its parent above."""
    place: dict[int, tuple[float, float]] = {}
    drawn: list[str] = []
    for number, found in enumerate(processes[:DRAWN]):
        above = place.get(found["parent"])
        x = min(above[0] + 22, WIDTH / 2) if above else 4.0
        y = number * ROW + 12.0
        place[found["pid"]] = (x, y)
        if above:
            drawn.append(
                f'<path d="M{above[0] + 5:.0f} {above[1] + 5:.0f}V{y - 4:.0f}H{x - 3:.0f}"/>'
            )
        drawn.append(f'<text x="{x:.0f}" y="{y:.0f}">{_title(found, 90)}</text>')
    return _svg("the tree of processes", min(len(processes), DRAWN) * ROW, drawn)


def _map(found: dict[str, Any], document: Document) -> str:
    """The address space without its gaps: a box a mapping, wide as its size to the power of a half."""
    shown_mappings = [
        each for _, each in zip(range(DRAWN), document.mappings(found["pid"]), strict=False)
    ]
    total = sum(each["size"] ** 0.5 for each in shown_mappings)
    if not total:
        return ""
    drawn: list[str] = []
    x = 0.0
    for each in shown_mappings:
        width = each["size"] ** 0.5 / total * WIDTH
        label = escape(inspect_text.mapping_line(each))
        drawn += _bars(x, 0, width / each["size"], each, label)
        drawn.append(f'<line x1="{x:.2f}" y1="0" x2="{x:.2f}" y2="{ROW - 5}"/>')
        x += width
    return _svg("the address space", ROW, drawn)


# ---- texts


def _details(found: dict[str, Any], document: Document) -> list[str]:
    """One process, folded."""
    pid = found["pid"]
    inner = [
        _map(found, document),
        *_section("Memory", _list(map(inspect_text.mapping_line, document.mappings(pid)))),
        *_section("Files", _list(inspect_text.files_lines(found, document))),
        *_section("Rights", _list(inspect_text.rights_lines(found))),
        *_section("Environment", _list(map(shown, document.environment(pid)))),
    ]
    return [f"<details><summary>{_title(found, 160)}</summary>", *inner, "</details>"]


def _list(rows: Iterator[str] | Iterable[str]) -> str:
    """Lines as they are in the text form, as many as a person looks at."""
    kept: list[str] = []
    more = 0
    for row in rows:
        if len(kept) < LISTED:
            kept.append(escape(row))
        else:
            more += 1
    if more:
        kept.append(f"… and {more} more")
    return f"<pre>{chr(10).join(kept)}</pre>" if kept else ""


def _mount_rows(document: Document) -> Iterator[tuple[str, ...]]:
    for _, each in zip(range(LISTED), document.mounts(), strict=False):
        words = (each["target"], each["filesystem"], each["source"], each["root"])
        yield (*map(shown, words), ",".join(each["flags"]))


def _table(rows: Iterator[tuple[str, ...]]) -> str:
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{lines}</table>" if lines else ""
