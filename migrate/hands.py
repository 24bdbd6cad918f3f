"""What a migration does to containers, files and networks, one act a method. Never decides the order.

`engine` and `agent` know only the two protocols, so that tests can let them meet without a kernel.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ocimig.migrate.images import Receiver
from ocimig.migrate.journal import Journal
from ocimig.migrate.memory.runs import Run
from ocimig.migrate.rounds import RoundStats
from ocimig.migrate.wire import Frame, Wire
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store

if TYPE_CHECKING:
    from ocimig.migrate.dirty_rate import DirtyRate
    from ocimig.migrate.move import MigrateOptions

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Frozen:
    """A container in CRIU's post-dump: nothing of it runs, everything of it is in the directory."""

    directory: str
    began: float  # on time.monotonic(): the last moment at which it ran undisturbed
    pids: list[int] = field(default_factory=list)
    request: dict[str, Any] = field(
        default_factory=dict
    )  # what the far side needs beside the images
    times: dict[str, float] = field(default_factory=dict)  # checkpoint.Frozen's


class Memory(Protocol):
    """The memory of a container on its way: in rounds while it runs, the rest while it is frozen."""

    name: str  # of what tells who wrote
    notes: list[str]
    post_copy: bool  # what is owed when it is frozen goes when it runs there; may be set until then
    stopped: Callable[[], None]  # called in the freeze, as soon as everything stands still

    def round(self) -> RoundStats:
        """Send what was written since the round before (at first, everything), then look again."""
        ...

    def reopen(self, streams: Sequence[Wire]) -> None:
        """The links broke: what was not confirmed goes again, in the next round, over these."""
        ...

    def left(self) -> list[tuple[str, int, list[Run]]]:
        """While it is frozen: what did not go because of that, by space and host pid."""
        ...

    def confirm(self) -> None:
        """Before the commit: that what was left to others is as it was foreseen. Raises when not."""
        ...

    def close(self) -> None:
        """Stop looking; takes time, so not inside the freeze."""
        ...


class Brake(Protocol):
    """Slows a container down."""

    def slow_down(self, share: float) -> None:
        """Take this share of the processor time that it used away from it."""
        ...

    def restore(self) -> None:
        """Give back what it had."""
        ...


class Source(Protocol):
    """What the source does with its container."""

    notes: list[str]  # for the report

    def load(self, store: Store, id: str) -> tuple[ContainerState, Spec]:
        """The container's facts and configuration; raises unless it runs."""
        ...

    def container(self, state: ContainerState, spec: Spec) -> dict[str, Any]:
        """What preflight wants to know of it."""
        ...

    def host(self, store: Store, request: Mapping[str, Any]) -> dict[str, Any]:
        """What preflight wants to know of this host."""
        ...

    def trees(self, state: ContainerState) -> list[tuple[str, str]]:
        """The directories that travel: (name, path)."""
        ...

    def send_files(
        self, wire: Wire, tree: str, path: str, state: ContainerState, pids: list[int]
    ) -> None:
        """Send a tree, or from the second call on what changed in it; `pids` are the frozen ones,
        none while it runs."""
        ...

    def knows_files(self, tree: str) -> bool:
        """Whether the far side has a tree from an earlier call."""
        ...

    def forget_files(self) -> None:
        """Nobody knows what the far side has: the next call sends everything again."""
        ...

    def memory(
        self, state: ContainerState, options: "MigrateOptions", streams: Sequence[Wire]
    ) -> Memory | None:
        """Its memory, ready for the first round; None where all of it has to go in the freeze."""
        ...

    def pids(self, state: ContainerState) -> list[int]:
        """Its processes on this host."""
        ...

    def dirty_rate(self, store: Store, id: str, options: "MigrateOptions") -> "DirtyRate | None":
        """How fast it writes; None where nobody is to look."""
        ...

    def close(self) -> None:
        """The migration is over, one way or the other: watch nothing any more."""
        ...

    def brake(self, state: ContainerState, entry: Journal) -> Brake:
        """What slows it down; `let_run` gives everything back."""
        ...

    def foresee(self, state: ContainerState, spec: Spec) -> dict[str, Any]:
        """What the far side can get ready before the freeze; get ready likewise here."""
        ...

    def dump(
        self,
        store: Store,
        state: ContainerState,
        entry: Journal,
        options: "MigrateOptions",
        on_frozen: Callable[[Frozen], None],
        memory: Memory | None = None,
        before_freeze: Callable[[], None] | None = None,
    ) -> None:
        """Freeze and dump; when `on_frozen` raises, the container runs again.

        `before_freeze` is called when all is warm. What `memory` has brought there is not dumped.
        """
        ...

    def hold(self, store: Store, state: ContainerState, migration: str) -> None:
        """Keep it frozen and cut off even when CRIU and we die."""
        ...

    def keep_memory(self, store: Store, state: ContainerState, memory: Memory) -> None:
        """It runs there: keep here what it had, in case it comes back. Never fails."""
        ...

    def kill(self, state: ContainerState) -> None:
        """End its processes, which are held: none of them runs again."""
        ...

    def let_run(self, store: Store, entry: Journal) -> bool:
        """Undo `hold` and what a crash left; fine when there is nothing to undo. Whether it lives here.

        What fails is raised when everything else is undone: it is thawed in any case.
        """
        ...

    def discard_images(self, entry: Journal) -> None:
        """Remove what was dumped."""
        ...

    def remove(self, store: Store, entry: Journal) -> list[str]:
        """Remove every trace; names what could not be removed."""
        ...


