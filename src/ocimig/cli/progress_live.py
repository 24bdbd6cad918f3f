"""The live display of a migration on a terminal: what goes on now, below what is done. Decides nothing.

Loaded only where somebody looks. Drawing costs milliseconds of the processor, so nothing is drawn in the
first moments of a freeze: a short blackout is over before anybody could read it.
"""

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live as Region
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from ocimig.cli.progress_view import Silent, notice
from ocimig.migrate.progress import Event
from ocimig.migrate.report import duration, size

_EVERY = 0.2  # seconds between two drawings
_QUIET = ("FREEZE", "PREPARED", "COMMIT")  # the phases in which the container stands still
_PATIENCE = 1.0  # seconds of standing still after which something is shown again
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Paper:
    """A terminal that may go away: what cannot be written is lost, and nothing else is."""

    encoding = "utf-8"

    def __init__(self, silent: Silent) -> None:
        self._silent = silent

    def write(self, text: str) -> int:
        """Show it, if anybody is there to look."""
        self._silent.write(text)
        return len(text)

    def flush(self) -> None:
        """Everything is written at once."""

    def fileno(self) -> int:
        """For the width of the window."""
        return self._silent.fd

    def isatty(self) -> bool:
        """It was one when it was chosen."""
        return True


class Live(Silent):
    """A region at the bottom that moves; phases that are over stand above it with their times."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        paper: Any = _Paper(self)
        self._console = Console(file=paper, force_terminal=True, highlight=False, markup=False)
        self._lock = threading.RLock()
        self._phase = ""
        self._phase_at = 0.0
        self._began = 0.0  # of the phase, on time.monotonic()
        self._frozen_at = 0.0  # the same, of the first phase in which it stands still
        self._waiting: list[str] = []  # lines of phases that are over
        self._figures: Mapping[str, Any] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[phase]:<9}"),
            TextColumn("{task.fields[passed]:>8}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=self._console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task("", total=None, phase="", passed="")
        self._region = Region(
            console=self._console, auto_refresh=False, transient=True, redirect_stderr=False,
            redirect_stdout=False,
        )  # fmt: skip
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="display", daemon=True)
        self._open = False

    def __call__(self, event: Event) -> None:
        with self._lock:
            if not self._open:
                self._begin()
            if said := notice(event):
                self._print()
                self._console.print(said)
            elif event.kind in ("phase", "end"):
                self._over(event)
            elif event.kind == "round":
                self._figures = event.data
                self._show(event.text)
            elif event.kind == "bytes":
                done, total = int(event.data.get("done", 0)), int(event.data.get("total", 0))
                self._show(f"{event.text} {size(done)}", done, total)
            elif event.kind == "step":
                self._show(event.text)

    def close(self) -> None:
        """Take the region away: what follows is an error or a report."""
        self._ended.set()
        with self._lock:
            if self._open:
                self._print()
                self._region.stop()
                self._open = False

    def _begin(self) -> None:
        if self._ended.is_set():
            return
        self._open = True
        self._region.start()
        self._thread.start()

    def _over(self, event: Event) -> None:
        """The phase before this one has ended."""
        if self._phase:
            self._waiting.append(f"  {self._phase:<10} {event.at - self._phase_at:7.2f} s")
        self._phase, self._phase_at, self._began = event.text, event.at, time.monotonic()
        if event.text == _QUIET[0]:
            self._frozen_at = self._began
        if event.kind == "end":
            self.close()
            return
        self._show("")

    def _show(self, step: str, done: int = 0, total: int = 0) -> None:
        self._progress.update(
            self._task, description=step, phase=self._phase, completed=done, total=total or None
        )

    def _run(self) -> None:
        while not self._ended.wait(_EVERY):
            with self._lock:
                if self._open and not self._still():
                    self._print()
                    self._region.update(self._drawn(), refresh=True)

    def _still(self) -> bool:
        """Whether every cycle of the processor belongs to the migration now."""
        return self._phase in _QUIET and time.monotonic() - self._frozen_at < _PATIENCE

    def _print(self) -> None:
        for line in self._waiting:
            self._console.print(line, style="dim")
        self._waiting.clear()

    def _drawn(self) -> RenderableType:
        passed = duration(time.monotonic() - self._began)
        self._progress.update(self._task, passed=passed)
        bar = self._progress.get_renderable()
        return Group(bar, figures(self._figures)) if self._figures else bar


def figures(data: Mapping[str, Any]) -> Table:
    """The figures of the last round, as the event `round` has them."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    eta = data.get("eta")
    columns = (
        ("round", f"{data['number']}"),
        ("left", size(int(data["dirty"]) * _PAGE)),
        ("written", f"{size(data['dirty_rate'])}/s"),
        ("sent", f"{size(data['bandwidth'])}/s"),
        ("blackout", duration(float(data["predicted"]))),
        ("freeze in", "?" if eta is None else f"{eta:.0f} s"),
        ("slowed", f"{data['throttle']:.0%}" if data.get("throttle") else "no"),
    )
    for name, _ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(*(value for _, value in columns))
    return table
