"""The acts that end a migration one way or the other, for the engine and for who comes after a crash.

Never decides which way: `phases.settle` does, from what both sides wrote down.
"""

from collections.abc import Callable

from ocimig import log
from ocimig.errors import OcimigError
from ocimig.migrate import failpoints, group, phases
from ocimig.migrate.errors import HELD, MigrationInDoubt, RanWithoutMemory
from ocimig.migrate.hands import Destination, Source
from ocimig.migrate.journal import Journal
from ocimig.migrate.transport import Connection
from ocimig.migrate.wire import Wire
from ocimig.runtime.store import Store

SILENCE = failpoints.patience(20.0)  # seconds without a sign of life from the far side
ASK_AGAIN = 1.0  # seconds between two questions what the destination decided

Connect = Callable[[], Connection]


def roll_back(
    entry: Journal, hands: Source, store: Store, reason: str = "its command ended"
) -> bool:
    """Settle a source's journal that is ours: the container runs here, unless it has ended; whether it lives.

    When it cannot be made as it was, that is raised and the journal stays as it is: recover tries again.
    """
    lives = hands.let_run(store, entry)
    entry.write("ABORTED", reason=reason)
    hands.discard_images(entry)
    entry.clear(keep="criu")  # its log says why
    return lives


def ask(entry: Journal, connecting: Connect, argv: list[str]) -> str | None:
    """The destination's last record; None while it does not answer."""
    try:
        with connecting() as connection:
            wire = Wire(connection.open(argv), program=argv[0])
            try:
                wire.greet()
                wire.send("status", {"migration": entry.migration})
                answer = wire.expect("status", timeout=SILENCE).header
                wire.send("bye")
                return str(answer["phase"])
            finally:
                wire.close()
    except (OcimigError, OSError) as error:
        log.debug(f"no answer about {entry.migration}: {error}")
        return None


def in_doubt(
    entry: Journal, there: str | None, reason: str, *, lives: bool = True
) -> MigrationInDoubt:
    """Why a container stays held here, with the destination's last record; `lives`: its processes are left."""
    id, target = entry.facts["id"], entry.facts["target"]
    if there == phases.LOST:
        return RanWithoutMemory(id=id, target=target, reason=reason)
    held = HELD if lives else "has no process left here"
    return MigrationInDoubt(id=id, target=target, held=held, reason=reason)


def clean_up(store: Store, entry: Journal, hands: Source) -> list[str]:
    """Remove what is left of a container that runs on the far side; what could not be removed.

    Each step is tried although another failed, and may be done twice: --resume does it again.
    """
    left = hands.remove(store, entry)
    if left:
        return left
    try:
        entry.write("DONE")
        entry.clear()
    except OSError as error:
        left.append(f"journal {entry.path}: {error.strerror}")
    return left


def settle_there(store: Store, entry: Journal, deeds: Destination) -> bool:
    """Bring a destination's journal that nobody works on to its end; False while somebody does.

    Before GO that is ABORTED. After GO the container runs here or it does not: its process tells.
    One that was prepared and whose agent is gone can run no more, so what moves with it is not let go.
    """
    try:
        with entry.lock():
            entry.reload()
            if entry.ended:
                return True
            follows = bool(entry.facts.get("follows"))  # and nobody is left who could bring it
            if entry.phase == "GO" and not follows and deeds.runs(store, entry):
                deeds.adopt(store, entry)
                entry.write("RUNNING", pid=entry.facts["pid"])
                return True
            if entry.phase == "PREPARED":
                group.decide(store, entry, "ABORTED")
            deeds.discard(store, entry)
            end = "ABORTED" if entry.phase != "GO" else "LOST" if follows else "FAILED"
            entry.write(end, reason="its agent ended")
            entry.clear(keep="criu")
            return True
    except BlockingIOError:
        return False
