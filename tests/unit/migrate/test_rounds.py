"""When a round follows, when the container is frozen, slowed down or left alone."""

from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from ocimig.migrate import rounds
from ocimig.migrate.rounds import (
    ABORT,
    FREEZE,
    MOST,
    PAGE,
    POST_COPY,
    ROUND,
    THROTTLE,
    Decision,
    RoundPolicy,
    RoundStats,
    decide,
)

POLICIES = st.builds(
    RoundPolicy,
    max_downtime=st.floats(0.0, 2.0),
    max_rounds=st.integers(0, 40),
    timeout=st.sampled_from([0.0, 0.5, 10.0]),
    on_timeout=st.sampled_from(rounds.ON_TIMEOUT),
    auto_converge=st.booleans(),
    post_copy=st.booleans(),
    max_stalled=st.integers(0, 8),
)
ROUNDS = st.tuples(st.integers(0, 1 << 22), st.floats(0.0, 30.0), st.floats(0.0, 1.0))


def walk(
    policy: RoundPolicy, each: list[tuple[int, float, float]], fixed: float
) -> tuple[list[Decision], list[RoundStats]]:
    """The decisions up to the last, with rounds that leave what `each` says, over and over."""
    history: list[RoundStats] = []
    decisions: list[Decision] = []
    elapsed, throttle, pages = 0.0, 0.0, 1 << 18
    for number in count(1):
        decisions.append(decide(policy, tuple(history), fixed, elapsed))
        if decisions[-1].action not in (ROUND, THROTTLE):
            return decisions, history
        throttle = decisions[-1].throttle
        dirty, seconds, skipped = each[number % len(each)]
        stats = RoundStats(
            number, dirty, pages * PAGE, seconds, pages, int(pages * skipped), throttle
        )
        history.append(stats)
        elapsed, pages = elapsed + seconds, dirty
        assert number < 100, "it does not end"
    raise AssertionError


@settings(max_examples=50, deadline=None)
@given(POLICIES, st.lists(ROUNDS, min_size=1, max_size=12), st.floats(0.0, 1.0))
def test_it_always_ends(
    policy: RoundPolicy, each: list[tuple[int, float, float]], fixed: float
) -> None:
    """Whatever the rounds measure: after the allowed ones, and the steps of slowing down, it is over."""
    decisions, _ = walk(policy, each, fixed)
    assert len(decisions) <= policy.max_rounds + 12


@settings(max_examples=50, deadline=None)
@given(POLICIES, st.lists(ROUNDS, min_size=1, max_size=12), st.floats(0.0, 1.0))
def test_it_freezes_for_longer_than_allowed_only_at_a_limit(
    policy: RoundPolicy, each: list[tuple[int, float, float]], fixed: float
) -> None:
    """A prediction above the allowed blackout freezes nothing, unless the decision names the limit."""
    last = walk(policy, each, fixed)[0][-1]
    if last.action == FREEZE and not last.limit:
        assert last.predicted <= policy.max_downtime
    if last.limit and policy.on_timeout == ABORT and policy.max_rounds and not policy.post_copy:
        assert last.action == ABORT


@settings(max_examples=50, deadline=None)
@given(POLICIES, st.lists(ROUNDS, min_size=1, max_size=12), st.floats(0.0, 1.0))
def test_it_is_slowed_down_before_it_is_given_up(
    policy: RoundPolicy, each: list[tuple[int, float, float]], fixed: float
) -> None:
    """Who asked for slowing down gets a freeze above the limit only after the last step of it."""
    last = walk(policy, each, fixed)[0][-1]
    helps = fixed <= policy.max_downtime
    if policy.on_timeout == THROTTLE and last.action == FREEZE and last.limit and helps:
        assert last.throttle == MOST or not policy.max_rounds


@settings(max_examples=50, deadline=None)
@given(POLICIES, st.lists(ROUNDS, min_size=1, max_size=12), st.floats(0.0, 1.0))
def test_every_decision_says_why(
    policy: RoundPolicy, each: list[tuple[int, float, float]], fixed: float
) -> None:
    """Each decision has words, finite figures, and slows down only where that was asked for."""
    asked = policy.auto_converge or policy.on_timeout == THROTTLE
    throttle = 0.0
    for decision in walk(policy, each, fixed)[0]:
        assert decision.reason
        assert 0 <= decision.predicted < 1e9
        assert decision.bandwidth >= 0
        if decision.action == THROTTLE:
            assert asked
            assert throttle < decision.throttle <= MOST
        throttle = decision.throttle


