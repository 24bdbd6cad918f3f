"""How a migration looks while it goes on, on standard error. Reads events; decides nothing.

A terminal that goes away must not take the migration with it: what cannot be shown is not shown.
"""

import os
import time
from typing import Protocol

from ocimig import jsonio
from ocimig.migrate.progress import Event
from ocimig.migrate.report import size

_STDERR = 2
_REDRAW = 0.05  # seconds: more often than that nobody can read
_NARROW = 20  # a terminal that says it is narrower is not believed


class View(Protocol):
    """An observer that may have a line to finish."""

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None:
        """Nothing more comes: end the line that may stand open."""
        ...


def view(how: str, fd: int = _STDERR) -> View:
    """What --progress asks for; "auto" shows something only to a terminal."""
    if how == "json":
        return Json(fd)
    if how == "plain":
        return Plain(fd)
    if how == "none" or not os.isatty(fd):
        return Silent(fd)
    return Live(fd)


class Silent:
    """Shows nothing but warnings."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __call__(self, event: Event) -> None:
        if said := notice(event):
            self.write(f"{said}\n")

    def close(self) -> None:
        """Nothing is open."""

    def write(self, text: str) -> None:
        """Show it, if anybody is there to look."""
        try:
            os.write(self.fd, text.encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # EIO: the terminal has gone; EAGAIN: it does not keep up


class Json(Silent):
    """One JSON object a line, every event."""

    def __call__(self, event: Event) -> None:
        self.write(jsonio.dumps(event.to_dict()) + "\n")


class Plain(Silent):
    """One line a phase and a step, for logs."""

    def __call__(self, event: Event) -> None:
        if said := notice(event):
            self.write(f"{event.at:8.2f} s  {said}\n")
        elif event.kind == "phase":
            self.write(f"{event.at:8.2f} s  {event.text}\n")
        elif event.kind in ("step", "end"):
            self.write(f"{event.at:8.2f} s    {event.text}\n")


class Live(Silent):
    """One line a phase, which moves while the phase lasts."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.phase = ""
        self.began = 0.0
        self.step = ""
        self.drawn = 0.0
        self.open = False

    def __call__(self, event: Event) -> None:
        if said := notice(event):
            self._clear()
            self.write(f"{said}\n")
            self._draw(event.at)
            return
        if event.kind in ("phase", "end"):
            self._finish(event.at)
            self.phase, self.began, self.step = event.text, event.at, ""
            if event.kind == "end":
                return
        elif event.kind == "bytes":
            self.step = f"{event.text} {amount(event)}"
            if time.monotonic() - self.drawn < _REDRAW:
                return
        else:
            self.step = event.text
        self._draw(event.at)

    def close(self) -> None:
        """Leave the line as it stands: what follows is an error or a report."""
        if self.open:
            self.write("\n")
            self.open = False

    def _draw(self, at: float) -> None:
        self.drawn = time.monotonic()
        self._line(f"  {self.phase:<10} {at - self.began:7.2f} s  {self.step}")

    def _finish(self, at: float) -> None:
        if self.open:
            self._line(f"  {self.phase:<10} {at - self.began:7.2f} s")
            self.close()

    def _line(self, text: str) -> None:
        self.write(f"\r{text[: _columns(self.fd) - 1]}\x1b[K")
        self.open = True

    def _clear(self) -> None:
        if self.open:
            self.write("\r\x1b[K")


def notice(event: Event) -> str:
    """What a person has to read whatever the display; what stands in the way is told by the error."""
    if event.kind == "warning":
        return f"warning: {event.text}"
    if event.kind == "finding" and event.data.get("severity") == "warning":
        fix = event.data.get("fix", "")
        return f"warning: {event.text}" + (f"; {fix}" if fix else "")
    return ""


def amount(event: Event) -> str:
    """So much of so much."""
    done, total = int(event.data.get("done", 0)), int(event.data.get("total", 0))
    return f"{size(done)} of {size(total)}" if total else size(done)


def _columns(fd: int) -> int:
    try:
        found = os.get_terminal_size(fd).columns
    except OSError:
        found = 0
    return found if found >= _NARROW else 80
