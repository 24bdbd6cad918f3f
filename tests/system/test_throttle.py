"""A container that is slowed down uses less of the processor, by the kernel's own count."""

import time
from pathlib import Path

import pytest

from ocimig.migrate.throttle import Throttle, restore_left
from ocimig.runtime.store import Store
from ocimig_testkit import Bundle, Ocimig

pytestmark = [pytest.mark.root, pytest.mark.busybox]


def used(pid: int, seconds: float) -> float:
    """The share of one processor that a process uses in the next seconds."""

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before, began = ticks(), time.monotonic()
    time.sleep(seconds)
    return (ticks() - before) / 100 / (time.monotonic() - began)


def limits(cgroups: dict[str, str]) -> dict[str, str]:
    """Every file that says how much of the processor it gets."""
    place = Path(cgroups.get("cpu") or cgroups["unified"])
    return {path.name: path.read_text() for path in place.glob("cpu.*") if "stat" not in path.name}


def test_a_busy_container_is_slowed_down_and_let_go(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path
) -> None:
    """At 90 % taken away it uses a fifth of what it used, at most; afterwards every limit is what it was."""
    bundle.process["args"] = ["/bin/sh", "-c", "while :; do :; done"]
    id = ocimig.launch(bundle.write())
    state = Store(str(ocimig.root)).load(id)
    before = limits(state.cgroups)
    brake = Throttle(state.cgroups, str(tmp_path))
    free = used(state.pid, 0.5)
    brake.slow_down(0.9)
    slow = used(state.pid, 1.0)
    assert slow < free / 5, f"{slow:.2f} of a processor instead of {free:.2f}"
    assert restore_left(str(tmp_path))
    assert limits(state.cgroups) == before
    assert used(state.pid, 0.5) > slow * 2
