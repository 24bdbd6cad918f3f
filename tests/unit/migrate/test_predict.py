"""The predicted blackout: from the model alone, and from what was learnt."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocimig import jsonio
from ocimig.migrate import predict
from ocimig.migrate.predict import Predictor, Shape, Situation
from ocimig.migrate.report import DELTA, PARTS
from ocimig.runtime.store import Store

SMALL = Shape(1, 1, 30, 6, 1)
LARGE = Shape(12, 60, 900, 200, 40, 4 << 30)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A state root where a migration has been."""
    (tmp_path / ".migrations").mkdir()
    return Store(str(tmp_path))


def truth(shape: Shape, rng: random.Random) -> dict[str, float]:
    """What a host takes that is slower than the model, at each part in its own way, give or take."""
    factors = dict(zip(PARTS, (1.5, 0.6, 1.0, 2.0, 3.0, 1.8, 0.5), strict=True))
    return {
        part: took * factors[part] * rng.uniform(0.85, 1.15)
        for part, took in predict.model(Situation(shape, round_trip=0.001)).items()
    }


@pytest.mark.parametrize("seed", range(8))
def test_after_a_few_migrations_the_prediction_is_within_a_quarter(store: Store, seed: int) -> None:
    """Two shapes of containers in turn; from the third migration of each on it has to fit."""
    rng = random.Random(seed)
    for number in range(12):
        shape = (SMALL, LARGE)[number % 2]
        predictor = Predictor.open(store, "host2")
        predictor.shape, predictor.round_trip = shape, 0.001
        foreseen = predictor.fixed()
        actual = truth(shape, rng)
        if number >= 6:
            assert foreseen == pytest.approx(sum(actual.values()), rel=0.25)
        predictor.learn(actual)


def test_a_busy_machine_teaches_what_it_would_have_been(store: Store) -> None:
    """What took four times as long on a machine four times slower is foreseen as before on an idle one."""
    predictor = Predictor.open(store, "host2")
    base = predict.model(Situation(SMALL))
    for _ in range(4):
        predictor.shape, predictor.strain = SMALL, 4.0
        predictor.learn({part: took * 4 for part, took in base.items()})
    predictor.strain = 1.0
    assert predictor.fixed() == pytest.approx(sum(base.values()))
    predictor.strain = 2.0
    assert predictor.fixed() == pytest.approx(2 * sum(base.values()))


def test_the_other_host_is_busy_for_itself(store: Store) -> None:
    """A busy destination slows down the restore, and not the dump."""
    predictor = Predictor.open(store, "host2")
    predictor.shape, predictor.strain = SMALL, 1.0
    idle = predictor.predict(0, 1e9).parts
    predictor.far_strain = 3.0
    busy = predictor.predict(0, 1e9).parts
    assert busy["restore"] == pytest.approx(3 * idle["restore"])
    assert busy["dump"] == pytest.approx(idle["dump"])


def test_the_strain_is_measured() -> None:
    """Never faster than alone."""
    assert 1.0 <= predict.strain() < 100


def test_one_strange_migration_does_not_spoil_the_next(store: Store) -> None:
    """A host that was busy once: the median does not follow it."""
    rng = random.Random(1)
    predictor = Predictor.open(store, "host2")
    predictor.shape, predictor.round_trip = SMALL, 0.001
    for _ in range(5):
        predictor.learn(truth(SMALL, rng))
    before = predictor.fixed()
    predictor.learn({part: took * 20 for part, took in truth(SMALL, rng).items()})
    assert predictor.fixed() == pytest.approx(before, rel=0.15)


def test_the_same_host_counts_more_than_others(store: Store) -> None:
    """A slow host among fast ones is foreseen as slow."""
    predictor = Predictor.open(store, "fast")
    predictor.shape = SMALL
    base = predict.model(Situation(SMALL))
    for _ in range(4):
        predictor.target = "fast"
        predictor.learn(base)
        predictor.target = "slow"
        predictor.learn({part: took * 3 for part, took in base.items()})
    assert predictor.fixed() == pytest.approx(3 * sum(base.values()), rel=0.01)
    predictor.target = "fast"
    assert predictor.fixed() == pytest.approx(sum(base.values()), rel=0.01)


def test_memory_costs_its_bytes_over_the_bandwidth(store: Store) -> None:
    """The parts add up, and only the last pages depend on them."""
    predictor = Predictor.open(store, "host2")
    nothing, some = predictor.predict(0, 1e9), predictor.predict(50e6, 1e9)
    assert some.total - nothing.total == pytest.approx(0.05)
    assert some.parts[DELTA] == pytest.approx(nothing.parts[DELTA] + 0.05)
    assert some.total == pytest.approx(sum(some.parts.values()))
    assert list(some.parts) == list(PARTS)
    assert predictor.predict(50e6, 1e9, dirty_rate=400e6).total > some.total


def test_what_is_left_is_stretched_like_everything(store: Store) -> None:
    """The last pages always took twice as long as their bytes say: so they will."""
    predictor = Predictor.open(store, "host2")
    for _ in range(4):
        foreseen = predictor.predict(50e6, 1e9).parts
        predictor.learn(foreseen | {DELTA: 0.104})
    assert predictor.predict(50e6, 1e9).parts[DELTA] == pytest.approx(0.104)


def test_the_bandwidth_is_that_of_the_last_times(store: Store) -> None:
    """To this host only; a new one is unknown."""
    predictor = Predictor.open(store, "host2")
    for bandwidth in (1e6, 100e6, 0.0, 120e6, 110e6):
        predictor.learn({}, bandwidth=bandwidth)
    assert Predictor.open(store, "host2").bandwidth == 110e6
    assert Predictor.open(store, "host3").bandwidth == 0


def test_it_keeps_what_the_latest_took(store: Store) -> None:
    """The file does not grow for ever, and migrations do not take it for a journal."""
    from ocimig.migrate import journal

    predictor = Predictor.open(store, "host2")
    for _ in range(predict.KEPT + 5):
        predictor.learn({"dump": 0.01})
    assert len(Predictor.open(store, "host2").samples) == predict.KEPT
    assert journal.every(store) == []
    assert os.stat(predictor.path).st_mode & 0o777 == 0o600


def test_a_host_that_cannot_write_it_down_goes_on(tmp_path: Path) -> None:
    """No directory: nothing is learnt, nothing fails."""
    Predictor(str(tmp_path / "nowhere/file"), "host2").learn({"dump": 0.01})


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["version", "migrations", "target", "shape", "parts", "dump"]), inner),
    max_leaves=12,
)))  # fmt: skip
def test_a_broken_file_was_never_learnt(
    tmp_path_factory: pytest.TempPathFactory, content: object
) -> None:
    """Whatever stands in it: predictions go on without it."""
    path = tmp_path_factory.getbasetemp() / "calibration"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        if isinstance(content, dict):
            content["version"] = 1
        path.write_text(jsonio.dumps(content))
    predictor = Predictor(str(path), "host2", predict.read(str(path)))
    assert predictor.fixed() > 0


def test_a_process_is_counted_as_the_kernel_does() -> None:
    """Ourselves: one process, as many mappings and descriptors as /proc shows."""
    shape = predict.look([os.getpid()])
    assert shape.processes == 1
    assert shape.threads >= 1
    assert shape.mappings > 20
    assert shape.descriptors >= 3
    assert 1 << 20 < shape.memory < 1 << 34
    assert predict.look([2**22 + 1]) == Shape(1, 1, 0, 0, 0)
