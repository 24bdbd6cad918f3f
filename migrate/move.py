"""One migration as the source sees it: what was asked for, what it knows so far, the line to the far side.

Never walks: `engine` does, with `precopy`, `final` and `commit`.
"""

import errno
import os
import shlex
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from ocimig.errors import Interrupted, NoSpace, OcimigError
from ocimig.migrate import attach, failpoints, phases, preflight, report
from ocimig.migrate.dirty_rate import DirtyRate
from ocimig.migrate.errors import (
    FarFailure,
    LinkLost,
    MigrationFailed,
    MigrationInDoubt,
    SourceLeftovers,
)
from ocimig.migrate.following import Following
from ocimig.migrate.forecast import Forecast
from ocimig.migrate.hands import Brake, Memory, Source, Spec
from ocimig.migrate.interrupts import Interrupts
from ocimig.migrate.journal import Journal
from ocimig.migrate.phases import PREFLIGHT
from ocimig.migrate.predict import Predictor
from ocimig.migrate.progress import Progress
from ocimig.migrate.report import Report
from ocimig.migrate.rounds import PAGE, RoundPolicy, RoundStats
from ocimig.migrate.settling import Connect, roll_back
from ocimig.migrate.transport import Connection, Target
from ocimig.migrate.wire import Wire
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store

GOODBYE = failpoints.patience(5.0)  # seconds that a far side is waited for that is given up
DOUBT = failpoints.patience(60.0)  # seconds that the command asks on after the commit


@dataclass(frozen=True, slots=True)
class MigrateOptions:
    """What the person may choose; none of it changes the protocol."""

    transport: str = "paramiko"
    remote_command: str = ""  # how ocimig is called there; $OCIMIG_REMOTE_COMMAND, then `ocimig`
    remote_root: str = ""
    dry_run: bool = False
    tcp_close: bool = False
    file_locks: bool = False
    link_remap: bool = False
    ext_unix_sk: bool = False
    keep_source_files: bool = False
    patience: float = failpoints.patience(30.0)  # after which the far side aborts without `go`
    doubt: float = DOUBT
    reconnect: float = attach.LINGER  # seconds to come back after the link broke while it runs here
    assume_destination_dead: bool = False
    policy: RoundPolicy = field(default_factory=RoundPolicy)
    tracker: str = ""  # "" is the best that works here; "none" leaves the memory to the freeze
    streams: int = 0  # connections that carry memory; 0 is as many as pay
    compress: str = "auto"
    post_copy: bool = False
    retain: bool = True  # keep the memory here for a while, in case it comes back


class Together(Protocol):
    """What else moves with it, all or none: `member` is the real one. Raises GroupTurnedBack."""

    group: str
    members: list[str]  # the migrations, this one too
    migration: str

    def looked(self, facts: dict[str, Any]) -> None:
        """Nothing stands in the way: wait for the others."""

    def converged(self, seconds: float) -> bool:
        """It could be frozen: whether all others could, waiting that long at most."""

    def prepared(self) -> None:
        """Built there: wait for the others."""

    def intended(self) -> bool:
        """Given away: whether all others were too. Raises nothing."""


def remote_argv(options: MigrateOptions) -> list[str]:
    """The command that becomes the far side."""
    command = options.remote_command or os.environ.get("OCIMIG_REMOTE_COMMAND", "") or "ocimig"
    root = ["--root", options.remote_root] if options.remote_root else []
    return [*shlex.split(command), *root, "agent"]


