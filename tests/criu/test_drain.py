"""A host that is emptied: where its containers go, what stays and why, and that a second run goes on."""

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate.failpoints import VARIABLE
from ocimig_testkit import TOKEN, Host, HostPair, make_bundle, until

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.netns, pytest.mark.ssh]

Start = Callable[..., str]


@pytest.fixture
def start(hosts: HostPair, worker: Path) -> Start:
    """Run a container on the first host that counts into a file of its own."""

    def run(name: str, *argv: str) -> str:
        bundle = make_bundle(hosts.a.bundles / name, "/bin/worker", *(argv or ("count", "1")))
        shutil.copy2(worker, bundle.rootfs / "bin/worker")
        bundle.write()
        id = f"{TOKEN}-{name}"
        for host in (hosts.a, hosts.b):
            host.ocimig.ids.append(id)
        hosts.a.ocimig("run", "-d", "-b", f"/srv/{name}", id)
        return id

    return run


@pytest.fixture
def third(hosts: HostPair) -> Iterator[Host]:
    """One more host on the same switch."""
    host = Host(hosts, "c", 13)
    try:
        host.build()
        host.serve()
        key = (host.directory / "host_key.pub").read_text().split()
        with hosts.known_hosts.open("a") as file:
            file.write(f"{host.address} {key[0]} {key[1]}\n")
        yield host
    finally:
        failed = host.close()
    assert not failed, "\n".join(failed)


def drain(hosts: HostPair, *options: str, to: str = "", code: int = 0, **call: Any) -> list[Any]:
    """What --json says of each container."""
    answer = hosts.a.ocimig(
        "drain", "--json", "--identity", hosts.identity, "--known-hosts", hosts.known_hosts,
        "--to", to or hosts.b.target, *options, code=code, timeout=180, **call,
    )  # fmt: skip
    found: list[Any] = json.loads(answer.out)
    return sorted(found, key=lambda each: str(each["id"]))


def running(*hosts: Host) -> dict[str, list[str]]:
    """The containers of each host that run there, without our prefix."""
    found = {}
    for host in hosts:
        ids = [path.name for path in host.root.glob("*") if not path.name.startswith(".")]
        ran = [id for id in ids if host.ocimig.status(id) == "running"]
        found[host.name] = sorted(id.removeprefix(f"{TOKEN}-") for id in ran)
    return found


def test_all_move_and_a_second_run_finds_nothing(hosts: HostPair, start: Start) -> None:
    """Two at once; the report of each says where it is and how long it stood still."""
    start("one")
    start("two")
    planned = drain(hosts, "--dry-run")
    assert [each["outcome"] for each in planned] == ["possible", "possible"]
    assert running(hosts.a, hosts.b) == {"a": ["one", "two"], "b": []}
    ended = drain(hosts, "--parallel", "2")
    assert [(each["outcome"], each["host"]) for each in ended] == [("moved", hosts.b.address)] * 2
    assert all(0 < each["blackout_seconds"] < each["seconds"] for each in ended)
    assert running(hosts.a, hosts.b) == {"a": [], "b": ["one", "two"]}
    assert drain(hosts) == []


def test_one_that_cannot_move_does_not_keep_the_others(hosts: HostPair, start: Start) -> None:
    """Code 14 and its reason; it runs on. A paused one is left and said."""
    start("ring", "ring")
    start("one")
    paused = start("still")
    ring = f"{TOKEN}-ring"
    pid = hosts.a.ocimig.pid(ring)
    until(lambda: "io_uring" in _open(pid), "the ring")
    hosts.a.ocimig("pause", paused)
    ended = drain(hosts, code=14)
    words = [each["outcome"] for each in ended]
    assert words == ["moved", "refused", "left"]
    assert "io_uring" in ended[1]["reason"]
    assert "resume" in ended[2]["fix"]
    assert running(hosts.a, hosts.b) == {"a": ["ring"], "b": ["one"]}
    assert hosts.a.ocimig.pid(ring) == pid
    hosts.a.ocimig("resume", paused)


def _open(pid: int) -> str:
    return " ".join(str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir())


def test_each_goes_to_a_host_that_takes_it(hosts: HostPair, third: Host, start: Start) -> None:
    """Each of two hosts has a directory in the way of one of them."""
    start("one")
    start("two")
    for host, name in ((hosts.b, "one"), (third, "two")):
        (host.bundles / name).mkdir()
        (host.bundles / name / "precious").write_text("x")
    third.ocimig.ids += hosts.b.ocimig.ids
    ended = drain(hosts, to=f"{hosts.b.target},{third.target}")
    assert [each["host"] for each in ended] == [third.address, hosts.b.address]
    assert running(hosts.a, hosts.b, third) == {"a": [], "b": ["two"], "c": ["one"]}


def test_a_host_that_does_not_answer_is_left_out(hosts: HostPair, start: Start) -> None:
    """The other takes what there is."""
    start("one")
    ended = drain(hosts, to=f"root@10.77.0.99,{hosts.b.target}")
    assert [(each["outcome"], each["host"]) for each in ended] == [("moved", hosts.b.address)]


def test_no_more_are_started_after_a_doubt(hosts: HostPair, start: Start) -> None:
    """Killed right after it gave the first away: code 21; settled, a second run moves both."""
    start("one")
    start("two")
    point = {VARIABLE: "source:COMMIT-INTENT:after"}
    ended = drain(hosts, code=21, env=point)
    assert sorted(each["outcome"] for each in ended) == ["in doubt", "not tried"]
    (doubt,) = (each["id"] for each in ended if each["outcome"] == "in doubt")
    assert [each["outcome"] for each in drain(hosts, "--dry-run", code=21)].count("in doubt") == 1
    hosts.a.ocimig("migrate", "--resume", doubt, timeout=60)
    drain(hosts)
    assert running(hosts.a, hosts.b) == {"a": [], "b": ["one", "two"]}


def test_an_interrupt_leaves_every_container_whole(hosts: HostPair, start: Start) -> None:
    """Ctrl-C: the one under way rolls back or arrives, the next is not begun; no process stays."""
    start("one")
    start("two")
    process = hosts.a.ocimig.popen(
        "drain", "--json", "--identity", hosts.identity, "--known-hosts", hosts.known_hosts,
        "--to", hosts.b.target, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        until(lambda: _reached(hosts.a, "PRECOPY"), "the first migration", 60, 0.001)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    ended = {each["outcome"] for each in json.loads(said)}
    assert "interrupted" in ended
    assert ended <= {"interrupted", "moved"}
    where = running(hosts.a, hosts.b)
    assert sorted(where["a"] + where["b"]) == ["one", "two"]
    assert hosts.a.ocimig("recover").out == ""


def _reached(host: Host, record: str) -> bool:
    journals = (host.root / ".migrations").glob("*/journal")
    return any(f'"record":"{record}"' in path.read_text() for path in journals)


def test_no_host_at_all_is_an_error(hosts: HostPair, start: Start) -> None:
    """Nothing is touched."""
    start("one")
    said = hosts.a.ocimig(
        "drain", "--identity", hosts.identity, "--known-hosts", hosts.known_hosts,
        "--to", "root@10.77.0.99", code=20, timeout=60,
    ).err  # fmt: skip
    assert "10.77.0.99" in said
    assert running(hosts.a) == {"a": ["one"]}
