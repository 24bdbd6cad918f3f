"""A report as one HTML page that needs nothing else: no script, no network, drawings as inline SVG. Pure.

Both sides stand on the source's clock. Every text comes from outside (names, notes, findings) and is
escaped; numbers are formatted here.
"""

from collections.abc import Iterable, Sequence
from html import escape

from ocimig.migrate.report import PARTS, Report, Span, duration, size
from ocimig.migrate.rounds import PAGE

WIDTH, LEFT, ROW = 1000, 60, 22
_COLOURS = {
    "here": "#b45309", "there": "#2563eb", "phase": "#52606d",
    "freeze": "#7b8794", "dump": "#c2410c", "delta": "#a16207", "wire": "#64748b",
    "files": "#4d7c0f", "restore": "#1d4ed8", "network": "#7e22ce",
}  # fmt: skip
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --paper: #fff; --rule: #cbd2d9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --paper: #14181d; --rule: #3e4c59; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1040px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.figures { display: flex; flex-wrap: wrap; gap: 2rem; margin: 1rem 0; }
.figures b { display: block; font-size: 1.6rem; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; display: block; } svg text { font: 12px system-ui, sans-serif; }
svg text:not([fill]) { fill: var(--ink); } svg line { stroke: var(--rule); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { text-align: right;
  padding: .2rem .8rem; border-bottom: 1px solid var(--rule); } th:first-child, td:first-child,
td.text { text-align: left; }
"""


def page(report: Report) -> str:
    """The whole page."""
    title = f"{report.id}: {report.outcome}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(report.target)} {escape(report.migration)}</p>",
        _figures(report),
        *_blackout(report),
        *_whole(report),
        *_rounds(report),
        *_tables(report),
    ]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            *body,
            "</body></html>\n",
        ]
    )


def _figures(report: Report) -> str:
    shown = [("in all", duration(report.seconds))]
    if report.blackout:
        shown.insert(0, ("blackout", duration(report.blackout)))
    if report.predicted:
        shown.insert(1, ("predicted", duration(report.predicted)))
    if report.bytes:
        shown.append(("sent", size(sum(report.bytes.values()))))
    cells = "".join(f"<div>{escape(name)}<b>{escape(value)}</b></div>" for name, value in shown)
    return f'<div class="figures">{cells}</div>'


# ---- drawings


class _Axis:
    """Seconds to pixels between the margins."""

    def __init__(self, begin: float, end: float) -> None:
        self.begin = begin
        self.end = max(end, begin + 1e-6)

    def x(self, at: float) -> float:
        """Where a moment is; what lies outside is at the edge."""
        share = (at - self.begin) / (self.end - self.begin)
        return LEFT + min(1.0, max(0.0, share)) * (WIDTH - LEFT)

    def ticks(self, height: float) -> list[str]:
        """About eight lines at round figures, counted from the beginning of the axis."""
        length = self.end - self.begin
        step = 10.0**-6
        while length / step > 10:
            step *= 2 if f"{step:e}"[0] != "2" else 2.5
        drawn, count = [], 0
        while (at := count * step) <= length:
            x = self.x(self.begin + at)
            drawn.append(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height:.0f}"/>')
            label = f"{at * 1000:g} ms" if length < 2 else f"{at:g} s"
            drawn.append(f'<text x="{x + 3:.1f}" y="{height + 13:.0f}">{label}</text>')
            count += 1
        return drawn


def _bar(axis: _Axis, span: Span, y: float, kind: str) -> str:
    left, right = axis.x(span.begin), axis.x(span.end)
    width = max(1.0, right - left)
    label = f"{span.name}: {_fine(span.seconds)}"
    inside = ""
    if width > 7 * len(span.name):
        inside = f'<text fill="#fff" x="{left + 4:.1f}" y="{y + 14:.0f}">{escape(span.name)}</text>'
    return (
        f'<g><title>{escape(label)}</title><rect x="{left:.1f}" y="{y:.0f}" width="{width:.1f}" '
        f'height="{ROW - 4}" rx="2" fill="{_COLOURS[kind]}"/>{inside}</g>'
    )


def _lanes(spans: Iterable[Span]) -> list[list[Span]]:
    """As few rows as will do, without overlaps."""
    rows: list[list[Span]] = []
    for span in sorted(spans, key=lambda each: (each.begin, -each.seconds)):
        for row in rows:
            if row[-1].end <= span.begin + 1e-9:
                row.append(span)
                break
        else:
            rows.append([span])
    return rows


def _svg(title: str, height: float, drawn: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"{''.join(drawn)}</svg>"
    )


def _sides(axis: _Axis, spans: Sequence[Span], y: float) -> tuple[list[str], float]:
    """The rows of both sides from `y` down, and where they end."""
    drawn: list[str] = []
    for side in ("here", "there"):
        seen = [
            span
            for span in spans
            if span.side == side and span.end > axis.begin and span.begin < axis.end
        ]
        for number, row in enumerate(_lanes(seen)):
            if not number:
                drawn.append(f'<text x="0" y="{y + 14:.0f}">{side}</text>')
            drawn += [_bar(axis, span, y, side) for span in row]
            y += ROW
        y += 6
    return drawn, y


def _blackout(report: Report) -> list[str]:
    """The time in which it stood still, part by part and step by step."""
    if not report.blackout or not report.frozen_at:
        return []
    axis = _Axis(report.frozen_at, report.frozen_at + max(report.blackout, report.predicted))
    y, at, drawn = ROW + 8.0, report.frozen_at, []
    for name in PARTS:
        took = report.parts.get(name, 0.0)
        if took:
            drawn.append(_bar(axis, Span(name, at, took), 0, name))
            at += took
    drawn.append('<text x="0" y="14">parts</text>')
    rows, y = _sides(axis, report.spans, y)
    if report.predicted:
        x = axis.x(report.frozen_at + report.predicted)
        drawn.append(
            f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{y:.0f}" style="stroke: currentColor" '
            f'stroke-dasharray="4 3"><title>predicted: {duration(report.predicted)}</title></line>'
        )
    legend = " · ".join(
        f'<span style="color: {_COLOURS[name]}">■</span> {name} {_fine(took)}'
        for name, took in report.parts.items()
        if took
    )
    drawing = _svg("the blackout, step by step", y + 16, [*axis.ticks(y), *rows, *drawn])
    return ["<h2>The blackout</h2>", drawing, f"<p>{legend}</p>"]


def _whole(report: Report) -> list[str]:
    """From the first look at both hosts to the last thing that was cleaned up."""
    if not report.phases:
        return []
    axis = _Axis(0.0, report.seconds)
    at, drawn = 0.0, ['<text x="0" y="14">phases</text>']
    for name, took in report.phases:
        drawn.append(_bar(axis, Span(name, at, took), 0, "phase"))
        at += took
    rows, y = _sides(axis, report.spans, ROW + 8.0)
    if report.blackout and report.frozen_at:
        left, right = axis.x(report.frozen_at), axis.x(report.frozen_at + report.blackout)
        drawn.append(
            f'<rect x="{left:.1f}" y="0" width="{max(1.0, right - left):.1f}" height="{y:.0f}" '
            f'fill="#dc2626" opacity=".25"><title>blackout</title></rect>'
        )
    drawing = _svg("the migration, step by step", y + 16, [*axis.ticks(y), *rows, *drawn])
    return ["<h2>The whole migration</h2>", drawing]


def _rounds(report: Report) -> list[str]:
    if not report.rounds:
        return []
    head = (
        "round",
        "to go",
        "went",
        "on the wire",
        "seconds",
        "a second",
        "written meanwhile",
        "slowed",
    )
    rows = []
    for each in report.rounds:
        went = (each.pages - each.skipped_pages) * PAGE
        rows.append(
            (
                str(each.number),
                size(each.pages * PAGE),
                size(went),
                size(each.sent_bytes),
                f"{each.seconds:.3f}",
                size(went / max(each.seconds, 1e-6)),
                size(each.dirty_pages * PAGE),
                f"{each.throttle:.0%}" if each.throttle else "",
            )
        )
    said = ["<h2>Memory while it ran</h2>", _table(head, rows)]
    return [*said, f"<p>{escape(report.reason)}</p>"] if report.reason else said


# ---- tables


def _tables(report: Report) -> list[str]:
    said: list[str] = []
    if report.foreseen():
        lines = escape("\n".join(report.foreseen()))
        said += ["<h2>Foreseen</h2>", f"<pre>{lines}</pre>"]
    if report.bytes:
        sizes = [(name, size(count)) for name, count in report.bytes.items()]
        said += ["<h2>Bytes</h2>", _table(("what", "bytes"), sizes)]
    if report.spans:
        steps = sorted(report.spans, key=lambda span: span.begin)
        rows = [(span.name, span.side, f"{span.begin:.4f}", _fine(span.seconds)) for span in steps]
        said += [
            "<details><summary>Every step</summary>",
            _table(("step", "side", "begins at", "takes"), rows),
            "</details>",
        ]
    words = [f"{each.severity}: {each.text}; {each.fix}" for each in report.findings]
    words += [f"note: {note}" for note in report.notes]
    words += [f"left over here: {thing}" for thing in report.leftovers]
    if words:
        items = "".join(f"<li>{escape(word)}</li>" for word in words)
        said += ["<h2>Notes</h2>", f"<ul>{items}</ul>"]
    return said


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"


def _fine(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
