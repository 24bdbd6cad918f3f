"""Containers near their own limits: CRIU works in their cgroup, and must neither end them nor be ended there."""

from pathlib import Path

import pytest

from ocimig.runtime.store import Store
from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu]


def limits(box: Box) -> dict[str, str]:
    """What the kernel holds it to."""
    found = {}
    for directory in _directories(box):
        for name in (
            "memory.limit_in_bytes",
            "memory.max",
            "pids.max",
            "cpu.max",
            "cpu.cfs_quota_us",
        ):
            if (directory / name).exists():
                found[name] = (directory / name).read_text().strip()
    return found


def _directories(box: Box) -> list[Path]:
    facts = Store(str(box.ocimig.root)).load(box.id).cgroups
    return [Path(value) for value in facts.values() if value.startswith("/")]


@pytest.mark.parametrize("lazy", [False, True], ids=["at once", "lazy"])
def test_a_container_at_its_memory_limit_comes_back(box: Box, lazy: bool) -> None:
    """24 of 25 MiB are its own: with CRIU's in the same cgroup the kernel would kill one of them."""
    box.bundle.linux["resources"] = {"memory": {"limit": 25 << 20}, "pids": {"limit": 2}}
    box.run("count", "24")
    before = limits(box)
    assert before
    box.checkpoint()
    box.restore(*(["--lazy-pages"] if lazy else []))
    box.goes_on()
    box.unbroken()
    assert limits(box) == before


def test_a_small_share_of_the_processor_is_not_crius(box: Box) -> None:
    """2 ms of 100: CRIU alone would take a second, in a migration with everybody waiting. It is not held
    to that, and the container, which sleeps, is again."""
    box.bundle.linux["resources"] = {"cpu": {"quota": 2000, "period": 100000}}
    box.run("serve", "7000")
    before = limits(box)
    box.checkpoint()
    box.restore()
    assert limits(box) == before
    assert _throttled(box) <= 1


def _throttled(box: Box) -> int:
    """In how many periods it had used up its share."""
    for directory in _directories(box):
        if (directory / "cpu.stat").exists():
            words = (directory / "cpu.stat").read_text().split()
            return int(words[words.index("nr_throttled") + 1])
    return -1