class Destination(Protocol):
    """What the destination does with what arrives."""

    def check_free(self, store: Store, id: str, wanted: Mapping[str, Any]) -> None:
        """Raise when the name or the place is taken, be it by one that is on its way like this one."""
        ...

    def reserve(self, store: Store, entry: Journal, wanted: Mapping[str, Any]) -> None:
        """Make the place, and the network with nothing on it."""
        ...

    def receive_files(self, wire: Wire, entry: Journal, header: Mapping[str, Any]) -> None:
        """Take what `send_files` sends."""
        ...

    def warm(self, store: Store, entry: Journal, foreseen: Mapping[str, Any]) -> dict[str, Any]:
        """Take the name and get CRIU ready, while the container still runs on the source.

        Says in `memory` whether memory may come before the images (see `pages`).
        """
        ...

    def pages(self, wire: Wire, frame: Frame) -> None:
        """Take memory, and answer on the wire that it came over; called by several threads."""
        ...

    def follow(self, wire: Wire, frame: Frame) -> None:
        """Take memory that may come after the release, on a stream of its own, until all of it is here;
        `frame` is its first. Called by a thread of its own. When that fails, the container is ended."""
        ...

    def restore(
        self,
        store: Store,
        entry: Journal,
        request: Mapping[str, Any],
        receiver: Receiver,
        on_restored: Callable[[int], None],
    ) -> int:
        """Build it and let `on_restored` decide; returns its process once it runs."""
        ...

    def restored(self, pid: int) -> None:
        """It is built: get ready for the release."""
        ...

    def release(self) -> None:
        """Join its network to the bridge and say so."""
        ...

    def lost(self) -> str:
        """Why memory that was to follow can come no more; empty as long as it may."""
        ...

    def followed(self) -> str:
        """Wait until all that was to follow is in place; why it never will be, or nothing."""
        ...

    def settled(self, entry: Journal) -> None:
        """It runs: make its files durable, so that the source may remove its own."""
        ...

    def finish(self, entry: Journal) -> None:
        """Remove what only the migration needed; nobody waits for it."""
        ...

    def runs(self, store: Store, entry: Journal) -> bool:
        """Whether the container of this migration runs here."""
        ...

    def adopt(self, store: Store, entry: Journal) -> None:
        """It runs here and its agent is gone: what that would have done with it."""
        ...

    def discard(self, store: Store, entry: Journal) -> None:
        """Remove everything the migration made here; may be done twice."""
        ...


def places(wanted: Mapping[str, Any]) -> list[str]:
    """The directories that the files of a container go to, one inside another after that.

    A root in its bundle comes with it, or by itself: what is mounted there is a tree of its own.
    """
    bundle, rootfs = str(wanted["bundle"]), str(wanted.get("rootfs") or "")
    return [bundle, rootfs] if rootfs not in ("", bundle) else [bundle]


def missing(paths: list[str]) -> list[str]:
    """Every directory that has to be made for these to exist, the outermost first."""
    found: list[str] = []
    for path in paths:
        chain = []
        while not os.path.lexists(path):
            chain.append(path)
            path = os.path.dirname(path)
        found += reversed(chain)
    return list(dict.fromkeys(found))
