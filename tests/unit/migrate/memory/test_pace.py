"""When compressing pays, and how fast bytes may leave: decided from what was measured."""

import os
import random
import sys
from pathlib import Path

import pytest
import zstandard

from ocimig.migrate.memory.limit import Limit
from ocimig.migrate.memory.squeeze import Squeeze

WORDS = [bytes(random.Random(n).choices(b"abcdefghij", k=2 + n % 9)) for n in range(3000)]
TEXT = memoryview(b" ".join(random.Random(1).choices(WORDS, k=200_000))[: 1 << 20])
PROGRAM = memoryview(Path(sys.executable).read_bytes()[: 1 << 20])
NOISE = memoryview(os.urandom(1 << 20))
FAST = 1e-4  # seconds for a MiB: ten gigabytes a second, which no compressor gives
SLOW = 100.0  # so slow that no processor could be slower


def over(squeeze: Squeeze, seconds: float) -> None:
    """Let it see 16 MiB go at this speed."""
    for _ in range(16):
        squeeze.sent(1 << 20, seconds)


def test_a_slow_link_is_worth_a_compressor() -> None:
    """The result is one zstandard frame that says its size."""
    squeeze = Squeeze()
    over(squeeze, SLOW)
    small = squeeze.compress(PROGRAM)
    assert small is not None
    assert squeeze.level > 1
    assert zstandard.frame_content_size(small) == len(PROGRAM)
    assert zstandard.ZstdDecompressor().decompress(small) == PROGRAM


def test_a_fast_link_is_never_made_to_wait() -> None:
    """Not even for what shrinks well."""
    squeeze = Squeeze()
    over(squeeze, FAST)
    assert squeeze.compress(TEXT) is None
    assert squeeze.level == 0


def test_nothing_is_compressed_before_the_link_is_known() -> None:
    """Unless its speed is limited, and thus known."""
    assert Squeeze().compress(TEXT) is None
    assert Squeeze(rate=1 << 14).compress(TEXT) is not None


def test_what_does_not_shrink_goes_raw_and_is_seldom_tried_again() -> None:
    """A link is found slow; noise stays noise; text that comes later is found within some frames."""
    squeeze = Squeeze()
    over(squeeze, SLOW)
    assert all(squeeze.compress(NOISE) is None for _ in range(200))
    assert any(squeeze.compress(TEXT) is not None for _ in range(70))


def test_a_link_that_becomes_fast_is_noticed() -> None:
    """What was measured long ago is forgotten."""
    squeeze = Squeeze()
    over(squeeze, SLOW)
    assert squeeze.compress(TEXT) is not None
    for _ in range(60):
        over(squeeze, FAST)
    assert any(squeeze.compress(TEXT) is None for _ in range(20))


def test_the_modes_do_as_they_are_told() -> None:
    """Always, for what shrinks; never; and no others."""
    always, never = Squeeze("zstd"), Squeeze("none", rate=1000)
    over(always, FAST)
    assert always.compress(TEXT) is not None
    assert always.compress(NOISE) is None
    assert never.compress(TEXT) is None
    with pytest.raises(ValueError, match="auto, zstd, none"):
        Squeeze("gzip")


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


def test_a_limit_is_kept_on_average() -> None:
    """A hundred pieces of a tenth of the rate take ten seconds, give or take the burst."""
    clock = Clock()
    limit = Limit(1000, clock=lambda: clock.now, sleep=clock.sleep)
    for _ in range(101):
        limit.take(100)
    assert clock.now - 1000 == pytest.approx(10, abs=0.21)


def test_a_pause_is_not_followed_by_a_flood() -> None:
    """Ten idle seconds are worth a tenth of one."""
    clock = Clock()
    limit = Limit(1000, clock=lambda: clock.now, sleep=clock.sleep)
    limit.take(100)
    clock.sleep(10)
    before = clock.now
    for _ in range(11):
        limit.take(100)
    assert clock.now - before == pytest.approx(0.9, abs=0.11)


def test_no_limit_never_sleeps() -> None:
    """And one can be set and lifted on the way."""
    clock = Clock()
    limit = Limit(clock=lambda: clock.now, sleep=clock.sleep)
    limit.take(1 << 60)
    assert clock.now == 1000
    limit.rate = 10
    limit.take(10)
    limit.take(10)
    assert clock.now > 1000.5
    limit.rate = 0
    before = clock.now
    limit.take(1 << 60)
    assert clock.now == before
