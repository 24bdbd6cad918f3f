"""When to send memory once more, when to freeze: decided from what the rounds measured. Never acts.

The rules are those that QEMU and libvirt have for machines: freeze when what is left fits into the
allowed blackout, slow the container down in steps when it writes faster than pages travel, end at a
limit. A round sends what was dirty when it began; what is dirty when it ends has to go in the freeze,
if it comes now.
"""

import os
from dataclasses import dataclass, replace

PAGE = os.sysconf("SC_PAGE_SIZE")
ROUND, FREEZE, THROTTLE, POST_COPY, ABORT = "round", "freeze", "throttle", "post-copy", "abort"
STOP = "stop"
ON_TIMEOUT = (ABORT, STOP, THROTTLE)

FIRST_STEP, STEP, MOST = 0.2, 0.1, 0.99  # of the processor taken away: QEMU's cpu-throttle-*
_HOPELESS = 0.5  # dirty again, of what was sent: QEMU's throttle-trigger-threshold
_TWICE = 2  # rounds in a row have to be like that
_BETTER = 0.95  # of the best round so far: less than that is progress
_WORTH = 0.005  # seconds of blackout that are worth one more round
_NEAR = 0.05  # seconds of memory on top of what is fixed, where that alone is too long
_SAMPLE = 4 << 20  # bytes: what a smaller round measures is the round trip, not the bandwidth
_SLOW = 100_000_000 / 8  # bytes a second taken for granted where nothing has been measured


@dataclass(frozen=True, slots=True)
class RoundPolicy:
    """What the person allows. Times in seconds, bandwidth in bytes a second; 0 is no limit."""

    max_downtime: float = 0.3
    max_rounds: int = 30  # 0: no rounds, all memory goes in the freeze
    timeout: float = 0.0  # of all rounds together
    on_timeout: str = STOP  # at a limit: freeze all the same, slow it down first, or give up
    auto_converge: bool = False  # slow it down as soon as it writes too fast
    max_bandwidth: int = 0  # for whoever sends
    post_copy: bool = False  # at a limit: freeze, and let what is left follow afterwards
    max_stalled: int = 5  # rounds in a row without progress


@dataclass(frozen=True, slots=True)
class RoundStats:
    """One round: what it sent, and what the container wrote meanwhile."""

    number: int
    dirty_pages: int  # found dirty when it ended
    sent_bytes: int  # on the wire
    seconds: float  # from its look at memory to the next one
    pages: int = 0  # that were to go
    skipped_pages: int = 0  # of these: empty, or held there already
    throttle: float = 0.0  # share of the processor that was taken away


@dataclass(frozen=True, slots=True)
class Decision:
    """What comes next, why in words, and the figures behind it."""

    action: (
        str  # ROUND, THROTTLE (slow it down to `throttle`, then a round), FREEZE, POST_COPY, ABORT
    )
    reason: str
    predicted: float  # seconds of blackout, if it were frozen now
    throttle: float = 0.0  # share of the processor to take away from now on
    bandwidth: float = 0.0  # bytes of memory a second
    dirty_rate: float = 0.0  # bytes of memory a second
    limit: str = ""  # the limit that ended it, in words
    eta: float | None = None  # seconds until the freeze; None: at this speed never


def decide(
    policy: RoundPolicy,
    history: tuple[RoundStats, ...],
    fixed: float,
    elapsed: float,
    *,
    overlap: float = 0.0,
    bandwidth: float = 0.0,
) -> Decision:
    """What to do after these rounds.

    `fixed` is the predicted blackout without the last pages, `overlap` how many seconds of their
    travel hide behind the dump, `elapsed` the time since the first round began, `bandwidth` (bytes a
    second) what is known from elsewhere: it counts as long as no round has measured it, and for the
    freeze where max_bandwidth holds the rounds back.
    """
    if not history:
        if policy.max_rounds:
            return Decision(ROUND, "nothing has been sent yet", fixed)
        nothing = "no rounds are allowed"
        action = POST_COPY if policy.post_copy else FREEZE
        return Decision(action, nothing, fixed, limit=nothing, eta=0.0)
    decision = _decide(policy, history, fixed, elapsed, overlap, bandwidth)
    allowed = policy.max_downtime if fixed <= policy.max_downtime else fixed + _NEAR
    room = (allowed - fixed + overlap) * decision.bandwidth
    return replace(decision, eta=_eta(decision, history[-1].dirty_pages * PAGE, room))


