"""What a migration would be: rounds, bytes, time and blackout, from how fast the container writes. Pure.

It asks `rounds.decide` what would come next, with rounds that are calculated instead of made: a dry run
cannot disagree with the real one about the rules.
"""

import math
from dataclasses import dataclass
from typing import Any

from ocimig.migrate.rounds import PAGE, ROUND, THROTTLE, RoundPolicy, RoundStats, decide

_OVERHEAD = 0.002  # seconds that a round takes besides its bytes: a look and a confirmation


@dataclass(frozen=True, slots=True)
class Writes:
    """How a container writes: pages a second at first, and how many different ones at most.

    A page that is written again and again has to go once a round: `after` falls behind `rate` the longer
    the round lasts, as 1 - e^-x does when writes meet the pages of a set by chance.
    """

    rate: float  # pages a second
    most: float  # pages; 0: without a bound

    def after(self, seconds: float) -> int:
        """How many different pages are written in that time."""
        total = self.rate * seconds
        if self.most <= 0 or total <= 0:
            return round(total)
        return round(self.most * -math.expm1(-total / self.most))


def writes_of(every: float, each: float, long: float, union: float) -> Writes:
    """From `each` different pages in `every` seconds, and `union` of them in `long` seconds."""
    rate = each / every if every > 0 else 0.0
    if each <= 0 or long <= every or union >= each * long / every * 0.99:
        return Writes(rate, 0.0)
    low, high = union, union * 1000.0  # the fewer pages there are, the sooner all have been met
    for _ in range(60):
        middle = (low + high) / 2
        # what was counted in `every` had repetitions in it already
        share = min(each / middle, 1 - 1e-9)
        fresh = -math.log1p(-share) * middle / every
        if Writes(fresh, middle).after(long) > union:
            high = middle
        else:
            low = middle
    share = min(each / high, 1 - 1e-9)
    return Writes(-math.log1p(-share) * high / every, high)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What would happen, and why it would end."""

    rounds: int
    sent_bytes: int
    seconds: float  # until the freeze
    blackout: float
    action: str
    reason: str
    throttle: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "rounds": self.rounds,
            "bytes": self.sent_bytes,
            "seconds": round(self.seconds, 3),
            "blackout_seconds": round(self.blackout, 6),
            "action": self.action,
            "reason": self.reason,
            "throttle": self.throttle,
        }


def forecast(
    policy: RoundPolicy,
    pages: int,
    writes: Writes,
    bandwidth: float,
    fixed: float,
    *,
    overlap: float = 0.0,
) -> Forecast:
    """Go through the rounds of a container with so many pages over a link of so many bytes a second."""
    if policy.max_bandwidth:
        bandwidth = (
            min(bandwidth, float(policy.max_bandwidth)) if bandwidth else policy.max_bandwidth
        )
    history: tuple[RoundStats, ...] = ()
    sent, elapsed, todo = 0, 0.0, pages
    while True:
        decision = decide(policy, history, fixed, elapsed, overlap=overlap, bandwidth=bandwidth)
        if decision.action not in (ROUND, THROTTLE):
            break
        seconds = todo * PAGE / (bandwidth or decision.bandwidth or 1.0) + _OVERHEAD
        slowed = Writes(writes.rate * (1 - decision.throttle), writes.most)
        dirty = min(pages, slowed.after(seconds))
        history = (
            *history,
            RoundStats(
                len(history) + 1, dirty, todo * PAGE, seconds, todo, throttle=decision.throttle
            ),
        )
        sent, elapsed, todo = sent + todo * PAGE, elapsed + seconds, dirty
    blackout = decision.predicted
    if not history:
        blackout = fixed + max(0.0, pages * PAGE / (bandwidth or 1.0) - overlap)
    return Forecast(
        len(history), sent + todo * PAGE, elapsed, blackout, decision.action, decision.reason,
        decision.throttle,
    )  # fmt: skip
