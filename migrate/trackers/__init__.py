"""What of a container's memory was written since the last look. Never reads for others, never sends.

    tracker = choose()
    tracker.look({4711: 1})                 # everything that is there, once; then what was written since
    tracker.sent("p1", runs, data)          # what was read of it for the other side
    tracker.look({4711: 1}, final=True)     # with every process stopped
    tracker.close()                         # after the commit or the abort, outside the freeze

Three ways, best first: `userfault` (exact, cheap), `softdirty` (exact, but needs the processes paused for
a moment at each look), `content` (digests of everything at each look; works anywhere).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from ocimig.migrate.memory.errors import NoTracker
from ocimig.migrate.memory.runs import Run

Pause = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Dirty:
    """One space. That of a process: all runs are of private anonymous memory that CRIU may restore
    lazily. A shared object: all runs are offsets in it."""

    space: str  # migrate/memory/spaces.py
    pid: int  # on this host; of a shared object a descriptor, ours, as the sender takes it
    runs: list[Run]  # there, and written since the look before, or not followed in that
    mappings: list[Run]  # all such mappings, populated or not
    fresh: bool = False  # what was held of this space is of another: forget it
    untracked: list[Run] = field(
        default_factory=list
    )  # there and not followed; in `runs` when final


class Tracker(Protocol):
    """Follows the writes of processes that run."""

    name: str
    notes: list[str]  # for people: what is followed less well than it could be, and why

    def look(self, tasks: Mapping[int, int], *, final: bool = False) -> list[Dirty]:
        """What was written since the last look that was not `final`, of each process that lives.

        What that look did not name, though it was there (locked just then, say), counts as written,
        but for a `final` look, which may leave this to the caller: he knows what was named.
        `tasks` is host pid → pid in the container. New processes, new programs and new mappings are
        followed from here on. What is reported must be read after this returns. `final` is for
        processes that all stand still (frozen, or stopped by CRIU): nothing in them is touched, and
        another look, final or not, reports the same again.
        """
        ...

    def sent(self, space: str, runs: Sequence[Run], data: memoryview) -> None:
        """These runs were read, one behind the other, for the other side. From any thread.

        Who follows by content learns from this alone what the other side has; the others need it not.
        """
        ...

    def close(self) -> None:
        """Undo everything. May take 30 ms for each GiB; not for the freeze."""
        ...


def choose(prefer: str = "", *, pause: Pause | None = None, shared: bool = False) -> Tracker:
    """The best tracker that works here, found by trying; `prefer` names one: that, or NoTracker.

    `pause` stops the container's processes while its context lasts. Without it `softdirty` is not used,
    and who reads past the page cache is followed a little less surely.
    `shared` is whether shared memory is to be followed too.
    """
    refusals: list[str] = []
    for name, attempt in (
        ("userfault", _userfault),
        ("softdirty", _softdirty),
        ("content", _content),
    ):
        if prefer not in {"", name}:
            continue
        made = attempt(pause)
        if not isinstance(made, str):
            made.notes += refusals
            return _with_shared(made) if shared else made
        refusals.append(f"{name}: {made}")
    raise NoTracker(name=prefer, reason="; ".join(refusals) or "no tracker is called that")


def _with_shared(tracker: Tracker) -> Tracker:
    from ocimig.migrate.trackers.shared import WithShared

    return WithShared(tracker)


def _userfault(pause: Pause | None) -> Tracker | str:
    from ocimig.migrate.trackers import userfault

    return userfault.refusal() or userfault.Userfault(pause)


def _softdirty(pause: Pause | None) -> Tracker | str:
    from ocimig.migrate.trackers import softdirty

    if pause is None:
        return "nothing was given to pause the processes with"
    return softdirty.refusal() or softdirty.SoftDirty(pause)


def _content(_: Pause | None) -> Tracker | str:
    from ocimig.migrate.trackers import content

    return content.Content()
