"""Memory that follows a container while it runs: every page arrives, whatever the link and the tracker do.

The container and its client are those of the benchmark: each byte of the connection and each page of
the memory is checked.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.migrate.trackers import softdirty, userfault
from ocimig_testkit import HostPair
from ocimig_testkit.moving import Moving, agents

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.netns, pytest.mark.ssh]


@pytest.fixture
def moving(hosts: HostPair, tmp_path: Path) -> Iterator[Moving]:
    """Not started yet."""
    made = Moving(hosts, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("tracker", ["userfault", "softdirty", "content", "none"])
def test_every_page_arrives_with_each_tracker(moving: Moving, tracker: str) -> None:
    """There and back under load; what is not followed goes in the freeze."""
    probes = {"userfault": userfault.refusal, "softdirty": softdirty.refusal}
    if tracker in probes and (reason := probes[tracker]()):
        pytest.skip(f"memory cannot be followed by {tracker}: {reason}")
    moving.start("--tracker", tracker)
    for _ in range(2):
        report = moving.move()
        assert bool(report["rounds"]) == (tracker != "none")
        if tracker != "none":
            assert report["rounds"][0]["pages"] >= 48 << 8
            assert report["bytes"]["images"] < 4 << 20


def test_pages_travel_over_several_streams(moving: Moving) -> None:
    """Three connections share a round; every page is as it must be."""
    moving.start("--streams", "3")
    report = moving.move()
    assert report["bytes"]["memory while it runs"] > 48 << 20


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
@pytest.mark.parametrize("step", ["files while it runs", "get ready there", "memory, round 1"])
def test_a_link_that_breaks_while_it_runs_comes_again(
    moving: Moving, transport: str, step: str
) -> None:
    """The far side's sshd is killed in a step: the migration goes on where it was."""
    options = ["--max-bandwidth", "20", "--transport", transport]
    moving.start(*options, dirty=100, files=300)
    there = moving.stand.there
    argv = moving.stand.here.ocimig.command(*moving.command())
    argv[argv.index("none")] = "json"
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as moved:
        assert moved.stderr is not None
        for line in moved.stderr:
            if json.loads(line)["text"] == step:
                break
        # the first round takes more than two seconds at that rate
        time.sleep(1.0 if step.startswith("memory") else 0.02)
        for pid in agents(there):
            os.kill(pid, signal.SIGKILL)
        out, err = moved.communicate(timeout=120)
    assert moved.returncode == 0, out + err
    report = json.loads(out)
    assert any(each["name"] == "connect again" for each in report["steps"])
    # less than two rounds' worth: what had arrived did not go again
    assert report["bytes"]["memory while it runs"] < 90 << 20
    moving.stand.here = there
    moving.whole()


def test_what_never_fits_is_given_up(moving: Moving) -> None:
    """--on-timeout abort: it writes faster than 1 MB/s travel, so it stays, at full speed."""
    moving.start(
        "--max-bandwidth", "1", "--on-timeout", "abort", "--max-rounds", "2", "--max-downtime", "50",
        resident=4, dirty=20000,
    )  # fmt: skip
    answer = moving.stand.here.ocimig(*moving.command(), code=20, timeout=120)
    assert "never fits" in answer.out + answer.err
    moving.whole()
    assert moving.stand.here.ocimig.pid(moving.stand.id)


def test_it_is_slowed_down_until_it_fits(moving: Moving) -> None:
    """--auto-converge: the CPU quota is lowered step by step, and is not there on the other side."""
    moving.start(
        "--max-bandwidth", "20", "--auto-converge", "--max-downtime", "200", "--timeout", "60",
        resident=32, dirty=200000,
    )  # fmt: skip
    report = moving.move()
    assert any(each["throttle"] > 0 for each in report["rounds"])
