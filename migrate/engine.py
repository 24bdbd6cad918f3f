"""Walks a container through the phases to another host: the only file that performs. Decides by `phases`.

The order of the writes in here is the safety of a migration (security.md 4):
COMMIT-INTENT is durable before `go` leaves, and after it only the destination's word counts.
"""

import errno
import os
import shlex
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from ocimig import jsonio
from ocimig.errors import Interrupted, NoSpace, OcimigError
from ocimig.migrate import facts, images, journal, phases, preflight, report
from ocimig.migrate.errors import (
    FarFailure,
    LinkLost,
    MigrationFailed,
    MigrationInDoubt,
    MigrationUnsettled,
    SourceLeftovers,
)
from ocimig.migrate.hands import Frozen, Source
from ocimig.migrate.interrupts import Interrupts
from ocimig.migrate.journal import Journal
from ocimig.migrate.phases import COMMIT, FREEZE, PRECOPY, PREFLIGHT, PREPARED, RUNNING
from ocimig.migrate.progress import Observer, Progress, nobody
from ocimig.migrate.report import Report
from ocimig.migrate.settling import SILENCE, Connect, ask, clean_up, roll_back
from ocimig.migrate.source import RealSource, marked
from ocimig.migrate.transport import Target, connect
from ocimig.migrate.wire import Frame, Wire
from ocimig.runtime.store import Store

DOUBT = 60.0  # seconds that the same command goes on asking after the commit, before it gives up
ASK_AGAIN = 1.0


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
    patience: float = 30.0  # how long the far side waits for `go` before it aborts by itself
    doubt: float = DOUBT
    assume_destination_dead: bool = False


def remote_argv(options: MigrateOptions) -> list[str]:
    """The command that becomes the far side."""
    command = options.remote_command or os.environ.get("OCIMIG_REMOTE_COMMAND", "") or "ocimig"
    root = ["--root", options.remote_root] if options.remote_root else []
    return [*shlex.split(command), *root, "agent"]


def migrate(
    store: Store,
    id: str,
    target: Target,
    options: MigrateOptions,
    observer: Observer = nobody,
    *,
    hands: Source | None = None,
    connecting: Connect | None = None,
) -> Report:
    """Move a running container to the target, or with `dry_run` say what would happen.

    Raises PreflightRefused (nothing was changed), MigrationFailed (it runs here as before),
    MigrationInDoubt (held here until --resume), SourceLeftovers (it runs there).
    """
    earlier = journal.unsettled(store, id)
    if earlier is not None and phases.committed(earlier.phase):
        raise MigrationUnsettled(
            migration=earlier.migration,
            id=id,
            target=earlier.facts.get("target", "?"),
            phase=earlier.phase,
        )
    work = _Migration(
        store, id, target, options, Progress(observer), hands or RealSource(),
        connecting or (lambda: connect(target, transport=options.transport)),
    )  # fmt: skip
    with journal.claim_container(store, id):
        if earlier is not None:
            roll_back(earlier, work.hands, store)
        return work.run()


