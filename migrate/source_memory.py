"""The source's side of memory that follows: what was written, what the far side has, what is left for the freeze.

While the container runs: `round` sends what the tracker says was written. In the freeze, asked by
`withholding`: `withhold` names the mappings whose pages CRIU shall not save; `withheld` is told which
pages CRIU would have saved there, and sends of these all that the far side does not have as they are
now. So every page is saved by CRIU, or held there and unchanged, or sent while nothing moves.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ocimig.migrate.memory.errors import MemoryGone
from ocimig.migrate.memory.runs import PAGE, Run, intersect, subtract, total, union
from ocimig.migrate.memory.sender import Sent
from ocimig.migrate.memory.spaces import is_process, number, of_shared
from ocimig.migrate.rounds import RoundStats
from ocimig.migrate.trackers import Dirty, Tracker
from ocimig.migrate.wire import Wire
from ocimig.migrate.withholding import tasks as tasks_of
from ocimig.runtime.linux import proc

IN_FLIGHT = 8 << 20  # bytes that need no confirmation before the images go after them
SETTLE = 60.0  # seconds that the far side may be silent while it takes what was sent
Work = dict[str, tuple[int, list[Run]]]  # space -> host pid, runs


class Sender(Protocol):
    """Takes pages where they belong: PageSender does, to another host."""

    gone: list[tuple[str, list[Run]]]  # what the last send() could not read

    def send(self, dirty: list[tuple[str, int, list[Run]]]) -> Sent:
        """Send these runs as they are now: (space, pid on this host or a descriptor, runs)."""
        ...

    def settle(self, timeout: float | None) -> None:
        """Wait until all of it has arrived."""
        ...

    def lost(self) -> list[tuple[str, int, list[Run]]]:
        """After a link broke: what is not known to have arrived."""
        ...

    def reopen(self, streams: Sequence[Wire]) -> None:
        """Go on over these."""
        ...


class SourceMemory:
    """See hands.Memory and withholding.Memory."""

    def __init__(self, pid: int, tracker: Tracker, sender: Sender, last: Sender) -> None:
        """`last` sends in the freeze, on the link that the images follow on."""
        self.name = tracker.name
        self.notes: list[str] = tracker.notes
        self.stopped: Callable[[], None] = lambda: None
        self.confirm: Callable[[], None] = lambda: None  # see checkpoint.Frozen.confirm
        self.final = Sent()  # what went in the freeze
        self.final_seconds = 0.0
        self.withheld_pages = 0
        self.post_copy = False  # what is owed when it is frozen goes when it runs there
        self._left: Work = {}  # that
        self._pid = pid
        self._tracker = tracker
        self._sender = sender
        self._last = last
        self._has: dict[str, list[Run]] = {}  # what the far side has, however old
        self._mappings: dict[
            str, list[Run]
        ] = {}  # of the last look that was not final: `_has` is in these
        self._owed: Work = {}  # what has to go: new, or written since it went
        self._going: Work = {}  # what of that was given to the sender, until it has arrived
        self._number = 0
        self._looked = 0.0
        self._final: dict[str, Dirty] = {}  # while frozen, by space
        self._kept: Work = {}  # of the frozen container: what is in no image
        self._hot: dict[str, list[Run]] = {}  # by pid in the container: what it wrote last

    # ---- while it runs

    def round(self) -> RoundStats:
        """See hands.Memory."""
        if not self._looked:
            self._look(self._tracker.look(tasks_of(self._tree())))
        began = self._looked
        work = self._going = self._owed
        sent = self._sender.send(_listed(work))
        self._sender.settle(SETTLE)
        self._arrived(work)
        self._look(self._tracker.look(tasks_of(self._tree())))
        self._number += 1
        return RoundStats(
            number=self._number,
            dirty_pages=_pages(self._owed),
            sent_bytes=sent.wire_bytes,
            seconds=self._looked - began,
            pages=_pages(work),
            skipped_pages=sent.zero + sent.same,
        )

    def reopen(self, streams: Sequence[Wire]) -> None:
        """See hands.Memory."""
        if self._going:  # else nothing of what is owed was ever sent
            lost: Work = {space: (pid, runs) for space, pid, runs in self._sender.lost()}
            there: Work = {
                space: (pid, subtract(todo, lost.get(space, (pid, []))[1]))
                for space, (pid, todo) in self._going.items()
            }
            self._arrived(there)
            self._owed = lost
        self._sender.reopen(streams)
        self._last.reopen(streams[:1])

    def close(self) -> None:
        """See hands.Memory."""
        self._tracker.close()

    # ---- in the freeze

    def withhold(self, tasks: Mapping[int, int]) -> Mapping[int, Sequence[Run]]:
        """See withholding.Memory."""
        self.stopped()
        looked = self._tracker.look(tasks, final=True)
        self._look(looked, final=True)
        self._final = {found.space: found for found in looked}
        return {found.pid: found.mappings for found in looked if is_process(found.space)}

    def withhold_shared(self, tasks: Mapping[int, int]) -> Mapping[int, Sequence[Run]]:
        """See withholding.SharedMemory; called after `withhold`."""
        return {
            number(name): found.mappings
            for name, found in self._final.items()
            if not is_process(name)
        }

    def withheld(self, runs: Mapping[int, Sequence[Run]]) -> None:
        """See withholding.Memory. Raises MemoryGone where a page cannot be read any more."""
        names = {found.pid: name for name, found in self._final.items() if is_process(name)}
        work = self._left_out({names[pid]: wanted for pid, wanted in runs.items()})
        if self.post_copy:
            self._left = work
        else:
            self._hot = {space[1:]: todo for space, (_, todo) in work.items()}
            self._send(work)

    def withheld_shared(self, runs: Mapping[int, Sequence[Run]]) -> None:
        """See withholding.SharedMemory. Raises MemoryGone. CRIU restores these at once: they cannot follow."""
        self._send(self._left_out({of_shared(inode): wanted for inode, wanted in runs.items()}))

    def _left_out(self, runs: Mapping[str, Sequence[Run]]) -> Work:
        """What the far side does not have of these as it is now."""
        work: Work = {}
        for space, wanted in runs.items():
            pid = self._final[space].pid
            needed = list(wanted)
            self._kept[space] = (pid, needed)
            _, owed = self._owed.get(space, (pid, []))
            missing = union(subtract(needed, self._has.get(space, [])), intersect(needed, owed))
            if missing:
                work[space] = (pid, missing)
            self.withheld_pages += total(needed) // PAGE
        return work

    def _send(self, work: Work) -> None:
        """While it is frozen."""
        began = time.monotonic()
        sent = self._last.send(_listed(work))
        if sent.wire_bytes > IN_FLIGHT:  # else its answers would come among those of the images
            self._last.settle(SETTLE)
        if sent.missing:
            raise MemoryGone(pages=sent.missing)
        self.final.add(sent)
        self.final_seconds += time.monotonic() - began

    def held(self) -> list[tuple[str, int, list[Run]]]:
        """All memory that is in no image, as PageSender.send takes it; readable while it is frozen."""
        return _listed(self._kept)

    def left(self) -> list[tuple[str, int, list[Run]]]:
        """See hands.Memory."""
        return _listed(self._left)

    def hot(self) -> dict[str, list[Run]]:
        """What the container wrote last, by its pid in there: it will want that first."""
        return self._hot

    # ---- both

    def _tree(self) -> list[int]:
        return [self._pid, *proc.descendants(self._pid)]

    def _look(self, found: Sequence[Dirty], *, final: bool = False) -> None:
        """Add what was written to what is owed; forget what belongs to nobody any more.

        What is not eligible in one look may be in the next: it was written unseen meanwhile. A final look
        takes no marks away, so nothing is unseen after it, and in the freeze lists are not cut for nothing.
        """
        self._looked = time.monotonic()
        owed: Work = {}
        for each in found:
            _, known = self._owed.get(each.space, (each.pid, []))
            has = self._has.get(each.space, [])
            if each.fresh:
                known = has = []
            elif not final:
                known = intersect(known, each.mappings)
                if each.mappings != self._mappings.get(each.space):
                    has = intersect(has, each.mappings)
            self._has[each.space] = has
            owed[each.space] = (each.pid, union(known, each.runs))
        self._owed = owed
        if not final:
            self._mappings = {each.space: each.mappings for each in found}
        for space in set(self._has) - set(owed):
            del self._has[space]

    def _arrived(self, work: Work) -> None:
        """The far side has this, but for what could not be read: of that it may have what was there before."""
        for space, (_, todo) in work.items():
            self._has[space] = union(self._has.get(space, []), todo)
        for space, gone in self._sender.gone:
            if space in self._has:
                self._has[space] = subtract(self._has[space], gone)
        self._owed, self._going = {}, {}


def _listed(work: Work) -> list[tuple[str, int, list[Run]]]:
    return [(space, pid, todo) for space, (pid, todo) in work.items()]


def _pages(work: Work) -> int:
    return sum(total(todo) for _, todo in work.values()) // PAGE
