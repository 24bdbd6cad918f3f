"""What happens during a migration, told to an observer. Never shows anything.

docs/formats/progress.md describes the events, as `--progress json` writes them.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ocimig.migrate.phases import Phase
from ocimig.migrate.rounds import Decision, RoundStats

# The moments of a freeze (checkpoint.Frozen.times), in order, and what was done since the one before.
MOMENTS = (
    ("stopped", "stop the processes"),
    ("locked", "lock the network"),
    ("looked", "look at descriptors and mounts"),
    ("withheld", "look at memory"),
    ("dumped", "criu dumps"),
    ("settled", "last pages"),
)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: `kind` is phase, step, bytes, round, finding, warning or end."""

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

    __slots__ = (
        "_offset", "began", "decision", "far", "marks", "observer", "phase", "predicted",
        "rounds", "spans",
    )  # fmt: skip

    def __init__(self, observer: Observer = nobody) -> None:
        self.observer = observer
        self.began = time.monotonic()
        self.phase = ""
        self.marks: dict[str, float] = {}
        self.spans: list[tuple[str, float, float]] = []  # name, begin, seconds
        self.far: list[tuple[str, float, float]] = []  # the same, on the far side's clock
        self.rounds: list[RoundStats] = []
        self.decision: Decision | None = None  # the last one
        self.predicted = 0.0  # seconds of blackout, by the last word before it
        self._offset: float | None = None  # ours minus theirs, and the way of one frame

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

    def add(self, name: str, began: float, ended: float) -> None:
        """A step that somebody else measured, on time.monotonic()."""
        self.spans.append((name, began - self.began, max(0.0, ended - began)))

    def frozen(self, times: Mapping[str, float]) -> None:
        """The steps of a freeze, from checkpoint.Frozen.times; moments that are missing were skipped."""
        last = times.get("begin")
        if last is None:
            return
        for moment, name in MOMENTS:
            if moment in times:
                self.add(name, last, times[moment])
                last = times[moment]

    def heard(self, header: Mapping[str, Any]) -> None:
        """The far side's steps, in a reply that has just come, with `now` on its clock.

        Of all replies the one that travelled fastest tells best how far the two clocks are apart.
        """
        received = self.now()
        for step in header.get("steps") or ():
            self.far.append((str(step["name"]), float(step["begin"]), float(step["seconds"])))
        now = header.get("now")
        if isinstance(now, int | float):
            apart = received - now
            self._offset = apart if self._offset is None else min(apart, self._offset)

    @property
    def offset(self) -> float:
        """What has to be added to the far side's times; without its word, its last step ends now."""
        if self._offset is not None:
            return self._offset
        return self.now() - max((begin + took for _, begin, took in self.far), default=self.now())

    def sent(self, name: str, done: int, total: int) -> None:
        """So many bytes of something have gone."""
        self.tell("bytes", name, done=done, total=total)

    def round(self, last: RoundStats, decision: Decision) -> None:
        """A round of memory has ended, and this comes next."""
        self.rounds.append(last)
        self.decision = decision
        self.predicted = decision.predicted
        self.tell(
            "round",
            decision.reason,
            number=last.number,
            pages=last.pages,
            skipped=last.skipped_pages,
            sent=last.sent_bytes,
            seconds=round(last.seconds, 6),
            dirty=last.dirty_pages,
            predicted=round(decision.predicted, 6),
            bandwidth=round(decision.bandwidth),
            dirty_rate=round(decision.dirty_rate),
            throttle=decision.throttle,
            action=decision.action,
            eta=None if decision.eta is None else round(decision.eta, 3),
        )
