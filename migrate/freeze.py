"""What follows while the container stands still: what was written last, and what CRIU saved of it.

CRIU waits in post-dump meanwhile. Returning ends the container here, raising lets it run again.
"""

import time

from ocimig import jsonio
from ocimig.migrate import commit, images
from ocimig.migrate.following import Following
from ocimig.migrate.hands import Frozen
from ocimig.migrate.move import Move
from ocimig.migrate.phases import FREEZE, PREPARED
from ocimig.migrate.rounds import RoundStats
from ocimig.migrate.settling import SILENCE


def freeze(move: Move) -> None:
    """FREEZE to RUNNING; when this raises before the commit, the container runs here again."""
    progress = move.progress

    def on_frozen(frozen: Frozen) -> None:
        with move.interrupts:  # the checkpoint holds signals back, and we need not
            try:
                _while_frozen(move, frozen)
            except BaseException:
                if move.following is not None:
                    move.following.stop()  # before anything of it moves again
                raise

    def before_freeze() -> None:
        """All is warm here and there: once more what changed while it got so."""
        with progress.span("files and memory once more"):
            if move.memory is not None and move.memory.post_copy:
                move.following = Following(move.stream())
                move.foresee(RoundStats(0, 0, 0, 0.0))
            elif move.memory is not None and move.options.policy.max_rounds:
                move.foresee(move.memory.round())
                if move.brake is not None:
                    # CRIU's own code in there would wait for the container's share of the processor.
                    move.memory.stopped = move.brake.restore
            move.send_files(2, [])
        move.entry.write("FREEZE")
        progress.enter(FREEZE)

    move.hands.dump(
        move.store, move.state, move.entry, move.options, on_frozen, move.memory, before_freeze
    )


def _while_frozen(move: Move, frozen: Frozen) -> None:
    progress, wire = move.progress, move.wire
    move.frozen_at = frozen.began - progress.began
    progress.frozen(frozen.times)
    progress.add("freeze and dump", frozen.began, time.monotonic())
    with progress.span("files while frozen"):
        move.send_files(2, frozen.pids)
    with progress.span("images"):
        move.bytes["images"] = images.send(
            wire, frozen.directory, lambda done, total: progress.sent("images", done, total)
        )
        wire.send("prepare", None, jsonio.dumps(frozen.request).encode())
        if move.following is not None and move.memory is not None:
            move.following.begin(move.memory.left())  # the restore there asks for pages already
    with progress.span("prepare there"):
        move.hands.hold(move.store, move.state, move.entry.migration)
        wire.expect("shipped", timeout=SILENCE)
        progress.heard(wire.expect("prepared", timeout=SILENCE).header)
    progress.enter(PREPARED)
    move.entry.write("PREPARED", sync=False)
    with move.interrupts.held():
        commit.commit(move)
