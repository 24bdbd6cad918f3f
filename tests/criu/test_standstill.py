"""A program that starts others all the time: CRIU must not wait for what it has stopped itself."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu]

TIMES = 4  # met in vfork each second time


def test_a_container_that_starts_programs_is_stopped_again_and_again(box: Box) -> None:
    """Each checkpoint succeeds before CRIU's own patience of 180 s ends, and the container goes on."""
    source = Path(__file__).with_name("spawner.c")
    target = box.bundle.rootfs / "bin/worker"
    subprocess.run(["cc", "-static", "-O1", "-o", target, source], check=True)
    box.ocimig.globals = ("--debug",)
    box.run()
    again = 0
    for _ in range(TIMES):
        again += box.checkpoint("--leave-running", timeout=170).count("waits in vfork(2)")
        shutil.rmtree(box.image)
        box.goes_on()
    assert again
    box.checkpoint()
    box.restore()
    box.goes_on()