def _decide(
    policy: RoundPolicy,
    history: tuple[RoundStats, ...],
    fixed: float,
    elapsed: float,
    overlap: float,
    bandwidth: float,
) -> Decision:
    last = history[-1]
    speed = measured_bandwidth(history) or bandwidth or _SLOW
    # max_bandwidth holds the rounds back, not what goes in the freeze
    delta = last.dirty_pages * PAGE / (max(speed, bandwidth) if policy.max_bandwidth else speed)
    now = Decision(
        ROUND, "", fixed + max(0.0, delta - overlap), last.throttle, speed, dirty_rate(history)
    )
    hard = _limit(policy, history, elapsed)
    gain = _gain(history, now, delta - overlap)
    if (
        fixed > policy.max_downtime
    ):  # it never fits; then as near to what is fixed as rounds bring it
        if now.predicted <= fixed + _NEAR and (hard or gain < _WORTH):
            return _never_fits(policy, now, fixed)
    elif now.predicted <= policy.max_downtime:
        return _fits(policy, now, 0.0 if hard else gain)
    if hard:
        return _at_limit(policy, now, hard)
    if soft := _no_progress(policy, history):
        if policy.auto_converge and last.throttle < MOST:
            return _slower(now, soft)
        return _at_limit(policy, now, soft)
    if policy.auto_converge and _hopeless(history) and last.throttle < MOST:
        return _slower(now, _writes_too_fast(now))
    return replace(now, reason=_too_long(policy, now))


def measured_bandwidth(history: tuple[RoundStats, ...]) -> float:
    """Bytes of memory a second, by the last rounds that were large enough to tell; 0 when unknown.

    Pages that did not have to travel are left out: those of the freeze will have to.
    """
    travelled = [(each.pages - each.skipped_pages) * PAGE for each in history]
    known = [
        (size, each.seconds) for size, each in zip(travelled, history, strict=True) if size > 0
    ]
    if not known:
        return 0.0
    telling = [each for each in known if each[0] >= _SAMPLE][-3:] or [max(known)]
    return sum(size for size, _ in telling) / max(sum(took for _, took in telling), 1e-6)


def dirty_rate(history: tuple[RoundStats, ...]) -> float:
    """Bytes of memory that the container writes in a second, by its last round."""
    if not history:
        return 0.0
    return history[-1].dirty_pages * PAGE / max(history[-1].seconds, 1e-6)


def next_throttle(throttle: float) -> float:
    """The next step: 0.2, 0.3 … 0.9, 0.99."""
    if throttle <= 0:
        return FIRST_STEP
    return min(MOST, round(throttle + STEP, 2))


# ---- the rules


def _gain(history: tuple[RoundStats, ...], now: Decision, delta: float) -> float:
    """Seconds of blackout that one more round is likely to save."""
    if now.throttle or (len(history) > 1 and not _fewer(history[-1], history[-2].dirty_pages)):
        return 0.0  # nobody is slowed down longer than it takes
    return max(0.0, delta * (1 - now.dirty_rate / now.bandwidth))


def _fits(policy: RoundPolicy, now: Decision, gain: float) -> Decision:
    """It may be frozen now. One more round, where that is likely to shorten the blackout."""
    fits = f"predicted blackout {_ms(now.predicted)}, allowed {_ms(policy.max_downtime)}"
    if gain < _WORTH:
        return replace(now, action=FREEZE, reason=fits)
    return replace(now, reason=f"{fits}: another round is likely to save {_ms(gain)}")


