"""`migrate --post-copy` between two hosts: it runs there at once, and every page follows; or it is held here.

The container and its client are those of the benchmark, as in test_follow.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate.failpoints import VARIABLE
from ocimig_testkit import Host, HostPair, until
from ocimig_testkit.moving import Moving, agents

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.netns, pytest.mark.ssh]

PURE = ("--post-copy", "--max-rounds", "0")  # nothing goes before it runs there


@pytest.fixture
def moving(hosts: HostPair, tmp_path: Path) -> Iterator[Moving]:
    """Not started yet."""
    made = Moving(hosts, tmp_path)
    yield made
    made.close()


def step(report: dict[str, Any], name: str) -> dict[str, Any]:
    """One step of a report."""
    found: dict[str, Any] = next(each for each in report["steps"] if each["name"] == name)
    return found


def released(report: dict[str, Any]) -> float:
    """When it ran there, in seconds since the migration began."""
    return float(step(report, "stop the processes")["begin"]) + float(report["blackout_seconds"])


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_all_memory_follows_while_it_runs_there(moving: Moving, transport: str) -> None:
    """There and back under load with nothing sent before: no page is wrong, no byte is lost."""
    moving.start(*PURE, "--transport", transport, resident=64, dirty=2000)
    for _ in range(2):
        report = moving.move()
        assert not report["rounds"]
        assert report["bytes"]["memory that followed"] > 60 << 20
        follows = step(report, "memory follows")
        assert follows["begin"] + follows["seconds"] > released(report) + 0.05
        assert report["bytes"]["images"] < 4 << 20


def test_what_does_not_fit_follows(moving: Moving) -> None:
    """It writes faster than 8 MiB/s travel: after two rounds the rest follows, at full speed."""
    moving.start(
        "--post-copy", "--max-bandwidth", "8", "--max-rounds", "2", "--max-downtime", "50",
        resident=64, dirty=20000,
    )  # fmt: skip
    report = moving.move()
    assert len(report["rounds"]) == 2
    assert "follows when it runs there" in report["reason"]
    assert report["bytes"]["memory that followed"] > 1 << 20


class Watched:
    """A migration under way, whose events can be waited for."""

    def __init__(self, moving: Moving, **environment: str) -> None:
        argv = moving.stand.here.ocimig.command(*moving.command())
        argv[argv.index("none")] = "json"
        self.process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **environment},
        )  # fmt: skip
        self.lines: list[dict[str, Any]] = []

    def wait_for(self, text: str) -> None:
        """Read its events up to one."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(json.loads(line))
            if self.lines[-1]["text"] == text:
                return
        raise AssertionError(f"no {text!r} in {[each['text'] for each in self.lines]}")

    def end(self) -> tuple[int, str]:
        """Its exit code and all that it said."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out + err


def status(host: Host, id: str) -> str:
    """What a host says of the container; "" when it does not know it."""
    answer = host.ocimig("state", id, code=None)
    return str(json.loads(answer.out)["status"]) if answer.code == 0 else ""


def last_record(host: Host) -> str:
    """The end that the host's newest journal says."""
    journals = sorted((host.root / ".migrations").glob("[!.]*/journal"))
    return str(json.loads(journals[-1].read_text().splitlines()[-1])["record"])


@pytest.mark.parametrize("victim", ["session", "agent", "command"])
def test_a_link_that_breaks_while_memory_follows_ends_it_there_and_holds_it_here(
    moving: Moving, victim: str
) -> None:
    """The ssh session, the agent or the command is killed when it runs there without its memory: nobody
    runs it any more, the command says 21 and why, and a person gets it back as it was."""
    moving.start(*PURE, resident=512, dirty=500)
    here, there, id = moving.stand.here, moving.stand.there, moving.stand.id
    watched = Watched(moving)
    watched.wait_for("memory follows")
    if victim == "session":
        for pid in agents(there):
            os.kill(pid, signal.SIGKILL)
    elif victim == "agent":
        for pid in agent_processes(there):
            os.kill(pid, signal.SIGKILL)
    else:
        watched.process.kill()
    code, said = watched.end()
    if victim == "command":
        answer = here.ocimig("migrate", "--resume", id, code=None, timeout=120)
        code, said = answer.code, answer.out + answer.err
    assert code == 21, said
    assert "without all of its memory" in said
    assert "--assume-destination-dead" in said
    until(lambda: status(there, id) != "running", "it to end there", 20, 0.05)
    assert last_record(there) == "LOST"
    assert status(here, id) in ("paused", "running")
    pid = here.ocimig.pid(id)
    assert here.ocimig("migrate", "--resume", id, code=None).code == 21
    here.ocimig("migrate", "--resume", "--assume-destination-dead", id, timeout=60)
    assert status(here, id) == "running"
    assert here.ocimig.pid(id) == pid
    until(lambda: not handlers(there), "the page handler to end", 20, 0.1)


def test_a_link_that_breaks_before_the_commit_costs_nothing(moving: Moving, tmp_path: Path) -> None:
    """All is built there and its memory is on its way: it thaws here and has lost nothing."""
    moving.start(*PURE, resident=128, dirty=500)
    stop = tmp_path / "stop"
    watched = Watched(moving, **{VARIABLE: f"source:PREPARED:before={stop}"})
    until(stop.exists, "the destination to be prepared", 60, 0.01)
    for pid in agents(moving.stand.there):
        os.kill(pid, signal.SIGKILL)
    until(lambda: last_record(moving.stand.there) == "ABORTED", "it to give up there", 30, 0.05)
    stop.unlink()
    code, said = watched.end()
    assert code == 20, said
    assert "runs here" in said
    assert status(moving.stand.there, moving.stand.id) == ""
    moving.whole()


def agent_processes(host: Host) -> list[int]:
    """The agents of a host, without those that only attach."""
    return [
        pid
        for pid, argv in commands()
        if str(host.root) in argv and argv[-1] == "agent" and "python" in argv[0]
    ]


def handlers(host: Host) -> list[int]:
    """Page handlers: forked from agents, and like them by name."""
    return agent_processes(host)


def commands() -> Iterator[tuple[int, list[str]]]:
    """All processes and their arguments."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            argv = (place / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            continue
        if argv:
            yield int(place.name), argv
