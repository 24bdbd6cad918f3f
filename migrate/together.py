"""Several containers to one host, all or none: starts a process for each, tells them when to go on together.

It never commits and writes nothing down: the register there does (`group`), and each member's own
journal. So it may be killed at any moment; its members read the end of the line and turn back, or,
once they have given their containers away, ask the destination for the one word.
"""

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ocimig import jsonio
from ocimig.errors import Interrupted, OcimigError
from ocimig.migrate import assign, children, engine, failpoints, journal
from ocimig.migrate.assign import Candidate, Fit, Room
from ocimig.migrate.errors import GroupTurnedBack
from ocimig.migrate.gather import ABORT, STEPS, Gather, Orders
from ocimig.migrate.hands import Source
from ocimig.migrate.interrupts import Interrupts
from ocimig.migrate.member import Member
from ocimig.migrate.move import MigrateOptions
from ocimig.migrate.outcomes import IN_DOUBT, WARNINGS, Outcome
from ocimig.migrate.progress import Event
from ocimig.migrate.settling import Connect
from ocimig.migrate.source import RealSource
from ocimig.migrate.transport import Target
from ocimig.runtime.store import Store

_NOT_ITS_FAULT = (0, IN_DOUBT, 22)  # exit codes of one container that say nothing about another

GRACE = 2.0  # seconds that a prepared container waits longer for each one that moves with it

Tell = Callable[[Outcome], None]


def together(
    store: Store,
    ids: Sequence[str],
    target: Target,
    options: MigrateOptions,
    tell: Tell,
    *,
    hands: Callable[[], Source] = RealSource,
    connecting: Connect | None = None,
) -> list[Outcome]:
    """Move all of them or none; `tell` hears of each as it ends, and of warnings, these in the members' processes."""
    return _Group(store, ids, target, options, tell, hands, connecting).run()


@dataclass(slots=True)
class _Process:
    """The process of one member, and the line to it."""

    id: str
    pid: int
    handle: int  # pidfd
    line: socket.socket
    began: float
    said: bytearray = field(default_factory=bytearray)
    outcome: Outcome | None = None


