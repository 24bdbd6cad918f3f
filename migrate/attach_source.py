"""The source's part of attaching: further streams to an agent that works already, or the link again.

What is said is in `attach`; the far side's part is there too.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from ocimig import log
from ocimig.migrate import failpoints
from ocimig.migrate.closing import Closing
from ocimig.migrate.errors import HostUnreachable, LinkLost, NotOurProtocol
from ocimig.migrate.transport import Connection
from ocimig.migrate.wire import Wire

OPTION = "--attach"
STREAM, RESUME = "stream", "resume"
LINGER = failpoints.patience(60.0)  # seconds that an agent waits for a broken link to come again
WINDOW = 2 << 20  # bytes; OpenSSH: CHAN_SES_WINDOW_DEFAULT, 64 packets of 32 KiB
RATE = 400 << 20  # bytes a second that one connection carried at best
MOST = 4  # streams; eight brought hardly more
HANDSHAKE = 15.0  # seconds that each step of attaching may take
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 3.0  # seconds between two attempts to come back


def how_many(round_trip: float) -> int:
    """How many streams keep a connection busy whose round trip takes so many seconds, ours included.

    A server lets a channel have WINDOW bytes under way, so one carries at most WINDOW a round trip.
    Channels of one connection do as well as connections of their own (ADR 16 has the numbers).
    """
    return max(1, min(MOST, math.ceil(RATE * round_trip / WINDOW)))


def stream(
    connection: Connection,
    argv: Sequence[str],
    migration: str,
    *,
    separate: bool = False,
    timeout: float = HANDSHAKE,
) -> Wire:
    """One more stream to the agent that carries out `migration`; `argv` is that of the agent.

    Raises FarFailure (its `name` is NobodyToAttach where there is no such agent) or LinkLost.
    """
    return _attach(connection, argv, migration, STREAM, separate=separate, timeout=timeout)


class Resumed(Closing):
    """The link again: the connection and the wire on it; leaving the `with` block closes both."""

    def __init__(self, connection: Connection, wire: Wire) -> None:
        self.connection = connection
        self.wire = wire

    def close(self) -> None:
        """Give both up."""
        self.wire.close()
        self.connection.close()


def resume(
    connect: Callable[[], Connection],
    argv: Sequence[str],
    migration: str,
    patience: float = LINGER,
    *,
    tell: Callable[[str], None] = log.debug,
    pause: Callable[[float], object] = time.sleep,
) -> Resumed:
    """Come back to the agent after the link broke, however often that takes within `patience` seconds.

    What will not get better with time is raised at once: a refusal of the far side (FarFailure), a
    host key, a login. Otherwise the last reason is raised as LinkLost. `tell` hears of each attempt.
    """
    end = time.monotonic() + patience
    wait = _FIRST_PAUSE
    while True:
        try:
            return _come_again(connect, argv, migration)
        except (HostUnreachable, LinkLost, NotOurProtocol, OSError) as error:
            left = end - time.monotonic()
            if left <= 0:
                host = getattr(error, "fields", {}).get("host", "the other host")
                raise LinkLost(host=host, reason=f"{error}; gave up after {patience:g} s") from None
            tell(f"the link is not back yet: {error}")
        pause(min(wait, left))
        wait = min(wait * 2, _LONGEST_PAUSE)


def _come_again(connect: Callable[[], Connection], argv: Sequence[str], migration: str) -> Resumed:
    connection = connect()
    try:
        wire = _attach(connection, argv, migration, RESUME, separate=False, timeout=HANDSHAKE)
    except BaseException:
        connection.close()
        raise
    return Resumed(connection, wire)


def _attach(
    connection: Connection,
    argv: Sequence[str],
    migration: str,
    role: str,
    *,
    separate: bool,
    timeout: float,
) -> Wire:
    command = [*argv, OPTION, migration]
    wire = Wire(connection.open(command, separate=separate), program=argv[0])
    try:
        wire.greet(timeout)
        with suppress(LinkLost):  # it may have said why not and ended: reading will find out
            wire.send("attach", {"migration": migration, "role": role}, timeout=timeout)
        wire.expect("attached", timeout=timeout)
    except BaseException:
        wire.close()
        raise
    return wire
