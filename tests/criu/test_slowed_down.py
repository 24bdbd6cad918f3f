"""A container that writes faster than its memory travels: slowed down, or left alone, and never kept slow."""

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ocimig.runtime.store import Store
from ocimig_testkit import TOKEN, HostPair, make_bundle, until

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.netns, pytest.mark.ssh]

NAME = "writer"
WRITE = ("/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=64M")  # 64 MiB of its memory, over and over


@pytest.fixture
def id(hosts: HostPair) -> str:
    """The writer, on the first host."""
    make_bundle(hosts.a.bundles / NAME, *WRITE).write()
    made = f"{TOKEN}-{NAME}"
    for host in (hosts.a, hosts.b):
        host.ocimig.ids.append(made)
    hosts.a.ocimig("run", "-d", "-b", f"/srv/{NAME}", made)
    return made


def command(hosts: HostPair, id: str, *options: str) -> list[str]:
    """The argument list of `migrate` from the first host to the second."""
    return ["migrate", "--identity", str(hosts.identity), "--known-hosts", str(hosts.known_hosts),
            "--progress", "json", *options, id, hosts.b.target]  # fmt: skip


def limits(hosts: HostPair, id: str) -> dict[str, str]:
    """Every file of the kernel's that says how much of the processor it may use."""
    cgroups = Store(str(hosts.a.root)).load(id).cgroups
    place = Path(cgroups.get("cpu") or cgroups["unified"])
    return {path.name: path.read_text() for path in place.glob("cpu.*") if "stat" not in path.name}


def rounds(text: str) -> list[dict[str, Any]]:
    """The events of that kind."""
    events = [json.loads(line) for line in text.splitlines()]
    return [event for event in events if event["kind"] == "round"]


def test_it_is_slowed_down_until_it_fits(hosts: HostPair, id: str) -> None:
    """Step by step, then it moves; there it has all of the processor again."""
    options = ("--auto-converge", "--max-downtime", "500", "--max-rounds", "60")
    told = rounds(hosts.a.ocimig(*command(hosts, id, *options), timeout=180).err)
    steps = [event["throttle"] for event in told]
    assert 0.2 in steps
    assert steps == sorted(steps)
    there = Store(str(hosts.b.root)).load(id).cgroups
    place = Path(there.get("cpu") or there["unified"])
    quota = [path for path in (place / "cpu.cfs_quota_us", place / "cpu.max") if path.exists()]
    assert quota[0].read_text().split()[0] in ("-1", "max")


def test_who_would_rather_stay_stays_as_it_was(hosts: HostPair, id: str) -> None:
    """--on-timeout abort: code 20 with the reason, it runs here, and no limit is left."""
    before = limits(hosts, id)
    options = ("--on-timeout", "abort", "--max-downtime", "1", "--max-rounds", "3")
    answer = hosts.a.ocimig(*command(hosts, id, *options), code=20, timeout=120)
    assert "not for memory" in answer.err or "3 rounds have been made" in answer.err
    assert hosts.a.ocimig.status(id) == "running"
    assert limits(hosts, id) == before


def test_after_a_crash_recover_lets_it_go(hosts: HostPair, id: str, tmp_path: Path) -> None:
    """ocimig is killed while the container is slowed down: one command gives everything back."""
    before = limits(hosts, id)
    options = ("--auto-converge", "--max-downtime", "1", "--max-rounds", "500")
    seen = tmp_path / "progress"
    with seen.open("wb") as stderr:
        process = hosts.a.ocimig.popen(*command(hosts, id, *options), stderr=stderr)
    try:
        until(lambda: '"action":"throttle"' in seen.read_text(), "it to be slowed down", 60)
        until(lambda: limits(hosts, id) != before, "the limit to be there", 5)
    finally:
        _kill(process.pid)
        process.wait(20)
    assert limits(hosts, id) != before
    said = hosts.a.ocimig("recover", id).out
    assert "rolled back" in said
    assert limits(hosts, id) == before
    assert hosts.a.ocimig.status(id) == "running"
    _end_agents(hosts)  # else it would wait for the link to come again
    hosts.b.ocimig("recover", code=None)


def _end_agents(hosts: HostPair) -> None:
    """Kill the far side and wait until it is gone."""

    def agents() -> list[int]:
        wanted = [b"--root", os.fsencode(hosts.b.root), b"agent"]
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (place / "cmdline").read_bytes().split(b"\0")[-4:-1] == wanted:
                    found.append(int(place.name))
        return found

    for pid in agents():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not agents(), "the far side to end")


def _kill(pid: int) -> None:
    """The program itself and whatever put it into the host's namespaces."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in map(int, children):
        os.kill(child, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