class Move:
    """What the parts of one migration share."""

    def __init__(
        self,
        store: Store,
        id: str,
        target: Target,
        options: MigrateOptions,
        progress: Progress,
        hands: Source,
        connecting: Connect,
        together: Together | None = None,
    ) -> None:
        self.store = store
        self.id = id
        self.target = target
        self.options = options
        self.progress = progress
        self.hands = hands
        self.connecting = connecting
        self.together = together
        self.interrupts = Interrupts()
        self.predictor = Predictor.open(store, target.host)
        self.closing = ExitStack()  # what ends with the migration, whatever its end
        self.state: ContainerState
        self.spec: Spec
        self.connection: Connection
        self.wire: Wire
        self.entry: Journal
        self.container: dict[str, Any] = {}
        self.here: dict[str, Any] = {}
        self.far: dict[str, Any] = {}
        self.trees: list[tuple[str, str]] = []
        self.epoch = 0
        self.bytes: dict[str, int] = {}
        self.findings: list[preflight.Finding] = []
        self.notes: list[str] = []
        self.memory: Memory | None = None
        self.brake: Brake | None = None
        self.following: Following | None = None  # what is left of its memory, after --post-copy
        self.resumed = 0
        self.frozen_at = 0.0
        self.running_at = 0.0

    def call(self) -> Wire:
        """Start the far side and greet it."""
        self.connection = self.connecting()
        self.closing.callback(lambda: self.connection.close())
        argv = remote_argv(self.options)
        wire = Wire(self.connection.open(argv), program=argv[0])
        self.closing.callback(wire.close)
        wire.side = "source"
        wire.greet()
        if wire.noise:
            self.notes.append(f"{wire.host} prints before it works: {wire.noise.splitlines()[0]!r}")
        return wire

    def streams(self) -> list[Wire]:
        """The wires that carry memory: this one, and as many more as were asked for or pay."""
        found = [self.wire]
        wanted = self.options.streams or attach.how_many(self.predictor.round_trip)
        while len(found) < wanted:
            found.append(self.stream())
        return found

    def stream(self) -> Wire:
        """One more to the same agent."""
        wire = attach.stream(self.connection, remote_argv(self.options), self.entry.migration)
        self.closing.callback(wire.close)
        return wire

    def connect_again(self, error: LinkLost) -> list[Wire]:
        """A new link to the same agent, while the container runs here; raises `error` when there is none."""
        with suppress(LinkLost):
            while self.wire.receive_now() is not None:
                pass  # perhaps it said why, before it went: that is raised here
        self.progress.tell("warning", f"the link broke: {error}; connecting again")
        argv, migration = remote_argv(self.options), self.entry.migration
        try:
            with self.progress.span("connect again"):
                link = attach.resume(self.connecting, argv, migration, self.options.reconnect)
        except (OcimigError, OSError) as failure:
            raise LinkLost(host=self.target.host, reason=f"{error}; {failure}") from error
        self.closing.callback(link.close)
        self.connection.close()
        self.connection, self.wire = link.connection, link.wire
        self.wire.side = "source"
        self.resumed += 1
        return self.streams()

    def send_files(self, number: int, pids: list[int]) -> None:
        """A pass over the trees: all of them, or what changed since the pass before."""
        before = self.wire.sent
        for tree, path in self.trees:
            header = {"pass": number, "tree": tree, "path": path}
            header["fresh"] = not self.hands.knows_files(tree)
            self.wire.send("files", header, flush=False)
            self.hands.send_files(self.wire, tree, path, self.state, pids)
        self.bytes[f"files, pass {number}"] = self.wire.sent - before

    def foresee(self, last: RoundStats) -> None:
        """Say what the blackout will be, with the last round made and everything warm."""
        decision = self.progress.decision
        if decision is not None:
            self.predictor.look(self.hands.pids(self.state))
            foreseen = self.predictor.predict(
                last.dirty_pages * PAGE, decision.bandwidth, decision.dirty_rate
            )
            self.progress.predicted = foreseen.total

    def learn(self, report: Report) -> None:
        """Keep what it took for the next one."""
        decision = self.progress.decision
        self.predictor.learn(
            report.parts, bandwidth=decision.bandwidth if decision is not None else 0.0
        )

    def ended(self, error: BaseException) -> BaseException:
        """What a failure before the end means for the container, and for the person."""
        entry = self.entry
        if isinstance(error, MigrationInDoubt):
            return error
        if entry.phase in ("ACKED", "DONE"):
            # It runs there; what failed was ending it here, and --resume does that again.
            return SourceLeftovers(id=self.id, target=self.target.host, leftovers=str(error))
        if entry.phase == "COMMIT-INTENT" and not isinstance(error, MigrationFailed):
            # Whatever went wrong after the container was given away, it gives nothing back.
            return MigrationInDoubt(id=self.id, target=self.target.host, reason=str(error))
        reached = phases.PHASE_OF.get(entry.phase, PREFLIGHT).name
        try:  # it is ours, whatever the far side does: first of all it runs
            with self.interrupts.held():
                roll_back(entry, self.hands, self.store, str(error))
        finally:
            self._give_up(str(error))
        if isinstance(error, MigrationFailed):
            return error
        if isinstance(error, KeyboardInterrupt | Interrupted):
            return Interrupted(state=f"rolled back, container {self.id} runs here")
        if not isinstance(error, OcimigError | OSError):
            return error  # a mistake of ours: its traceback says more than any sentence
        advice = error.advice if isinstance(error, OcimigError) else ""
        return MigrationFailed(
            id=self.id, phase=reached, reason=str(error), fix=advice or "try again",
            code=_code(error),
        )  # fmt: skip

    def _give_up(self, reason: str) -> None:
        """Have the far side remove what it got: it does so anyway when the link ends. A signal ends the wait."""
        deadline = time.monotonic() + GOODBYE
        with suppress(OcimigError, OSError):
            self.wire.send("abort", {"reason": reason}, timeout=GOODBYE)
            while time.monotonic() < deadline:
                with suppress(FarFailure):  # it turns back already: its link ends when all is gone
                    if self.wire.receive(deadline=deadline).kind == "aborted":
                        return

    def report(
        self,
        outcome: str,
        migration: str,
        *,
        rate: DirtyRate | None = None,
        forecast: Forecast | None = None,
    ) -> Report:
        """Everything that happened, once nothing more does; or what would."""
        self.progress.tell("end", outcome)
        return report.build(
            self.progress,
            id=self.id,
            migration=migration,
            target=self.target.host,
            outcome=outcome,
            frozen_at=self.frozen_at,
            running_at=self.running_at,
            bytes=self.bytes,
            findings=self.findings,
            notes=[
                *self.notes,
                *self.hands.notes,
                *(self.memory.notes if self.memory is not None else ()),
            ],
            rate=rate,
            forecast=forecast,
        )


def _code(error: BaseException) -> int:
    if isinstance(error, FarFailure) and error.code not in (0, 1, 20):
        return error.code
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    full = full or (isinstance(error, OcimigError) and error.code == NoSpace.code)
    return 15 if full else 20


def reach(target: Target) -> dict[str, Any]:
    """What --resume needs to find the same host again."""
    return {
        "host": target.host,
        "user": target.user,
        "port": target.port,
        "identity": target.identity,
        "known_hosts": target.known_hosts,
        "config": target.config,
    }
