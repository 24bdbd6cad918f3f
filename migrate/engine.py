"""Walks a container through the phases to another host. Decides by `phases`; what each phase does is beside it:

PREFLIGHT              here, with `preflight`
PRECOPY                precopy     files and memory follow while it runs
FREEZE, PREPARED       freeze      the rest follows while it stands still
COMMIT, RUNNING        commit      it is given away
"""

import os
from contextlib import suppress
from typing import Any

from ocimig.migrate import commit, forecast, freeze, journal, phases, precopy, preflight
from ocimig.migrate.errors import LinkLost, MigrationUnsettled
from ocimig.migrate.hands import Source
from ocimig.migrate.journal import Journal
from ocimig.migrate.move import MigrateOptions, Move, Together, reach, remote_argv
from ocimig.migrate.phases import PREFLIGHT
from ocimig.migrate.progress import Observer, Progress, nobody
from ocimig.migrate.report import Report
from ocimig.migrate.rounds import PAGE
from ocimig.migrate.settling import SILENCE, Connect, roll_back
from ocimig.migrate.source import RealSource, marked
from ocimig.migrate.transport import Target, connect
from ocimig.runtime.store import Store

__all__ = ["MigrateOptions", "migrate", "remote_argv"]


def migrate(
    store: Store,
    id: str,
    target: Target,
    options: MigrateOptions,
    observer: Observer = nobody,
    *,
    hands: Source | None = None,
    connecting: Connect | None = None,
    together: Together | None = None,
) -> Report:
    """Move a running container to the target, or with `dry_run` say what would happen.

    Raises PreflightRefused (nothing was changed), MigrationFailed (it runs here as before),
    MigrationInDoubt (held here until --resume), SourceLeftovers (it runs there).
    """
    move = Move(
        store, id, target, options, Progress(observer), hands or RealSource(),
        connecting or (lambda: connect(target, transport=options.transport)), together,
    )  # fmt: skip
    with journal.claim_container(store, id):
        _end_earlier(move)
        return _walk(move)


def _end_earlier(move: Move) -> None:
    """What a command left that was killed, as it is now that nobody works on it: taken back, or refused."""
    earlier = journal.unsettled(move.store, move.id)
    if earlier is None:
        return
    if phases.committed(earlier.phase):
        raise MigrationUnsettled(
            migration=earlier.migration,
            id=move.id,
            target=earlier.facts.get("target", "?"),
            phase=earlier.phase,
        )
    roll_back(earlier, move.hands, move.store)


def _walk(move: Move) -> Report:
    """PREFLIGHT to RUNNING."""
    move.progress.enter(PREFLIGHT)
    move.state, move.spec = move.hands.load(move.store, move.id)
    with move.interrupts, move.closing:
        move.closing.callback(move.hands.close)
        move.wire = move.call()
        with move.wire.beating():
            _preflight(move)
            if move.together is not None:
                move.together.looked(_needs(move))
        if move.options.dry_run:
            return _foresee(move)
        begun = False
        try:
            with move.interrupts.held():  # a journal that exists is one that we end
                move.entry = _begin(move)
                begun = True
                move.closing.enter_context(move.entry.lock())
            move.interrupts.check()
            precopy.precopy(move)
            freeze.freeze(move)
        except BaseException as error:
            if not begun:
                raise
            raise move.ended(error) from error
        return commit.finish(move)


def _foresee(move: Move) -> Report:
    """What a migration would be: measured here, calculated from there. Changes nothing."""
    with suppress(LinkLost):
        move.wire.send("bye")
    policy, predictor = move.options.policy, move.predictor
    rate = move.hands.dirty_rate(move.store, move.id, move.options)
    foreseen = None
    if rate is not None:
        pages = rate.resident // PAGE
        foreseen = forecast.forecast(
            policy, pages, rate.writes, predictor.bandwidth, predictor.fixed()
        )
    return move.report("possible", "", rate=rate, forecast=foreseen)


def _preflight(move: Move) -> None:
    """Both hosts look at themselves, at the same time; raises when anything stands in the way."""
    move.container = move.hands.container(move.state, move.spec)
    request: dict[str, Any] = {
        "id": move.id,
        "bundle": move.state.bundle,
        "paths": move.container["binds"],
        "network": move.container["network"],
        "probe_address": True,
    }
    move.predictor.look(move.hands.pids(move.state))
    move.predictor.round_trip = min(move.wire.ping() for _ in range(3))
    move.wire.send("facts", request)
    move.here = move.hands.host(move.store, {**request, "paths": (), "probe_address": False})
    move.far = move.wire.expect("facts", timeout=SILENCE * 3).header
    wishes = preflight.Wishes.of(move.options)
    move.findings = preflight.check(move.container, move.here, move.far, wishes=wishes)
    for finding in move.findings:
        move.progress.tell("finding", finding.text, severity=finding.severity, fix=finding.fix)
    preflight.refuse(move.findings)
    move.epoch = max(int(move.here["epoch"]), int(move.far["epoch"])) + 1


def _needs(move: Move) -> dict[str, Any]:
    """What it takes there and what there is, in bytes: those that move together take it together."""
    return {
        "memory": int(move.container["memory"]),
        "files": int(move.container["files"]["bytes"]),
        "available": int(move.far["memory"]["available"]),
        "free": int(move.far["bundle"]["free"]),
    }


def _begin(move: Move) -> Journal:
    """The first durable word of it on this side."""
    journal.prune(move.store)
    migration = move.together.migration if move.together is not None else journal.new_id()
    group = {"group": move.together.group} if move.together is not None else {}
    home = preflight.choose_images(move.here, preflight.image_bytes(move.container))
    move.trees = move.hands.trees(move.state)
    return journal.create(
        move.store, migration, "source", images=os.path.join(home, migration, "image"),
        id=move.id, epoch=move.epoch, target=move.far["host"], target_id=move.far["host_id"],
        target_boot=move.far["boot_id"], reach=reach(move.target), argv=remote_argv(move.options),
        transport=move.options.transport, network=move.container["network"],
        keep_source_files=move.options.keep_source_files, pid=move.state.pid,
        start_time=move.state.start_time, boot_id=move.state.boot_id, trees=marked(move.trees),
        **group,
    )  # fmt: skip