def converging(rate: float, bandwidth: float, policy: RoundPolicy) -> tuple[str, int, Decision]:
    """A container of 1 GiB that writes so many bytes a second over a link of so many."""
    history: list[RoundStats] = []
    pages, elapsed = (1 << 30) // PAGE, 0.0
    decision = decide(policy, (), 0.06, 0.0)
    while decision.action in (ROUND, THROTTLE):
        seconds = pages * PAGE / bandwidth + 0.002
        dirty = min((1 << 30) // PAGE, int(rate * (1 - decision.throttle) * seconds / PAGE))
        stats = RoundStats(
            len(history) + 1, dirty, pages * PAGE, seconds, pages, 0, decision.throttle
        )
        history.append(stats)
        elapsed, pages = elapsed + seconds, dirty
        decision = decide(policy, tuple(history), 0.06, elapsed)
    return decision.action, len(history), decision


def test_a_quiet_container_is_frozen_as_soon_as_rounds_save_nothing() -> None:
    """4 MiB a second over 200 MiB a second: after two rounds only what is fixed is left."""
    action, made, decision = converging(4 << 20, 200 << 20, RoundPolicy())
    assert (action, made) == (FREEZE, 2)
    assert decision.predicted < 0.07
    assert "allowed 300 ms" in decision.reason


def test_a_container_that_writes_faster_than_pages_travel_is_frozen_at_a_limit() -> None:
    """Without progress no rounds are wasted: it ends when five of them brought nothing."""
    action, made, decision = converging(400 << 20, 200 << 20, RoundPolicy())
    assert (action, made) == (FREEZE, 6)
    assert "no fewer dirty pages" in decision.limit
    assert decision.predicted > 0.3


def test_auto_converge_slows_it_down_until_it_fits() -> None:
    """The same container, slowed down in steps, fits without reaching a limit."""
    action, _, decision = converging(400 << 20, 200 << 20, RoundPolicy(auto_converge=True))
    assert action == FREEZE
    assert not decision.limit
    assert decision.predicted <= 0.3
    assert 0.5 < decision.throttle <= MOST


def test_post_copy_takes_over_at_a_limit() -> None:
    """With post-copy the limit does not lengthen the blackout."""
    policy = RoundPolicy(post_copy=True, max_rounds=3)
    action, made, decision = converging(400 << 20, 200 << 20, policy)
    assert (action, made) == (POST_COPY, 3)
    assert "3 are allowed" in decision.limit


def test_what_is_fixed_is_not_cured_by_slowing_down() -> None:
    """A container whose files and processes alone take longer than allowed is never slowed down."""
    stats = RoundStats(1, 1, 1 << 20, 1.0, 1000)
    policy = RoundPolicy(max_downtime=0.1, auto_converge=True, on_timeout=THROTTLE)
    decision = decide(policy, (stats,), 0.5, 1.0)
    assert decision.action == FREEZE
    assert "500 ms are not for memory" in decision.reason


def test_a_container_that_never_fits_is_still_not_frozen_with_all_it_wrote() -> None:
    """Too many processes for the allowed blackout, and writing fast: memory must not come on top of that."""
    history: tuple[RoundStats, ...] = ()
    pages, elapsed = (1 << 30) // PAGE, 0.0
    policy = RoundPolicy(max_downtime=0.1, auto_converge=True)
    decision = decide(policy, (), 0.4, 0.0)
    while decision.action in (ROUND, THROTTLE):
        seconds = pages * PAGE / (200 << 20)
        dirty = int((300 << 20) * (1 - decision.throttle) * seconds / PAGE)
        done = RoundStats(
            len(history) + 1, dirty, pages * PAGE, seconds, pages, 0, decision.throttle
        )
        history, elapsed, pages = (*history, done), elapsed + seconds, dirty
        decision = decide(policy, history, 0.4, elapsed)
    assert decision.action == FREEZE
    assert decision.predicted <= 0.45
    assert "400 ms are not for memory" in decision.limit


def test_the_steps_are_those_of_qemu() -> None:
    """20 % first, then 10 % more each time, 99 % at most."""
    steps, share = [], 0.0
    while share < MOST:
        share = rounds.next_throttle(share)
        steps.append(share)
    assert steps == [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99]


def test_pages_that_did_not_travel_tell_nothing_of_the_bandwidth() -> None:
    """A first round of empty pages is fast; what is dirty later has to travel."""
    stats = RoundStats(1, 5000, 1 << 20, 1.0, pages=262_144, skipped_pages=260_096)
    assert rounds.measured_bandwidth((stats,)) == 2048 * PAGE


def test_the_overlap_with_the_dump_is_no_blackout() -> None:
    """Pages travel while CRIU dumps: only what takes longer than that counts."""
    stats = RoundStats(1, 2560, 1 << 20, 1.0, pages=25_600)
    alone = decide(RoundPolicy(), (stats,), 0.05, 1.0)
    hidden = decide(RoundPolicy(), (stats,), 0.05, 1.0, overlap=0.02)
    assert abs(alone.predicted - 0.15) < 1e-9
    assert abs(hidden.predicted - 0.13) < 1e-9


def test_the_end_is_foreseen_where_there_is_one() -> None:
    """1 GiB at half the speed of the link: the rounds to come halve; at the same speed there is no end."""
    half = RoundStats(1, 131_072, 1 << 30, 5.0, pages=262_144)
    decision = decide(RoundPolicy(max_downtime=0.3), (half,), 0.1, 5.0)
    assert decision.eta is not None
    assert (
        abs(decision.eta - 4.6875) < 1e-6
    )  # 2.5, 1.25 … 0.3125 seconds; then less than 0.2 is left
    same = RoundStats(1, 262_144, 1 << 30, 5.0, pages=262_144)
    assert decide(RoundPolicy(), (same,), 0.1, 5.0).eta is None
