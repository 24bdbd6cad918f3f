"""Markers that try what they need, fixtures that everybody uses, and the sweep at the end."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ocimig_testkit import Bundle, HostPair, Ocimig, make_bundle
from ocimig_testkit.leaks import sweep
from ocimig_testkit.probes import MARKERS, refusal, required

# How fast a machine is proves nothing: a busy one shall fail no test.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    """A misspelt OCIMIG_REQUIRE must not require nothing."""
    unknown = set(required()) - set(MARKERS)
    if unknown:
        raise pytest.UsageError(f"OCIMIG_REQUIRE: unknown {', '.join(sorted(unknown))}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here and say why; fail it where OCIMIG_REQUIRE wants it run."""
    for marker in item.iter_markers():
        if marker.name not in MARKERS:
            continue
        reason = refusal(marker.name)
        if reason and marker.name in required():
            pytest.fail(f"{marker.name} is required here: {reason}", pytrace=False)
        if reason:
            pytest.skip(f"{marker.name}: {reason}")


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The session fails when a mount, cgroup, namespace, interface, process or state is left."""
    base = tmp_path_factory.getbasetemp()
    yield
    left = sweep(base)
    if left:
        pytest.fail("left behind by this session:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture
def ocimig(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ocimig]:
    """The program with a state root of its own; its containers are removed afterwards."""
    runner = Ocimig(tmp_path / "state", name=f"{_number()}-")
    yield runner
    failed = runner.close()
    assert not failed, "\n".join(failed)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle of a tiny root file system that waits for ever."""
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def new_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """More bundles: call it with the argv to run."""
    counter = itertools.count(1)
    return lambda *argv: make_bundle(tmp_path / f"bundle{next(counter)}", *argv)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[HostPair]:
    """Two hosts joined by a network, an sshd in each (markers: root, netns, ssh)."""
    with HostPair(tmp_path / "hosts") as pair:
        yield pair


_counter = itertools.count(1)


def _number() -> int:
    return next(_counter)
