"""Two services that move together: both arrive, or both stay, whoever is killed and wherever."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate import network
from ocimig.migrate.failpoints import PATIENCE, VARIABLE
from ocimig_testkit import TOKEN, Host, HostPair, make_bundle, until

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.netns, pytest.mark.ssh]

PORT = 5000


class Service:
    """One of them: answers every byte with the next number, on a connection that stays open."""

    def __init__(self, hosts: HostPair, worker: Path, number: int) -> None:
        self.hosts = hosts
        self.name = f"s{number}"
        self.id = f"{TOKEN}-{self.name}"
        self.address = f"10.77.0.{60 + number}"
        self.last = 0
        bundle = make_bundle(hosts.a.bundles / self.name, "/bin/worker", "serve", str(PORT))
        shutil.copy2(worker, bundle.rootfs / "bin/worker")
        bundle.write()
        for host in (hosts.a, hosts.b):
            host.ocimig.ids.append(self.id)
        net = f"bridge=br0,address={self.address}/24"
        hosts.a.ocimig("run", "-d", "--net", net, "-b", f"/srv/{self.name}", self.id)
        fd = os.open(f"/run/netns/{hosts.switch}", os.O_RDONLY)
        with network.inside(fd):
            self.peer = socket.socket()
        os.close(fd)
        self.peer.settimeout(30)
        until(lambda: self.peer.connect_ex((self.address, PORT)) == 0, "the service to listen")
        self.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers()

    def answers(self) -> None:
        """The next number comes on the old connection: nothing was lost, nothing was done twice."""
        self.peer.sendall(b"x")
        said = b""
        while not said.endswith(b"\n"):
            part = self.peer.recv(100)
            assert part, f"{self.name} closed the connection"
            said += part
        self.last += 1
        assert int(said) == self.last

    def where(self) -> str:
        """The hosts on which it runs."""
        found = ""
        for host in (self.hosts.a, self.hosts.b):
            found += host.name if host.ocimig.status(self.id) == "running" else ""
        return found


class Two:
    """Both of them, and the command that moves them."""

    def __init__(self, hosts: HostPair, worker: Path) -> None:
        self.hosts = hosts
        self.services = [Service(hosts, worker, number) for number in (1, 2)]

    def command(self, here: Host, there: Host, *options: str) -> list[str]:
        """The argument list of `migrate --together`."""
        ids = [each.id for each in self.services]
        return ["migrate", "--together", "--json", "--identity", str(self.hosts.identity),
                "--known-hosts", str(self.hosts.known_hosts), *options, *ids, there.target]  # fmt: skip

    def move(self, here: Host, there: Host, *options: str, code: int | None = 0) -> list[Any]:
        """Move them; what --json says of each, in our order."""
        answer = here.ocimig(*self.command(here, there, *options), code=code, timeout=120)
        found: list[Any] = json.loads(answer.out)
        return sorted(found, key=lambda each: str(each["id"]))

    def crash(self, agent: Path) -> int:
        """Move them there with agents of which one is killed: the exit code."""
        command = self.command(self.hosts.a, self.hosts.b, "--remote-command", str(agent))
        answer = self.hosts.a.ocimig(*command, code=None, timeout=180)
        assert agent.with_suffix(".killed").exists(), answer
        return answer.code

    def where(self) -> list[str]:
        """Where each runs."""
        return [each.where() for each in self.services]

    def answer(self) -> None:
        """Both, on their old connections."""
        for each in self.services:
            each.answers()

    def busy(self) -> list[str]:
        """Locks of migrations that a process holds: members and agents that live."""
        homes = [host.root / ".migrations" for host in (self.hosts.a, self.hosts.b)]
        return [str(path) for home in homes for path in home.glob("[!.]*/lock") if _held(path)]

    def settle(self) -> None:
        """What a person does after a crash: recover on both hosts, --resume where that says so."""
        until(lambda: not self.busy(), "members and agents to end", 90)
        for host in (self.hosts.b, self.hosts.a):
            host.ocimig("recover", code=None)
        for each in self.services:
            here = self.hosts.a
            if "--resume" in here.ocimig("recover", each.id, code=None).out:
                here.ocimig("migrate", "--resume", each.id, timeout=60)  # settles the other too
                assert here.ocimig("recover").out == ""
        where = self.where()
        assert where in (["a", "a"], ["b", "b"]), where
        self.answer()

    def close(self) -> None:
        """Hang up."""
        for each in self.services:
            each.peer.close()


def _held(lock: Path) -> bool:
    with suppress(FileNotFoundError), lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture
def two(hosts: HostPair, worker: Path) -> Iterator[Two]:
    """Both run on the first host."""
    made = Two(hosts, worker)
    yield made
    made.close()


def test_both_move_there_and_back(two: Two) -> None:
    """Two moves; every number comes on the connections from before; nothing of a group is left here."""
    hosts = two.hosts
    for here, there in ((hosts.a, hosts.b), (hosts.b, hosts.a)):
        ended = two.move(here, there)
        assert [each["outcome"] for each in ended] == ["moved", "moved"]
        assert two.where() == [there.name] * 2
        two.answer()
        assert not list((here.root / ".migrations").glob(".group-*")) or here is hosts.b


def test_a_dry_run_is_of_both(two: Two) -> None:
    """Nothing is begun."""
    ended = two.move(two.hosts.a, two.hosts.b, "--dry-run")
    assert [each["outcome"] for each in ended] == ["possible", "possible"]
    assert two.where() == ["a", "a"]
    assert not list(two.hosts.b.bundles.iterdir())


def test_one_that_is_refused_keeps_the_other(two: Two) -> None:
    """A directory in the way of one: code 11 for both, and its reason."""
    (two.hosts.b.bundles / "s2").mkdir()
    (two.hosts.b.bundles / "s2" / "precious").write_text("x")
    ended = two.move(two.hosts.a, two.hosts.b, code=11)
    assert [each["outcome"] for each in ended] == ["stays", "refused"]
    assert "is not empty" in ended[0]["reason"]
    assert two.where() == ["a", "a"]
    two.answer()


Agents = Callable[[str], Path]
HASTE = (
    f"{PATIENCE}=20%"  # an agent waits a minute for a link that broke while its container ran here
)


@pytest.fixture
def mortal(hosts: HostPair) -> Agents:
    """A --remote-command whose agent has a failpoint; beside it a file appears when one was killed.

    A failpoint of the group's is in both agents, for one of them comes by; any other in the first.
    """

    def make(point: str) -> Path:
        script = hosts.directory / "agent"
        once = "true" if point.startswith("group:") else f"mkdir {script}.first 2>/dev/null"
        script.write_text(
            f"#!/bin/sh\nexport {HASTE}\n{once} && export {VARIABLE}={point}\n"
            f'ocimig "$@"\ncode=$?\n[ $code = 137 ] && : >{script}.killed\nexit $code\n'
        )
        script.chmod(0o755)
        return script

    return make


LEADER = [
    f"coordinator:{order}:{moment}"
    for order in ("begin", "freeze", "intend", "go")
    for moment in ("before", "first", "after")
]
MEMBER = [
    f"member{number}.source:{record}:{moment}"
    for number in (1, 2)
    for record in ("PRECOPY", "FREEZE", "PREPARED", "COMMIT-INTENT", "ACKED")
    for moment in ("before", "after")
]
# A third of them each time, and all with OCIMIG_WHOLE=1: they take seven seconds each.
EVERY = 1 if os.environ.get("OCIMIG_WHOLE") else 3


@pytest.mark.slow
@pytest.mark.parametrize("point", (LEADER + MEMBER)[::EVERY])
def test_a_kill_here_leaves_both_in_one_place(two: Two, point: str) -> None:
    """kill -9 of who leads, or of one member, at every boundary: both here, both there, or one command settles."""
    hosts = two.hosts
    command = two.command(hosts.a, hosts.b, "--remote-command", f"env {HASTE} ocimig")
    answer = hosts.a.ocimig(*command, code=None, env={VARIABLE: point}, timeout=120)
    killed = str(-signal.SIGKILL)
    assert str(answer.code) == killed if point in LEADER else f"status {killed}" in answer.out
    two.settle()


# after GO, one whose agent is killed comes back: docs/migration.md, "Several at once"
AGENT = ["destination:RESERVED:after", "destination:SHIPPED:after", "destination:PREPARED:before",
         "destination:PREPARED:after", "group:FORMED:before", "group:FORMED:after",
         "group:GO:before"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("point", AGENT[::EVERY])
def test_a_kill_there_leaves_both_in_one_place(two: Two, mortal: Agents, point: str) -> None:
    """kill -9 of one agent at every boundary up to GO: both stay here."""
    two.crash(mortal(point))
    two.settle()
    assert two.where() == ["a", "a"]


@pytest.mark.parametrize("point", ["destination:GO:before", "destination:GO:after"])
def test_one_that_dies_in_the_last_moment_is_not_lost(two: Two, mortal: Agents, point: str) -> None:
    """Let go with its group and killed before it ran: it comes back, the other stays there; said with code 20."""
    hosts = two.hosts
    assert two.crash(mortal(point)) in (20, 21)
    until(lambda: not two.busy(), "members and agents to end", 90)
    for host in (hosts.b, hosts.a):
        host.ocimig("recover", code=None)
    for each in two.services:
        if "--resume" in hosts.a.ocimig("recover", each.id, code=None).out:
            hosts.a.ocimig("migrate", "--resume", each.id, timeout=60)
    assert sorted(two.where()) == ["a", "b"]
    two.answer()


def test_who_leads_may_be_interrupted(two: Two) -> None:
    """Ctrl-C while both are on their way: code 130, both run here, nothing is held."""
    hosts = two.hosts
    process = hosts.a.ocimig.popen(*two.command(hosts.a, hosts.b), stdout=subprocess.PIPE)
    with process:
        journals = hosts.a.root / ".migrations"
        until(
            lambda: len([path for path in journals.glob("*/journal") if _precopy(path)]) == 2,
            "both to be on their way", 60, 0.001,
        )  # fmt: skip
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    where = two.where()
    if process.returncode == 0:  # it was faster
        assert where == ["b", "b"]
        return
    assert process.returncode == 130, said
    assert {each["outcome"] for each in json.loads(said)} == {"stays"}
    assert where == ["a", "a"]
    two.answer()
    assert hosts.a.ocimig("recover").out == ""


def _precopy(journal: Path) -> bool:
    return '"record":"PRECOPY"' in journal.read_text()
