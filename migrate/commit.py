"""The commit and what follows: from "prepared" on both sides to one copy that runs there. Never resumes on a guess.

The order of the writes in here is the safety of a migration (docs/migration.md):
COMMIT-INTENT is durable before `go` leaves, and after it only the destination's word counts.
"""

import time

from ocimig.errors import OcimigError
from ocimig.migrate import phases, settling
from ocimig.migrate.errors import MigrationFailed, SourceLeftovers
from ocimig.migrate.following import Following
from ocimig.migrate.move import Move, remote_argv
from ocimig.migrate.phases import COMMIT, RUNNING
from ocimig.migrate.report import Report
from ocimig.migrate.settling import SILENCE, ask, clean_up, in_doubt

_APART = "not all that move together were given away, as far as is known here"


def commit(move: Move) -> None:
    """The point of no return. Whatever happens in here, the container is not resumed on a guess."""
    entry = move.entry
    if move.memory is not None:
        move.memory.confirm()
    if move.following is not None:
        move.following.check()
    if move.together is not None:
        move.together.prepared()
    move.interrupts.check()
    entry.write("COMMIT-INTENT")
    move.progress.enter(COMMIT)
    doubt = ""
    try:
        with move.progress.span("go to running"):
            if move.together is None or move.together.intended():
                permission = {"epoch": move.epoch, "migration": entry.migration}
                move.wire.send("go", permission, timeout=SILENCE)
            else:  # perhaps one of the others was told to go all the same: the answer says
                move.wire.send("abort", {"reason": _APART}, timeout=SILENCE)
            if move.following is not None:
                _follow(move, move.following)
            answer = move.wire.expect("running", timeout=move.options.patience)
        move.progress.heard(answer.header)
    except (OcimigError, OSError) as error:
        doubt = str(error)
    if doubt:
        _settle_doubt(move, doubt)
    move.running_at = move.running_at or move.progress.now()
    entry.write("ACKED")
    move.progress.enter(RUNNING)
    if move.memory is not None and move.options.retain:
        with move.progress.span("keep its memory"):
            move.hands.keep_memory(move.store, move.state, move.memory)
    move.hands.kill(move.state)


def _follow(move: Move, following: Following) -> None:
    """It runs there, with its memory still here: until all of it has followed. What it was stays frozen."""
    released = move.wire.expect("released", timeout=move.options.patience)
    move.running_at = move.progress.now()
    move.progress.heard(released.header)
    with move.progress.span("memory follows"):
        following.wait()
    move.bytes["memory that followed"] = following.sent


def _settle_doubt(move: Move, reason: str) -> None:
    """Ask until the destination has decided. Returns when it runs there, raises otherwise."""
    move.progress.tell("warning", f"in doubt: {reason}")
    until = time.monotonic() + move.options.doubt
    while True:
        there = ask(move.entry, move.connecting, remote_argv(move.options))
        verdict = phases.settle(move.entry.phase, there)
        if verdict.verdict == phases.THEIRS:
            return
        if verdict.verdict == phases.OURS:
            raise MigrationFailed(
                id=move.id, phase="COMMIT", reason=f"{verdict.reason} ({reason})", fix=""
            )
        if move.following is not None and move.following.alive:
            until = time.monotonic() + move.options.doubt  # it takes what is left: it will decide
        final = there in (phases.UNKNOWN, phases.LOST)
        if final or time.monotonic() > until or move.interrupts.pending:
            why = reason if there == phases.LOST else verdict.reason
            raise in_doubt(move.entry, there, why)
        time.sleep(settling.ASK_AGAIN)


def finish(move: Move) -> Report:
    """It runs there: wait until its files are on disk there, then remove ours."""
    leftovers: list[str] = []
    with move.interrupts.held():
        try:  # our files go only when theirs are on disk
            with move.progress.span("files on disk there"):
                move.wire.expect("settled", timeout=SILENCE)
                move.wire.send("bye", timeout=5)
        except (OcimigError, OSError) as error:
            leftovers = [f"everything: {move.target.host} did not confirm its files: {error}"]
        else:
            with move.progress.span("clean up here"):
                leftovers = clean_up(move.store, move.entry, move.hands)
    if leftovers:
        raise SourceLeftovers(id=move.id, target=move.target.host, leftovers="; ".join(leftovers))
    report = move.report("moved", move.entry.migration)
    move.learn(report)
    return report