def _eta(now: Decision, left: float, room: float) -> float | None:
    """Seconds until what is left, in bytes, fits into the room there is, as things go now."""
    if now.action in (FREEZE, POST_COPY, ABORT):
        return 0.0
    share = now.dirty_rate / now.bandwidth
    if share >= _BETTER or room <= 0:
        return None
    seconds = left / now.bandwidth
    while (left := left * share) > room:
        seconds += left / now.bandwidth
    return seconds


def _never_fits(policy: RoundPolicy, now: Decision, fixed: float) -> Decision:
    """What is not memory takes too long by itself: no round and no slowing down helps."""
    limit = f"{_ms(fixed)} are not for memory, only {_ms(policy.max_downtime)} are allowed"
    action = ABORT if policy.on_timeout == ABORT else FREEZE
    reason = f"{limit}; predicted blackout {_ms(now.predicted)}"
    return replace(now, action=action, reason=reason, limit=limit, throttle=0.0)


def _limit(policy: RoundPolicy, history: tuple[RoundStats, ...], elapsed: float) -> str:
    """The limit that has been reached, in words."""
    if len(history) >= policy.max_rounds:
        return f"{len(history)} rounds have been made, {policy.max_rounds} are allowed"
    if policy.timeout and elapsed >= policy.timeout:
        return f"{elapsed:.1f} s have gone, {policy.timeout:g} s are allowed"
    return ""


def _no_progress(policy: RoundPolicy, history: tuple[RoundStats, ...]) -> str:
    """Why more rounds of this kind are no use, in words."""
    if policy.max_stalled and (count := _stalled(history)) >= policy.max_stalled:
        return f"{count} rounds in a row left no fewer dirty pages"
    if history[-1].throttle >= MOST and _hopeless(history):
        return f"it has {1 - MOST:.0%} of the processor left and still writes too fast"
    return ""


def _at_limit(policy: RoundPolicy, now: Decision, limit: str) -> Decision:
    reason = f"{limit}; predicted blackout {_ms(now.predicted)}"
    if policy.post_copy:
        reason = f"{limit}: the rest of its memory follows when it runs there"
        return replace(now, action=POST_COPY, reason=reason, limit=limit)
    if policy.on_timeout == ABORT:
        return replace(now, action=ABORT, reason=reason, throttle=0.0, limit=limit)
    if policy.on_timeout == THROTTLE and now.throttle < MOST:
        return _slower(now, reason)
    return replace(now, action=FREEZE, reason=reason, limit=limit)


def _slower(now: Decision, why: str) -> Decision:
    share = next_throttle(now.throttle)
    reason = f"{why}: {1 - share:.0%} of the processor from now on"
    return replace(now, action=THROTTLE, reason=reason, throttle=share)


def _since_step(history: tuple[RoundStats, ...]) -> tuple[RoundStats, ...]:
    """The rounds since it was last slowed down: those before do not tell what is."""
    first = len(history)
    while first and history[first - 1].throttle == history[-1].throttle:
        first -= 1
    return history[first:]


def _hopeless(history: tuple[RoundStats, ...]) -> bool:
    """Whether the last rounds left more than half of what they sent."""
    recent = _since_step(history)[-_TWICE:]
    return len(recent) == _TWICE and all(
        each.dirty_pages > each.pages * _HOPELESS for each in recent
    )


def _stalled(history: tuple[RoundStats, ...]) -> int:
    """How many rounds have passed since the last that left clearly fewer pages than all before."""
    best, since = -1, 0
    for each in _since_step(history):
        if best < 0 or _fewer(each, best):
            best, since = each.dirty_pages, 0
        else:
            since += 1
    return since


def _fewer(now: RoundStats, before: int) -> bool:
    return now.dirty_pages < before * _BETTER


def _too_long(policy: RoundPolicy, now: Decision) -> str:
    return f"predicted blackout {_ms(now.predicted)}, only {_ms(policy.max_downtime)} are allowed"


def _writes_too_fast(now: Decision) -> str:
    return f"it writes {_mib(now.dirty_rate)} a second, {_mib(now.bandwidth)} travel"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


def _mib(count: float) -> str:
    return f"{count / (1 << 20):,.1f} MiB"
