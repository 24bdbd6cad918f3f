"""Every running container of this host to others: looks, assigns, moves several at once, says how each ended.

Each migration is a process of its own, forked from this one: an engine that dies takes no other
container with it, signals reach it where it expects them, and it has an interpreter for itself.
Nothing is written down here: what is still on this host is what a second run has to move.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from typing import Any

from ocimig import files, jsonio
from ocimig.errors import Interrupted, OcimigError
from ocimig.migrate import assign, engine, journal, phases, preflight
from ocimig.migrate.assign import Assignment, Candidate, Fit, Room
from ocimig.migrate.errors import (
    AgentMissing,
    HostUnreachable,
    LinkLost,
    NothingToDrainTo,
    NotLetIn,
    PreflightRefused,
)
from ocimig.migrate.hands import Source
from ocimig.migrate.interrupts import Interrupts
from ocimig.migrate.move import MigrateOptions, remote_argv
from ocimig.migrate.outcomes import IN_DOUBT, WARNINGS, DrainOptions, Outcome, word
from ocimig.migrate.settling import SILENCE, Connect
from ocimig.migrate.source import RealSource
from ocimig.migrate.transport import Target, connect
from ocimig.migrate.wire import Wire
from ocimig.runtime import state as status_of
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store

Tell = Callable[[Outcome], None]
ConnectTo = Callable[[Target], Connect]


def drain(
    store: Store,
    targets: Sequence[Target],
    options: DrainOptions,
    tell: Tell,
    *,
    hands: Callable[[], Source] = RealSource,
    connecting: ConnectTo | None = None,
) -> list[Outcome]:
    """Move them all; `tell` hears of each as it ends. Raises only when no host can be asked."""
    work = _Drain(store, targets, options, tell, hands, connecting or _connecting(options.migrate))
    return work.run()


class _Drain:
    def __init__(
        self,
        store: Store,
        targets: Sequence[Target],
        options: DrainOptions,
        tell: Tell,
        hands: Callable[[], Source],
        connecting: ConnectTo,
    ) -> None:
        self.store = store
        self.targets = {target.host: target for target in targets}
        self.options = options
        self.tell = tell
        self.hands = hands
        self.connecting = connecting
        self.outcomes: list[Outcome] = []
        self.rooms: dict[str, Room] = {}
        self.waiting: dict[str, Candidate] = {}
        self.children: dict[
            int, tuple[int, Candidate, str, float]
        ] = {}  # pipe → pid, what, where, when
        self.stopped = ""

    def run(self) -> list[Outcome]:
        interrupts = Interrupts()
        with interrupts:
            try:
                self._look()
                if self.options.dry_run:
                    self._foresee()
                else:
                    self._move()
            except (Interrupted, KeyboardInterrupt):
                with interrupts.held():
                    self._interrupt()
        return self.outcomes

    def _end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.tell(outcome)

    # -- before: who is here, who takes whom

    def _look(self) -> None:
        hands = self.hands()
        found = []
        for id in self.store.ids():
            state = self._running(id)
            if state is not None:
                found.append((state, hands.container(state, self.store.config(id))))
        if not found:
            return
        fits: dict[str, dict[str, Fit]] = {state.id: {} for state, _ in found}
        failures = []
        for host, target in self.targets.items():
            try:
                self._ask(hands, host, target, found, fits)
            except (OcimigError, OSError) as error:
                failures.append(f"{host}: {error}")
        if failures and not self.rooms:
            raise NothingToDrainTo(reason="; ".join(failures))
        self.rooms = {host: self.rooms[host] for host in self.targets if host in self.rooms}
        for state, container in found:
            size, tree = int(container["memory"]), int(container["files"]["bytes"])
            self.waiting[state.id] = Candidate(state.id, size, tree, fits[state.id])
        for (
            thread
        ) in threading.enumerate():  # of the connections just closed: none may live in a fork
            if thread is not threading.current_thread():
                thread.join(5)
        if failures:
            self.tell(Outcome("", "", "warning", WARNINGS, "; ".join(failures)))

    def _running(self, id: str) -> ContainerState | None:
        """Its facts when it runs; what is here and cannot leave is told."""
        try:
            state = self.store.load(id)
        except OcimigError:
            return None  # it is being deleted, or nobody can read it
        earlier = journal.unsettled(self.store, id)
        if earlier is not None and phases.committed(earlier.phase):
            host = str(earlier.facts.get("target", ""))
            fix = f"ocimig migrate --resume {id}"
            reason = "an earlier migration is not settled"
            self._end(Outcome(id, host, "in doubt", IN_DOUBT, reason, fix))
            return None
        status = status_of.status(state, self.store)
        if status in (status_of.PAUSED, status_of.CREATED):
            fix = f"ocimig {'resume' if status == status_of.PAUSED else 'start'} {id}, then drain again"
            self._end(Outcome(id, "", "left", WARNINGS, f"it is {status}", fix))
        return state if status == status_of.RUNNING else None

    def _ask(
        self,
        hands: Source,
        host: str,
        target: Target,
        found: Sequence[tuple[ContainerState, dict[str, Any]]],
        fits: dict[str, dict[str, Fit]],
    ) -> None:
        """What one host says to each container, in one conversation."""
        here: dict[str, Any] = {}
        migrate = self.options.migrate
        with ExitStack() as closing:
            connection = self.connecting(target)()
            closing.callback(connection.close)
            argv = remote_argv(migrate)
            wire = Wire(connection.open(argv), program=argv[0])
            closing.callback(wire.close)
            wire.greet()
            for state, container in found:
                request = {
                    "id": state.id,
                    "bundle": state.bundle,
                    "paths": container["binds"],
                    "network": container["network"],
                    "probe_address": False,  # takes a second each, and migrate does it
                }
                wire.send("facts", request)
                here = here or hands.host(self.store, {**request, "paths": (), "network": None})
                there = wire.expect("facts", timeout=SILENCE * 3).header
                findings = preflight.check(
                    container, here, there, wishes=preflight.Wishes.of(migrate)
                )
                fits[state.id][host] = Fit(tuple(findings), int(there["bundle"]["free"]))
                room = Room(host, int(there["memory"]["available"]))
                self.rooms.setdefault(host, room)
            with suppress(LinkLost):
                wire.send("bye")

    def _plan(self) -> list[Assignment]:
        return assign.assign(list(self.waiting.values()), list(self.rooms.values()))

    def _foresee(self) -> None:
        for each in self._plan():
            outcome = "possible" if each.host else "refused"
            self._end(Outcome(each.id, each.host, outcome, each.code, each.reason, each.fix))

    # -- the moves

    def _move(self) -> None:
        plan = self._plan()
        for each in [each for each in plan if not each.host]:
            self._refuse(each)
        while self.waiting or self.children:
            while self.waiting and len(self.children) < self.options.parallel and not self.stopped:
                plan = [each for each in plan if each.id in self.waiting]
                self._start(self._next(plan))
            if not self.children:
                break
            if self._collect():  # a host is gone: what should go there goes elsewhere
                plan = self._plan()
                for each in [each for each in plan if not each.host]:
                    self._refuse(each)
        for id in list(self.waiting):
            del self.waiting[id]
            self._end(Outcome(id, "", "not tried", 20, self.stopped, "run drain again"))

    def _next(self, plan: Sequence[Assignment]) -> Assignment:
        """The first for the host that is least busy."""
        busy = [host for _, _, host, _ in self.children.values()]
        return min(plan, key=lambda each: busy.count(each.host))

    def _refuse(self, each: Assignment) -> None:
        del self.waiting[each.id]
        self._end(Outcome(each.id, "", "refused", each.code, each.reason, each.fix))

    def _start(self, each: Assignment) -> None:
        candidate = self.waiting.pop(each.id)
        room = self.rooms[each.host]
        self.rooms[each.host] = room.after(candidate.memory)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if not pid:
            try:
                os.setpgid(0, 0)  # Ctrl-C is ours, we pass it on
                outcome = self._migrate(each)
                files.write_all(writing, jsonio.dumps(asdict(outcome)).encode())
                os._exit(0)
            finally:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        os.close(writing)
        self.children[reading] = pid, candidate, each.host, time.monotonic()

    def _migrate(self, each: Assignment) -> Outcome:
        """In the child: one migration, whatever comes as an outcome."""
        target = self.targets[each.host]
        try:
            report = engine.migrate(
                self.store, each.id, target, self._share(), hands=self.hands(),
                connecting=self.connecting(target),
            )  # fmt: skip
        except OcimigError as error:
            failed = isinstance(error, HostUnreachable | NotLetIn | AgentMissing)
            outcome = "refused" if isinstance(error, PreflightRefused) else word(error.code)
            return Outcome(
                each.id,
                each.host,
                outcome,
                error.code,
                str(error),
                error.advice,
                host_failed=failed,
            )
        except OSError as error:
            return Outcome(each.id, each.host, "failed", 1, str(error))
        return Outcome(
            each.id, each.host, "moved", seconds=report.seconds, blackout=report.blackout,
            bytes=sum(report.bytes.values()),
        )  # fmt: skip

    def _share(self) -> MigrateOptions:
        """Each of those that move at once gets its part of the bandwidth."""
        given = self.options.migrate
        most = given.policy.max_bandwidth
        if not most:
            return given
        return replace(
            given, policy=replace(given.policy, max_bandwidth=max(1, most // self.options.parallel))
        )

    def _collect(self) -> bool:
        """Wait until one has ended; whether its host has to be given up."""
        ready, _, _ = select.select(list(self.children), [], [])
        pid, candidate, host, began = self.children[ready[0]]
        outcome = self._read(ready[0], pid, candidate, host)
        del self.children[ready[0]]
        outcome = replace(outcome, seconds=outcome.seconds or time.monotonic() - began)
        if outcome.outcome not in ("moved", "leftovers") and host in self.rooms:
            room = self.rooms[host]
            self.rooms[host] = replace(room, memory=room.memory + assign.need(candidate.memory))
        if outcome.host_failed:
            self.rooms.pop(host, None)
            self.waiting[candidate.id] = candidate
            self.tell(replace(outcome, outcome="host given up"))
            return True
        self._end(outcome)
        if outcome.code == IN_DOUBT and not self.options.keep_going:
            self.stopped = f"{outcome.id} is in doubt"
        return False

    def _read(self, pipe: int, pid: int, candidate: Candidate, host: str) -> Outcome:
        with os.fdopen(pipe, "rb") as file:
            said = file.read()
        _, status = os.waitpid(pid, 0)
        try:
            return Outcome(**jsonio.loads(said))
        except (ValueError, TypeError):
            return self._died(candidate.id, host, status)

    def _died(self, id: str, host: str, status: int) -> Outcome:
        """A migration whose process was killed: its journal says what that means."""
        how = f"its process ended with status {os.waitstatus_to_exitcode(status)}"
        earlier = journal.unsettled(self.store, id)
        if earlier is not None and phases.committed(earlier.phase):
            return Outcome(id, host, "in doubt", IN_DOUBT, how, f"ocimig migrate --resume {id}")
        return Outcome(id, host, "failed", 20, how, "ocimig recover, then drain again")

    def _interrupt(self) -> None:
        """Those that move roll back or come to their end; the rest stays."""
        for pid, _, _, _ in self.children.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        self.options = replace(self.options, keep_going=True)
        while self.children:
            self._collect()
        for id in list(self.waiting):
            self._end(Outcome(id, "", "interrupted", Interrupted.code, "", "run drain again"))


def _connecting(options: MigrateOptions) -> ConnectTo:
    return lambda target: lambda: connect(target, transport=options.transport)
