"""How a migration looks while it goes on, on standard error. Reads events; decides nothing.

A terminal that goes away must not take the migration with it: what cannot be shown is not shown.
"""

import os
from typing import Protocol

from ocimig import jsonio
from ocimig.migrate.progress import Event

_STDERR = 2


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
    try:
        from ocimig.cli import progress_live  # rich takes 100 ms, and only a person sees it
    except ImportError:
        return Plain(fd)
    return progress_live.Live(fd)


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
        elif event.kind in ("step", "round", "end"):
            self.write(f"{event.at:8.2f} s    {event.text}\n")


def notice(event: Event) -> str:
    """What a person has to read whatever the display; what stands in the way is told by the error."""
    if event.kind == "warning":
        return f"warning: {event.text}"
    if event.kind == "finding" and event.data.get("severity") == "warning":
        fix = event.data.get("fix", "")
        return f"warning: {event.text}" + (f"; {fix}" if fix else "")
    return ""
