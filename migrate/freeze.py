"""What follows while the container stands still: what was written last, and what CRIU saved of it.

CRIU waits in post-dump meanwhile. Returning ends the container here, raising lets it run again.
"""

from ocimig import jsonio
from ocimig.migrate import commit, images
from ocimig.migrate.hands import Frozen
from ocimig.migrate.move import Move
from ocimig.migrate.phases import FREEZE, PREPARED
from ocimig.migrate.settling import SILENCE


def freeze(move: Move) -> None:
    """FREEZE to RUNNING; when this raises before the commit, the container runs here again."""
    move.entry.write("FREEZE")
    move.progress.enter(FREEZE)

    def on_frozen(frozen: Frozen) -> None:
        with move.interrupts:  # the checkpoint holds signals back, and we need not
            _while_frozen(move, frozen)

    move.hands.dump(move.store, move.state, move.entry, move.options, on_frozen)


def _while_frozen(move: Move, frozen: Frozen) -> None:
    progress, wire = move.progress, move.wire
    move.frozen_at = frozen.began - progress.began
    progress.spans.append(("freeze and dump", move.frozen_at, progress.now() - move.frozen_at))
    with progress.span("files while frozen"):
        move.send_files(2, frozen.pids)
    with progress.span("images"):
        move.bytes["images"] = images.send(
            wire, frozen.directory, lambda done, total: progress.sent("images", done, total)
        )
        wire.expect("shipped", timeout=SILENCE)
    with progress.span("prepare there"):
        wire.send("prepare", None, jsonio.dumps(frozen.request).encode())
        move.hands.hold(move.store, move.state, move.entry.migration)
        move.there += wire.expect("prepared", timeout=SILENCE).header.get("steps", [])
    progress.enter(PREPARED)
    move.entry.write("PREPARED")
    with move.interrupts.held():
        commit.commit(move)
