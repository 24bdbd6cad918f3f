"""The source comes back to an agent, or does not: patience, and what no patience mends."""

import time

import pytest

from ocimig.migrate import attach_source
from ocimig.migrate.errors import HostUnreachable, LinkLost, NotLetIn
from ocimig.migrate.transport import Connection

ARGV = ("ocimig", "agent")
MIGRATION = "20260101T000000Z-0123456789ab"


def test_patience_has_an_end() -> None:
    """The last reason is the one that is shown."""

    def connecting() -> Connection:
        raise HostUnreachable(host="there", port=22, reason="no route to host")

    before = time.monotonic()
    with pytest.raises(LinkLost, match="no route to host.*gave up after 0.5 s"):
        attach_source.resume(connecting, ARGV, MIGRATION, 0.5)
    assert 0.4 < time.monotonic() - before < 5


def test_what_time_does_not_mend_is_not_tried_again() -> None:
    """A refused key stays refused."""
    attempts = []

    def connecting() -> Connection:
        attempts.append(1)
        raise NotLetIn(user="u", host="there", port=22, reason="no key")

    with pytest.raises(NotLetIn):
        attach_source.resume(connecting, ARGV, MIGRATION, 60)
    assert len(attempts) == 1


def test_streams_follow_the_round_trip() -> None:
    """One where the other host is near; more where a channel's window is the limit; never too many."""
    found = [
        attach_source.how_many(milliseconds / 1000) for milliseconds in (0, 0.2, 5, 8, 20, 300)
    ]
    assert found == [1, 1, 1, 2, 4, 4]
    assert 3 * attach_source.WINDOW / 0.015 >= attach_source.RATE  # what 15 ms ask for is enough
    assert attach_source.how_many(0.015) == 3