class _Migration:
    """One migration from its first look to its report."""

    def __init__(
        self,
        store: Store,
        id: str,
        target: Target,
        options: MigrateOptions,
        progress: Progress,
        hands: Source,
        connecting: Connect,
    ) -> None:
        self.store = store
        self.id = id
        self.target = target
        self.options = options
        self.progress = progress
        self.hands = hands
        self.connecting = connecting
        self.interrupts = Interrupts()
        self.bytes: dict[str, int] = {}
        self.there: list[dict[str, Any]] = []
        self.findings: list[preflight.Finding] = []
        self.notes: list[str] = []
        self.frozen_at = 0.0
        self.running_at = 0.0

    def run(self) -> Report:
        """PREFLIGHT to RUNNING."""
        self.progress.enter(PREFLIGHT)
        self.state, self.spec = self.hands.load(self.store, self.id)
        with self.interrupts, ExitStack() as closing:
            wire = self._call(closing)
            container, here, there = self._preflight(wire)
            if self.options.dry_run:
                with suppress(LinkLost):
                    wire.send("bye")
                return self._report("possible", "")
            entry = self._begin(container, here, there)
            closing.enter_context(entry.lock())
            try:
                self._precopy(wire, entry, container, there)
                self._freeze(wire, entry)
            except BaseException as error:
                raise self._ended(wire, entry, error) from error
            return self._finish(wire, entry)

    # ---- before anything is touched

    def _call(self, closing: ExitStack) -> Wire:
        connection = self.connecting()
        closing.callback(connection.close)
        argv = remote_argv(self.options)
        wire = Wire(connection.open(argv), program=argv[0])
        closing.callback(wire.close)
        wire.greet()
        if wire.noise:
            self.notes.append(f"{wire.host} prints before it works: {wire.noise.splitlines()[0]!r}")
        return wire

    def _preflight(self, wire: Wire) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        container = self.hands.container(self.state, self.spec)
        request = {
            "id": self.id,
            "bundle": self.state.bundle,
            "paths": container["binds"],
            "network": container["network"],
            "probe_address": True,
        }
        wire.send("facts", request)  # both hosts look at themselves at the same time
        here = self.hands.host(self.store, {**request, "paths": (), "probe_address": False})
        there = wire.expect("facts", timeout=SILENCE * 3).header
        self.findings = preflight.check(container, here, there, tcp_close=self.options.tcp_close)
        for finding in self.findings:
            self.progress.tell("finding", finding.text, severity=finding.severity, fix=finding.fix)
        preflight.refuse(self.findings)
        self.epoch = max(int(here["epoch"]), int(there["epoch"])) + 1
        return container, here, there

    def _begin(
        self, container: dict[str, Any], here: dict[str, Any], there: dict[str, Any]
    ) -> Journal:
        journal.prune(self.store)
        migration = journal.new_id()
        home = preflight.choose_images(here, preflight.image_bytes(container))
        self.trees = self.hands.trees(self.state)
        return journal.create(
            self.store, migration, "source", images=os.path.join(home, migration, "image"),
            id=self.id, epoch=self.epoch, target=there["host"], target_id=there["host_id"],
            target_boot=there["boot_id"], reach=_reach(self.target), argv=remote_argv(self.options),
            transport=self.options.transport, network=container["network"],
            keep_source_files=self.options.keep_source_files, pid=self.state.pid,
            start_time=self.state.start_time, boot_id=self.state.boot_id, trees=marked(self.trees),
        )  # fmt: skip

    # ---- while it runs

    def _precopy(
        self, wire: Wire, entry: Journal, container: dict[str, Any], there: dict[str, Any]
    ) -> None:
        entry.write("PRECOPY")
        self.progress.enter(PRECOPY)
        limit = preflight.image_bytes(container)
        wire.send(
            "reserve",
            {
                "migration": entry.migration,
                "id": self.id,
                "epoch": self.epoch,
                "source": facts.host_name(),
                "bundle": self.state.bundle,
                "rootfs": self.state.rootfs,
                "network": container["network"],
                "images": preflight.choose_images(there, limit),
                "image_limit": limit * 4,  # what was measured may grow until the freeze
                "patience": self.options.patience,
                "tcp_close": self.options.tcp_close,
            },
        )
        wire.expect("reserved", timeout=SILENCE)
        with self.progress.span("files while it runs"):
            self._send_files(wire, 1, [])
        with self.progress.span("get ready there"):
            foreseen = self.hands.foresee(self.state, self.spec)
            foreseen["tcp_close"] = self.options.tcp_close
            wire.send("warm", None, jsonio.dumps(foreseen).encode())
            wire.expect("warmed", timeout=SILENCE)

    def _send_files(self, wire: Wire, number: int, pids: list[int]) -> None:
        before = wire.sent
        for tree, path in self.trees:
            wire.send("files", {"pass": number, "tree": tree, "path": path}, flush=False)
            self.hands.send_files(wire, tree, path, pids)
        self.bytes[f"files, pass {number}"] = wire.sent - before

    def _expect(self, wire: Wire, kind: str) -> Frame:
        return wire.expect(kind, timeout=SILENCE)

    # ---- frozen

    def _freeze(self, wire: Wire, entry: Journal) -> None:
        entry.write("FREEZE")
        self.progress.enter(FREEZE)
        self.dump_began = self.progress.now()

        def on_frozen(frozen: Frozen) -> None:
            with self.interrupts:  # the checkpoint holds signals back, and we need not
                self._while_frozen(wire, entry, frozen)

        self.hands.dump(self.store, self.state, entry, self.options, on_frozen)

    def _while_frozen(self, wire: Wire, entry: Journal, frozen: Frozen) -> None:
        """CRIU waits in post-dump. Returning ends the container here, raising lets it run again."""
        self.frozen_at = frozen.began - self.progress.began
        took = self.progress.now() - self.frozen_at
        self.progress.spans.append(("freeze and dump", self.frozen_at, took))
        with self.progress.span("files while frozen"):
            self._send_files(wire, 2, frozen.pids)
        with self.progress.span("images"):
            self.bytes["images"] = images.send(
                wire,
                frozen.directory,
                lambda done, total: self.progress.sent("images", done, total),
            )
            self._expect(wire, "shipped")
        with self.progress.span("prepare there"):
            wire.send("prepare", None, jsonio.dumps(frozen.request).encode())
            self.hands.hold(self.store, self.state, entry.migration)
            self.there += self._expect(wire, "prepared").header.get("steps", [])
        self.progress.enter(PREPARED)
        entry.write("PREPARED")
        with self.interrupts.held():
            self._commit(wire, entry)

    def _commit(self, wire: Wire, entry: Journal) -> None:
        """The point of no return. Whatever happens in here, the container is not resumed on a guess."""
        self.interrupts.check()
        entry.write("COMMIT-INTENT")
        self.progress.enter(COMMIT)
        doubt = ""
        try:
            with self.progress.span("go to running"):
                wire.send(
                    "go", {"epoch": self.epoch, "migration": entry.migration}, timeout=SILENCE
                )
                answer = wire.expect("running", timeout=self.options.patience)
            self.there += answer.header.get("steps", [])
        except (OcimigError, OSError) as error:
            doubt = str(error)
        if doubt:
            self._settle_doubt(entry, doubt)
        self.running_at = self.progress.now()
        entry.write("ACKED")
        self.progress.enter(RUNNING)
        self.hands.kill(self.state)

    def _settle_doubt(self, entry: Journal, reason: str) -> None:
        """Ask until the destination has decided. Returns when it runs there, raises otherwise."""
        self.progress.tell("warning", f"in doubt: {reason}")
        until = time.monotonic() + self.options.doubt
        while True:
            there = self._ask(entry)
            verdict = phases.settle(entry.phase, there)
            if verdict.verdict == phases.THEIRS:
                return
            if verdict.verdict == phases.OURS:
                raise MigrationFailed(
                    id=self.id, phase="COMMIT", reason=f"{verdict.reason} ({reason})", fix=""
                )
            if there == phases.UNKNOWN or time.monotonic() > until or self.interrupts.pending:
                raise MigrationInDoubt(id=self.id, target=self.target.host, reason=verdict.reason)
            time.sleep(ASK_AGAIN)

    def _ask(self, entry: Journal) -> str | None:
        return ask(entry, self.connecting, remote_argv(self.options))

    # ---- the end

    def _ended(self, wire: Wire, entry: Journal, error: BaseException) -> BaseException:
        """What a failure before the end means for the container, and for the person."""
        if isinstance(error, MigrationInDoubt):
            return error
        if entry.phase in ("ACKED", "DONE"):
            # It runs there; what failed was ending it here, and --resume does that again.
            return SourceLeftovers(id=self.id, target=self.target.host, leftovers=str(error))
        if entry.phase == "COMMIT-INTENT" and not isinstance(error, MigrationFailed):
            # Whatever went wrong after the container was given away, it gives nothing back.
            return MigrationInDoubt(id=self.id, target=self.target.host, reason=str(error))
        reached = phases.PHASE_OF.get(entry.phase, PREFLIGHT).name
        with suppress(LinkLost, OcimigError, OSError):
            wire.send("abort", {"reason": str(error)}, timeout=5)
            while wire.receive(5).kind != "aborted":
                pass
        with self.interrupts.held():
            roll_back(entry, self.hands, self.store, str(error))
        if isinstance(error, MigrationFailed):
            return error
        if isinstance(error, KeyboardInterrupt | Interrupted):
            return Interrupted(state=f"rolled back, container {self.id} runs here")
        if isinstance(error, FarFailure) and error.code not in (0, 1, 20):
            code = error.code
        else:
            code = 15 if _is_full(error) else 20
        if not isinstance(error, OcimigError | OSError):
            return error  # a mistake of ours: its traceback says more than any sentence
        advice = error.advice if isinstance(error, OcimigError) else ""
        return MigrationFailed(
            id=self.id, phase=reached, reason=str(error), fix=advice or "try again", code=code
        )

    def _finish(self, wire: Wire, entry: Journal) -> Report:
        leftovers: list[str] = []
        with self.interrupts.held():
            try:  # our files go only when theirs are on disk
                with self.progress.span("files on disk there"):
                    wire.expect("settled", timeout=SILENCE)
                    wire.send("bye", timeout=5)
            except (OcimigError, OSError) as error:
                leftovers = [f"everything: {self.target.host} did not confirm its files: {error}"]
            else:
                with self.progress.span("clean up here"):
                    leftovers = clean_up(self.store, entry, self.hands)
        if leftovers:
            raise SourceLeftovers(
                id=self.id, target=self.target.host, leftovers="; ".join(leftovers)
            )
        return self._report("moved", entry.migration)

    def _report(self, outcome: str, migration: str) -> Report:
        self.progress.tell("end", outcome)
        return Report(
            id=self.id,
            migration=migration,
            target=self.target.host,
            outcome=outcome,
            seconds=self.progress.now(),
            blackout=max(0.0, self.running_at - self.frozen_at),
            phases=report.phase_times(self.progress),
            spans=report.spans_of(self.progress, self.there),
            bytes=self.bytes,
            findings=tuple(self.findings),
            notes=tuple(self.notes),
        )


def _is_full(error: BaseException) -> bool:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or (isinstance(error, OcimigError) and error.code == NoSpace.code)


def _reach(target: Target) -> dict[str, Any]:
    """What --resume needs to find the same host again."""
    return {
        "host": target.host,
        "user": target.user,
        "port": target.port,
        "identity": target.identity,
        "known_hosts": target.known_hosts,
        "config": target.config,
    }
