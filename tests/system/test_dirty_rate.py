"""ocimig dirty-rate tells what a container really writes, and leaves it as it was."""

import time
from pathlib import Path

import pytest

from ocimig_testkit import Bundle, Ocimig

pytestmark = [pytest.mark.root, pytest.mark.busybox]


@pytest.mark.parametrize("tracker", ["auto", "content"])
def test_an_idle_container_writes_next_to_nothing(
    ocimig: Ocimig, bundle: Bundle, tracker: str
) -> None:
    """A shell that sleeps; it runs on undisturbed."""
    bundle.process["args"] = ["/bin/sh", "-c", "while :; do sleep 1000; done"]
    id = ocimig.launch(bundle.write())
    found = ocimig("dirty-rate", "--seconds", "1", "--tracker", tracker, "--json", id).json()
    assert found["id"] == id
    assert 0.9 < found["seconds"] < 3
    assert found["resident_bytes"] > 0
    assert found["dirty_bytes_per_second"] < 1 << 20
    assert ocimig.status(id) == "running"


def test_a_busy_container_is_told_from_an_idle_one(ocimig: Ocimig, bundle: Bundle) -> None:
    """A shell that counts writes to its stack and its heap all the time; afterwards it still counts."""
    bundle.process["args"] = ["/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i >/count; done"]
    id = ocimig.launch(bundle.write())
    answer = ocimig("dirty-rate", "--seconds", "1", id)
    assert answer.out.startswith(f"{id}: ")
    assert "a second (" in answer.out
    found = ocimig("dirty-rate", "--seconds", "1", "--json", id).json()
    assert found["distinct_dirty_bytes"] >= 4096
    assert found["peak_bytes_per_second"] >= found["dirty_bytes_per_second"] > 0
    count = Path(bundle.path) / "rootfs/count"
    before = count.stat().st_mtime_ns
    time.sleep(0.3)
    assert count.stat().st_mtime_ns != before


def test_what_does_not_run_has_no_rate(ocimig: Ocimig, bundle: Bundle) -> None:
    """A container that was only created: words, and a code of its own."""
    id = ocimig.new_id()
    ocimig("create", "--bundle", bundle.write().path, id)
    answer = ocimig("dirty-rate", id, code=1)
    assert "container not running" in answer.err
