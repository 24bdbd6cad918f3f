"""What follows while the container runs: its place there, its files, its memory in rounds. Never freezes it."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from ocimig import jsonio
from ocimig.migrate import facts, preflight, rounds
from ocimig.migrate.errors import BrokenFrame, LinkLost
from ocimig.migrate.hands import Memory
from ocimig.migrate.memory.errors import CannotSlowDown, NeverConverged
from ocimig.migrate.move import Move, Together
from ocimig.migrate.phases import PRECOPY
from ocimig.migrate.rounds import RoundStats
from ocimig.migrate.settling import SILENCE
from ocimig.migrate.wire import ALIVE

PAUSE = 0.5  # seconds between rounds that only wait for others

T = TypeVar("T")


def precopy(move: Move) -> None:
    """PRECOPY: when this returns, what is left to send fits into the pause that was allowed."""
    move.entry.write("PRECOPY")
    move.progress.enter(PRECOPY)
    _reserve(move)
    with move.progress.span("files while it runs"):
        _steadily(move, lambda: move.send_files(1, []), again=move.hands.forget_files)
    with move.progress.span("get ready there"):
        warmed = _steadily(move, lambda: _warm(move))
    move.predictor.far_strain = float(warmed.get("strain") or 0.0)
    if warmed.get("memory"):
        streams = move.streams()
        move.memory = move.hands.memory(move.state, move.options, streams)
        if move.memory is not None:
            move.closing.callback(move.memory.close)
            follow(move, move.memory)
    if move.memory is None and move.options.policy.post_copy:
        move.progress.tell(
            "warning", "its memory cannot follow afterwards here: all goes in the freeze"
        )
    with move.progress.span("files again"):
        _steadily(move, lambda: move.send_files(2, []), again=move.hands.forget_files)
    if move.together is not None:
        with move.progress.span("wait for the others"):
            _gather(move, move.together)


def _gather(move: Move, together: Together) -> None:
    """Until all that move with it could be frozen too: what it writes meanwhile follows."""
    _steadily(move, lambda: move.wire.send(ALIVE))
    while not together.converged(PAUSE):
        if move.memory is not None:
            _round(move, move.memory)
        _steadily(move, lambda: move.wire.send(ALIVE))  # the far side does not wait for ever


def _steadily(move: Move, step: Callable[[], T], *, again: Callable[[], None] | None = None) -> T:
    """A step; when the link breaks meanwhile, the same over a new one, after `again`."""
    while True:
        try:
            return step()
        except LinkLost as error:
            move.connect_again(error)
            if again is not None:
                again()


def _warm(move: Move) -> dict[str, Any]:
    foreseen = move.hands.foresee(move.state, move.spec)
    foreseen["tcp_close"] = move.options.tcp_close
    # Without our object in it CRIU saves all memory, whoever has it already.
    able = bool(move.here["criu"].get("withholds"))
    foreseen["memory"] = able and move.options.tracker != "none"
    if not able:
        move.notes.append("this CRIU takes no help (is it static?): all memory goes in the freeze")
    move.wire.send("warm", None, jsonio.dumps(foreseen).encode())
    return move.wire.expect("warmed", timeout=SILENCE).header


def _reserve(move: Move) -> None:
    limit = preflight.image_bytes(move.container)
    group: dict[str, Any] = {}
    if move.together is not None:
        group = {"group": move.together.group, "members": move.together.members}
    move.wire.send(
        "reserve",
        {
            "migration": move.entry.migration,
            "id": move.id,
            "epoch": move.epoch,
            "source": facts.host_name(),
            "bundle": move.state.bundle,
            "rootfs": move.state.rootfs,
            "network": move.container["network"],
            "images": preflight.choose_images(move.far, limit),
            "image_limit": limit * 4,  # what was measured may grow until the freeze
            "patience": move.options.patience,
            "tcp_close": move.options.tcp_close,
            **group,
        },
    )
    reserved = move.wire.expect("reserved", timeout=SILENCE).header
    if reserved.get("group", "") != group.get("group", ""):
        reason = "it knows nothing of containers that move together"
        raise BrokenFrame(host=move.wire.host, reason=reason)


def follow(move: Move, memory: Memory) -> None:
    """Memory in rounds, until `rounds.decide` says that it is enough. Raises NeverConverged."""
    history: list[RoundStats] = []
    policy = move.options.policy
    brake = move.brake = move.hands.brake(move.state, move.entry)
    throttle = 0.0
    began = time.monotonic()
    if not policy.max_rounds:
        decision = move.progress.decision = rounds.decide(policy, (), move.predictor.fixed(), 0.0)
        _ready(move, memory, decision)
        return
    while True:
        with move.progress.span(f"memory, round {len(history) + 1}"):
            history.append(replace(_round(move, memory), throttle=throttle))
        decision = rounds.decide(
            policy,
            tuple(history),
            move.predictor.fixed(),
            time.monotonic() - began,
            overlap=move.predictor.overlap(),
            bandwidth=move.predictor.bandwidth,
        )
        move.progress.round(history[-1], decision)
        if decision.action == rounds.THROTTLE:
            try:
                brake.slow_down(decision.throttle)
                throttle = decision.throttle
            except CannotSlowDown as error:
                move.progress.tell("warning", str(error))
                policy = replace(policy, auto_converge=False, on_timeout=rounds.STOP)
        elif decision.action == rounds.ABORT:
            raise NeverConverged(id=move.id, reason=decision.reason)
        elif decision.action != rounds.ROUND:
            break
    move.bytes["memory while it runs"] = sum(each.sent_bytes for each in history)
    _ready(move, memory, decision)


def _ready(move: Move, memory: Memory, decision: rounds.Decision) -> None:
    """It will be frozen now. With post-copy, say what that risks while it can still be stopped."""
    if decision.action == rounds.POST_COPY:
        memory.post_copy = True
        move.progress.tell(
            "warning",
            f"the rest of its memory follows while it runs on {move.target.host}: if that host or the "
            "link fails meanwhile, it ends there and is held here as it was when it was frozen",
        )


def _round(move: Move, memory: Memory) -> RoundStats:
    """One round, over a new link when the old one breaks."""
    while True:
        try:
            with move.wire.beating():  # a look at very much memory may take long
                return memory.round()
        except LinkLost as error:
            memory.reopen(move.connect_again(error))