class _Group:
    def __init__(
        self,
        store: Store,
        ids: Sequence[str],
        target: Target,
        options: MigrateOptions,
        tell: Tell,
        hands: Callable[[], Source],
        connecting: Connect | None,
    ) -> None:
        self.store = store
        self.ids = list(ids)
        self.target = target
        self.options = shared(options, len(self.ids))
        self.tell = tell
        self.hands = hands
        self.connecting = connecting
        self.group = journal.new_id()
        self.migrations = [journal.new_id() for _ in self.ids]
        self.gather = Gather(self.ids, steps=1 if options.dry_run else len(STEPS))
        self.processes: dict[str, _Process] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.outcomes: list[Outcome] = []
        self.cause: Outcome | None = None  # why all turn back

    def run(self) -> list[Outcome]:
        interrupts = Interrupts()
        with interrupts:
            try:
                for number in range(len(self.ids)):
                    self._start(number)
                self._listen()
            except (Interrupted, KeyboardInterrupt):
                with interrupts.held():
                    reason = "interrupted"
                    self._turn_back(Outcome("", "", reason, Interrupted.code, reason))
                    self._listen()
        return self.outcomes

    # -- the processes

    def _start(self, number: int) -> None:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            try:
                os.setpgid(0, 0)  # Ctrl-C is ours
                ours.close()
                for each in self.processes.values():
                    each.line.close()  # else they would not see that we are gone
                    os.close(each.handle)
                self._member(number, theirs)
                os._exit(0)
            finally:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        theirs.close()
        ours.setblocking(False)
        id = self.ids[number]
        self.processes[id] = _Process(id, pid, os.pidfd_open(pid), ours, time.monotonic())

    def _member(self, number: int, line: socket.socket) -> None:
        """In the child: one migration, whatever comes as an outcome."""
        failpoints.member(number + 1)
        id = self.ids[number]
        member = Member(
            id, self.group, self.migrations, self.migrations[number], line,
            patience=self.options.patience,
        )  # fmt: skip
        outcome = self._migrate(id, member)
        with suppress(OcimigError):  # nobody is left to hear it
            member.tell(asdict(outcome))

    def _migrate(self, id: str, member: Member) -> Outcome:
        def observe(event: Event) -> None:
            """Of several only what a person should know is said, a line each."""
            if "warning" in (event.kind, event.data.get("severity")):
                fix = str(event.data.get("fix", ""))
                self.tell(Outcome(id, self.target.host, "warning", WARNINGS, event.text, fix))

        try:
            report = engine.migrate(
                self.store, id, self.target, self.options, observe, hands=self.hands(),
                connecting=self.connecting, together=member,
            )  # fmt: skip
        except (OcimigError, OSError) as error:
            return children.failed(id, self.target.host, error)
        return children.reported(report, self.target.host)

    # -- the conversation

    def _listen(self) -> None:
        """Until every member has ended."""
        while self.processes:
            poll = select.poll()
            for each in self.processes.values():
                poll.register(each.handle, select.POLLIN)
                if each.line.fileno() >= 0:
                    poll.register(each.line, select.POLLIN)
            ready = {number for number, _ in poll.poll()}
            for each in list(self.processes.values()):
                ended = each.handle in ready
                if ended or each.line.fileno() in ready:
                    self._hear(each)
                if ended:
                    self._end(each)

    def _hear(self, process: _Process) -> None:
        """All that it has said so far."""
        while process.line.fileno() >= 0:
            try:
                data = process.line.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                process.line.close()
            process.said += data
        while b"\n" in process.said:
            line, _, rest = bytes(process.said).partition(b"\n")
            process.said[:] = rest
            self._take(process, jsonio.loads(line))

    def _take(self, process: _Process, said: dict[str, Any]) -> None:
        name = str(said.pop("word"))
        if name == "ended":
            process.outcome = Outcome(**said)
            return
        if name == "looked":
            self.facts[process.id] = said
            if len(self.facts) == len(self.ids) and not self._fits():
                return
        self._order(self.gather.heard(process.id, name))

    def _fits(self) -> bool:
        """Whether the host has room for all of them; each alone has looked for itself."""
        host = self.target.host
        rooms = [Room(host, min(each["available"] for each in self.facts.values()))]
        wanted = [
            Candidate(id, each["memory"], each["files"], {host: Fit((), each["free"])})
            for id, each in self.facts.items()
        ]
        refused = [each for each in assign.assign(wanted, rooms) if not each.host]
        if refused:
            names = ", ".join(sorted(each.id for each in refused))
            reason = f"no room for all of them: {refused[0].reason} ({names})"
            self._turn_back(Outcome("", host, "refused", refused[0].code, reason))
        return not refused

    def _order(self, orders: Orders) -> None:
        """Tell each; who cannot be told is ending, which we hear of by itself."""
        if not orders:
            return
        name = orders[0][1]
        failpoints.here("coordinator", f"{name}:before")
        reason = self.cause.reason if self.cause is not None else ""
        for number, (id, order) in enumerate(orders):
            line = jsonio.dumps({"order": order, "reason": reason if order == ABORT else ""})
            with suppress(OSError):
                self.processes[id].line.sendall(line.encode() + b"\n")
            if not number:
                failpoints.here("coordinator", f"{name}:first")
        failpoints.here("coordinator", f"{name}:after")

    def _turn_back(self, cause: Outcome, *, gone: str = "", interrupt: bool = True) -> None:
        """No member goes, unless all were told to; those that do not listen just now are interrupted."""
        if self.gather.decided:
            self.gather.ended(gone)
            return
        self.cause = cause
        busy = [each for each in self.gather.busy() if each != gone] if interrupt else []
        self._order(self.gather.ended(gone) if gone else self.gather.abort())
        for id in busy:
            with suppress(ProcessLookupError):
                os.kill(self.processes[id].pid, signal.SIGINT)

    # -- the end of one

    def _end(self, process: _Process) -> None:
        _, status = os.waitpid(process.pid, 0)
        os.close(process.handle)
        process.line.close()
        del self.processes[process.id]
        host = self.target.host
        outcome = process.outcome or children.died(self.store, process.id, host, status)
        outcome = replace(outcome, seconds=outcome.seconds or time.monotonic() - process.began)
        if self.cause is not None:
            outcome = self._stays(outcome, self.cause)
        # before anything was touched each says for itself what stands in its way
        cause = replace(outcome, reason=f"{process.id}: {outcome.reason}")
        self._turn_back(cause, gone=process.id, interrupt=self.gather.given > 0)
        self.outcomes.append(outcome)
        self.tell(outcome)

    def _stays(self, outcome: Outcome, cause: Outcome) -> Outcome:
        """One that turned back because of another: the exit code is that of the other."""
        if outcome.code not in (GroupTurnedBack.code, Interrupted.code):
            return outcome
        reason = cause.reason if outcome.code == Interrupted.code else outcome.reason
        code = GroupTurnedBack.code if cause.code in _NOT_ITS_FAULT else cause.code
        return replace(outcome, outcome="stays", code=code, reason=reason, fix=cause.fix)


def shared(options: MigrateOptions, members: int) -> MigrateOptions:
    """The options of each: its part of the bandwidth, and patience for those that move with it."""
    most = options.policy.max_bandwidth
    policy = replace(options.policy, max_bandwidth=max(1, most // members) if most else 0)
    return replace(options, policy=policy, patience=options.patience + GRACE * members)
