"""What follows while the container runs: its place there, its files, its memory in rounds. Never freezes it."""

from ocimig import jsonio
from ocimig.migrate import facts, preflight
from ocimig.migrate.move import Move
from ocimig.migrate.phases import PRECOPY
from ocimig.migrate.settling import SILENCE


def precopy(move: Move) -> None:
    """PRECOPY: when this returns, what is left to send fits into the pause that was allowed."""
    move.entry.write("PRECOPY")
    move.progress.enter(PRECOPY)
    _reserve(move)
    with move.progress.span("files while it runs"):
        move.send_files(1, [])
    with move.progress.span("get ready there"):
        foreseen = move.hands.foresee(move.state, move.spec)
        foreseen["tcp_close"] = move.options.tcp_close
        move.wire.send("warm", None, jsonio.dumps(foreseen).encode())
        move.wire.expect("warmed", timeout=SILENCE)


def _reserve(move: Move) -> None:
    limit = preflight.image_bytes(move.container)
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
        },
    )
    move.wire.expect("reserved", timeout=SILENCE)
