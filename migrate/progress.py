"""What happens during a migration, told to an observer. Never shows anything."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ocimig.migrate.phases import Phase


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: `kind` is phase, step, bytes, finding, warning or end."""

    kind: str
    phase: str
    text: str
    at: float  # seconds since the migration began
    data: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For --progress json."""
        return {
            "kind": self.kind,
            "phase": self.phase,
            "text": self.text,
            "at": round(self.at, 6),
            **self.data,
        }


Observer = Callable[[Event], None]


def nobody(event: Event) -> None:
    """An observer that does not look."""


class Progress:
    """Tells the observer, and keeps the times that the report needs."""

    __slots__ = ("began", "marks", "observer", "phase", "spans")

    def __init__(self, observer: Observer = nobody) -> None:
        self.observer = observer
        self.began = time.monotonic()
        self.phase = ""
        self.marks: dict[str, float] = {}
        self.spans: list[tuple[str, float, float]] = []  # name, begin, seconds

    def now(self) -> float:
        """Seconds since the migration began."""
        return time.monotonic() - self.began

    def enter(self, phase: Phase) -> None:
        """The migration is in this phase now."""
        self.phase = phase.name
        self.marks[phase.name] = self.now()
        self.tell("phase", phase.name, owner=phase.owner, failure=phase.failure)

    def mark(self, name: str) -> None:
        """Remember when something happened."""
        self.marks[name] = self.now()

    def tell(self, kind: str, text: str, **data: Any) -> None:
        """One event."""
        self.observer(Event(kind, self.phase, text, self.now(), data))

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A step with a beginning and an end; kept for the report."""
        begin = self.now()
        self.tell("step", name)
        try:
            yield
        finally:
            self.spans.append((name, begin, self.now() - begin))

    def sent(self, name: str, done: int, total: int) -> None:
        """So many bytes of something have gone."""
        self.tell("bytes", name, done=done, total=total)
