"""What a person sees of a migration: before, during and after it."""

import json
import os
import pty
import re
import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ocimig_testkit import TOKEN, HostPair, make_bundle

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.netns, pytest.mark.ssh]

NAME = "watched"
BUSY = "i=0; while :; do i=$((i+1)); echo $i >/count; done"


@pytest.fixture
def id(hosts: HostPair) -> str:
    """A container on the first host that counts as fast as it can."""
    bundle = make_bundle(hosts.a.bundles / NAME, "/bin/sh", "-c", BUSY)
    bundle.write()
    made = f"{TOKEN}-{NAME}"
    for host in (hosts.a, hosts.b):
        host.ocimig.ids.append(made)
    hosts.a.ocimig("run", "-d", "-b", f"/srv/{NAME}", made)
    return made


def command(hosts: HostPair, id: str, *options: str) -> list[str]:
    """The argument list of `migrate` from the first host to the second."""
    return ["migrate", "--identity", str(hosts.identity), "--known-hosts", str(hosts.known_hosts),
            *options, id, hosts.b.target]  # fmt: skip


def test_programs_see_every_round_and_the_report_draws_it(
    hosts: HostPair, id: str, tmp_path: Path
) -> None:
    """--progress json tells phases and rounds in order; --json and --report say where the blackout went."""
    drawn = tmp_path / "report.html"
    words = command(hosts, id, "--progress", "json", "--json", "--report", str(drawn))
    answer = hosts.a.ocimig(*words, timeout=120)
    events = [json.loads(line) for line in answer.err.splitlines()]
    told = [event["text"] for event in events if event["kind"] == "phase"]
    assert told == ["PREFLIGHT", "PRECOPY", "FREEZE", "PREPARED", "COMMIT", "RUNNING"]
    rounds = [event for event in events if event["kind"] == "round"]
    assert [event["number"] for event in rounds] == list(range(1, len(rounds) + 1))
    assert rounds[0]["pages"] > 0
    assert rounds[-1]["action"] == "freeze"
    assert 0 < rounds[-1]["predicted"] < 60
    report = json.loads(answer.out)
    assert sum(report["blackout_parts"].values()) == pytest.approx(
        report["blackout_seconds"], abs=1e-3
    )
    assert report["predicted_blackout_seconds"] > 0
    assert len(report["rounds"]) == len(rounds)
    begin = report["steps"][[step["name"] for step in report["steps"]].index("stop the processes")]
    for step in report["steps"]:
        if step["side"] == "there" and step["name"] in ("restore", "released"):
            assert begin["begin"] < step["begin"] < begin["begin"] + report["blackout_seconds"]
    text = drawn.read_text()
    HTMLParser().feed(text)
    assert "criu dumps" in text
    assert text.count("<svg") == 2


def test_a_dry_run_foresees_rounds_and_blackout(hosts: HostPair, id: str) -> None:
    """It measures how fast the container writes, calculates, and changes nothing."""
    report = json.loads(hosts.a.ocimig(*command(hosts, id, "--dry-run", "--json"), timeout=120).out)
    assert report["outcome"] == "possible"
    assert report["dirty_rate"]["dirty_bytes_per_second"] > 0
    assert report["forecast"]["rounds"] >= 1
    assert report["forecast"]["blackout_seconds"] > 0
    assert hosts.a.ocimig.status(id) == "running"
    words = hosts.a.ocimig(*command(hosts, id, "--dry-run"), timeout=120).out
    assert re.search(r"foreseen: \d+ rounds", words)


def test_a_second_move_knows_what_the_first_took(hosts: HostPair, id: str) -> None:
    """What was learnt lies beside the journals, and is no journal."""
    hosts.a.ocimig(*command(hosts, id), timeout=120)
    learnt = json.loads((hosts.a.root / ".migrations/.calibration.json").read_text())
    assert [each["target"] for each in learnt["migrations"]] == [hosts.b.address]
    assert learnt["migrations"][0]["parts"]["restore"] > 0
    assert "[]" in hosts.a.ocimig("recover", "--json").out


def test_a_terminal_shows_it_while_it_lasts(hosts: HostPair, id: str) -> None:
    """Phases with their times, and no trace of the display in what follows."""
    master, slave = pty.openpty()
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                data = os.read(master, 1 << 16)
            except OSError:
                return
            shown.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        process = hosts.a.ocimig.popen(*command(hosts, id), stderr=slave)
        assert process.wait(120) == 0, shown.decode(errors="replace")
    finally:
        os.close(slave)
        reader.join(10)
        os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode("utf-8", "replace"))
    for phase in ("PREFLIGHT", "PRECOPY", "FREEZE", "RUNNING"):
        assert re.search(rf"{phase}\s+\d+\.\d\d s", text), phase
    assert shown.count(b"\x1b[?25h") == shown.count(b"\x1b[?25l")  # the cursor is back
