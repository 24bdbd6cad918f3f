"""Containers between two hosts with an SSH server each: what moves, what is refused, who runs after a crash."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.migrate import network, phases
from ocimig.migrate.failpoints import PATIENCE
from ocimig.migrate.failpoints import VARIABLE as FAILPOINT
from ocimig_testkit import TOKEN, Bundle, Host, HostPair, make_bundle, until

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.netns, pytest.mark.ssh]

ADDRESS = "10.77.0.50"
PORT = 5000
NAME = "served"


class Service:
    """A container that answers every byte with the next number, on a connection that stays open."""

    def __init__(self, hosts: HostPair, worker: Path) -> None:
        self.hosts = hosts
        self.id = f"{TOKEN}-{NAME}"
        self.bundle: Bundle = make_bundle(hosts.a.bundles / NAME, "/bin/worker", "serve", str(PORT))
        shutil.copy2(worker, self.bundle.rootfs / "bin/worker")
        self.path = f"/srv/{NAME}"
        self.peer: socket.socket | None = None
        self.last = 0

    def start(self, *options: str) -> None:
        """Run it on the first host, connect, ask for the first number."""
        host = self.hosts.a
        for each in (self.hosts.a, self.hosts.b):
            each.ocimig.ids.append(self.id)
        net = f"bridge=br0,address={ADDRESS}/24"
        self.bundle.write()
        host.ocimig("run", "-d", "--net", net, *options, "-b", self.path, self.id)
        fd = os.open(f"/run/netns/{self.hosts.switch}", os.O_RDONLY)
        with network.inside(fd):
            peer = socket.socket()
        os.close(fd)
        peer.settimeout(20)
        self.peer = peer
        until(lambda: peer.connect_ex((ADDRESS, PORT)) == 0, "the service to listen")
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers()

    def answers(self) -> None:
        """The next number comes on the old connection: nothing was lost, nothing was done twice."""
        assert self.peer is not None
        self.peer.sendall(b"x")
        said = b""
        while not said.endswith(b"\n"):
            part = self.peer.recv(100)
            assert part, "the connection was closed"
            said += part
        self.last += 1
        assert int(said) == self.last

    def command(self, here: Host, there: Host, *options: str) -> list[str]:
        """The argument list of `migrate`."""
        return ["migrate", "--identity", str(self.hosts.identity), "--known-hosts",
                str(self.hosts.known_hosts), *options, self.id, there.target]  # fmt: skip

    def move(self, here: Host, there: Host, *options: str, code: int = 0) -> str:
        """Migrate; what it said on both streams."""
        answer = here.ocimig(*self.command(here, there, *options), code=code, timeout=120)
        return answer.out + answer.err

    def close(self) -> None:
        """Hang up."""
        if self.peer is not None:
            self.peer.close()


@pytest.fixture
def service(hosts: HostPair, worker: Path) -> Iterator[Service]:
    """Not started yet."""
    made = Service(hosts, worker)
    yield made
    made.close()


def traces(host: Host, service: Service) -> list[str]:
    """What of the container is on a host: state, files, interfaces, cgroups, mounts."""
    found = [str(path) for path in host.root.glob("*") if path.name != ".migrations"]
    found += [str(path) for path in host.bundles.iterdir()]
    links = [line.split()[1] for line in host.run("ip", "-o", "link").splitlines()]
    found += [link for link in links if not link.startswith(("lo:", "br0:", "up0@"))]
    found += [str(path) for top in host.cgroups for path in top.rglob(f"*{service.id}*")]
    mounts = host.run("cat", "/proc/self/mountinfo").splitlines()
    found += [line for line in mounts if NAME in line]
    kept = {"journal", "criu"}
    for home in (host.root / ".migrations").glob("[!.]*"):
        found += [str(path) for path in home.iterdir() if path.name not in kept]
    return found


def limits(host: Host, service: Service) -> list[str]:
    """How many processes it may have."""
    found = [path for top in host.cgroups for path in top.rglob(f"*{service.id}*/pids.max")]
    return [path.read_text().strip() for path in found]


def where(service: Service) -> list[str]:
    """The hosts on which it runs."""
    found = []
    for host in (service.hosts.a, service.hosts.b):
        answer = host.ocimig("state", service.id, code=None)
        if answer.code == 0 and json.loads(answer.out)["status"] == "running":
            found.append(host.name)
    return found


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_connection_follows_there_and_back(service: Service, transport: str) -> None:
    """Three moves, one connection, no number missing; nothing stays where it left."""
    service.start()
    here, there = service.hosts.a, service.hosts.b
    for _ in range(3):
        service.move(here, there, "--transport", transport)
        service.answers()
        assert where(service) == [there.name]
        assert traces(here, service) == []
        here, there = there, here


def test_a_root_that_is_mounted_arrives_as_plain_files(service: Service) -> None:
    """Layers under <bundle>/rootfs, as containerd and podman lay them out; nothing behind the mount goes away."""
    hosts, rootfs = service.hosts, service.bundle.rootfs
    layers = hosts.a.directory / "layers"
    layers.mkdir()
    rootfs.rename(layers / "lower")
    for path in (rootfs, layers / "upper", layers / "work"):
        path.mkdir()
    options = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
    hosts.a.run("mount", "-t", "overlay", "overlay", "-o", options, f"{service.path}/rootfs")
    service.start()
    hosts.a.ocimig("exec", service.id, "/bin/sh", "-c", "echo here >/made; rm /bin/ls")
    before = sorted(os.listdir(layers / "lower/bin"))
    said = service.move(hosts.a, hosts.b)
    service.answers()
    assert where(service) == [hosts.b.name]
    assert (hosts.b.bundles / NAME / "rootfs/made").read_text() == "here\n"
    there = sorted(os.listdir(hosts.b.bundles / NAME / "rootfs/bin"))
    assert there == [name for name in before if name != "ls"]
    assert hosts.b.ocimig("exec", service.id, "/bin/cat", "/made").out == "here\n"
    assert f"a file system is mounted on {service.path}/rootfs" in said
    assert service.bundle.path.exists()
    assert sorted(os.listdir(layers / "lower/bin")) == before
    assert sorted(os.listdir(layers / "upper")) == ["bin", "made"]


def test_the_report_says_what_it_took(service: Service) -> None:
    """--json: every phase, the bytes, the blackout; a dry run before it changed nothing."""
    service.start()
    hosts = service.hosts
    dry = json.loads(hosts.a.ocimig(*service.command(hosts.a, hosts.b, "--dry-run", "--json")).out)
    assert dry["outcome"] == "possible"
    assert where(service) == ["a"]
    assert traces(hosts.b, service) == []
    answer = hosts.a.ocimig(*service.command(hosts.a, hosts.b, "--json"), timeout=120)
    report = json.loads(answer.out)
    assert [row["name"] for row in report["phases"]] == [row.name for row in phases.PHASES]
    assert 0 < report["blackout_seconds"] < report["seconds"]
    assert report["bytes"]["images"] > 10000
    service.answers()


def test_files_stay_when_that_is_asked_for(service: Service) -> None:
    """--keep-source-files leaves the bundle, and nothing else."""
    service.start()
    service.move(service.hosts.a, service.hosts.b, "--keep-source-files")
    service.answers()
    assert traces(service.hosts.a, service) == [str(service.hosts.a.bundles / NAME)]


def test_what_the_container_wrote_is_there(service: Service) -> None:
    """A file made after the start, with its mode."""
    service.start()
    hosts = service.hosts
    words = "echo kept >/tmp-file && chmod 640 /tmp-file"
    hosts.a.ocimig("exec", service.id, "/bin/sh", "-c", words)
    service.move(hosts.a, hosts.b)
    look = ("/bin/stat", "-c", "%a %s", "/tmp-file")
    assert hosts.b.ocimig("exec", service.id, *look).out.strip() == "640 5"
    service.answers()


def test_a_taken_name_is_refused(service: Service) -> None:
    """Code 11 and the name, before anything is touched."""
    service.start()
    (service.hosts.b.root / service.id).mkdir(parents=True)
    said = service.move(service.hosts.a, service.hosts.b, code=11)
    assert "is taken" in said
    (service.hosts.b.root / service.id).rmdir()
    service.answers()


def test_a_bundle_in_the_way_is_refused(service: Service) -> None:
    """The directory there is somebody else's: code 11, and it is not touched."""
    service.start()
    other = service.hosts.b.bundles / NAME
    other.mkdir()
    (other / "precious").write_text("x")
    assert "is not empty" in service.move(service.hosts.a, service.hosts.b, code=11)
    assert (other / "precious").read_text() == "x"
    service.answers()


def test_a_missing_bridge_is_refused_with_its_fix(service: Service) -> None:
    """The far side has no such bridge."""
    service.start()
    service.hosts.b.run("ip", "link", "set", "br0", "name", "br1")
    try:
        # the address of the host goes with the bridge: only its name is another
        said = service.move(service.hosts.a, service.hosts.b, code=14)
    finally:
        service.hosts.b.run("ip", "link", "set", "br1", "name", "br0")
    assert "ip link add br0 type bridge" in said
    service.answers()


def test_a_wrong_host_key_is_refused(service: Service, tmp_path: Path) -> None:
    """Code 13 before anything is said to that host."""
    service.start()
    hosts = service.hosts
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    key = other.with_suffix(".pub").read_text().split()
    wrong = tmp_path / "wrong"
    wrong.write_text(f"{hosts.b.address} {key[0]} {key[1]}\n")
    words = ["migrate", "--identity", str(hosts.identity), "--known-hosts", str(wrong)]
    hosts.a.ocimig(*words, service.id, hosts.b.target, code=13)
    service.answers()


def test_a_host_without_ocimig_is_named(service: Service) -> None:
    """Code 14 and what could not be run."""
    service.start()
    said = service.move(
        service.hosts.a, service.hosts.b, "--remote-command", "/nowhere/ocimig", code=14
    )
    assert "/nowhere/ocimig" in said
    service.answers()


def test_a_host_that_does_not_answer_is_named(service: Service) -> None:
    """Nobody listens on that port: code 20, nothing lost."""
    service.start()
    said = service.move(service.hosts.a, service.hosts.b, "--port", "1", code=20)
    assert service.hosts.b.address in said
    service.answers()


def boundaries() -> list[str]:
    """Every record of both journals, and the moments before and after it is durable."""
    return [
        f"{side}:{record}:{moment}"
        for side, table in phases.TABLES.items()
        if side != "group"
        for record in table
        if record and record not in ("ABORTED", "FAILED")
        for moment in ("before", "after")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("point", boundaries())
def test_a_kill_at_any_record_leaves_one_owner(service: Service, point: str) -> None:
    """kill -9 of either side at every journal boundary: one copy runs, or one command settles it. It has
    its own limits then, not the wider ones of the restore."""
    service.bundle.linux["resources"] = {"pids": {"limit": 7}}
    service.start()
    hosts = service.hosts
    side = point.split(":")[0]
    options: list[str] = []
    # Each side waits for the other one to come again: here not for a minute.
    environment = {PATIENCE: "20%"}
    far = f"env {PATIENCE}=20%"
    if side == "source":
        environment[FAILPOINT] = point
    else:
        far += f" {FAILPOINT}={point}"
    options += ["--remote-command", f"{far} ocimig"]
    hosts.a.ocimig(
        *service.command(hosts.a, hosts.b, *options), code=None, env=environment, timeout=120
    )
    assert len(where(service)) <= 1
    for host in (hosts.b, hosts.a):
        host.ocimig("recover", code=None)
    if not where(service):  # held: the destination is asked, and its word settles it
        hosts.a.ocimig("migrate", "--resume", service.id, code=None, timeout=60)
    elif (hosts.a.root / service.id).exists() and where(service) == ["b"]:
        hosts.a.ocimig("migrate", "--resume", service.id, timeout=60)
    assert len(where(service)) == 1, hosts.a.ocimig("recover", code=None).out
    service.answers()
    busy, idle = (hosts.a, hosts.b) if where(service) == ["a"] else (hosts.b, hosts.a)
    until(lambda: limits(busy, service) == ["7"], "its own limit", 10)
    if idle is hosts.b:
        until(lambda: traces(hosts.b, service) == [], "the agent to give up", 30)


def test_what_is_in_doubt_stays_held(service: Service) -> None:
    """Killed right after it gave the container away: nothing lets it run but the settling."""
    service.start()
    hosts = service.hosts
    point = {FAILPOINT: "source:COMMIT-INTENT:after"}
    command = service.command(hosts.a, hosts.b)
    hosts.a.ocimig(*command, code=None, env=point, timeout=120)
    assert hosts.a.ocimig.status(service.id) == "paused"
    assert "--resume" in hosts.a.ocimig("resume", service.id, code=1).err
    hosts.a.ocimig("checkpoint", "--image-path", hosts.directory / "image", service.id, code=21)
    assert "in doubt" in hosts.a.ocimig("recover", code=21).out
    assert "not settled" in hosts.a.ocimig(*command, code=21).err
    assert hosts.a.ocimig.status(service.id) == "paused"
    hosts.a.ocimig("migrate", "--resume", service.id, timeout=60)
    service.answers()
    assert where(service) == ["a"]
    assert traces(hosts.b, service) == []
    hosts.a.ocimig("recover")
    service.move(hosts.a, hosts.b)
    service.answers()


@pytest.mark.parametrize("record", ["PRECOPY", "FREEZE"])
def test_an_interrupt_rolls_back(service: Service, record: str) -> None:
    """Ctrl-C before the commit: code 130, it runs here, nothing is left there."""
    service.start()
    hosts = service.hosts
    process = hosts.a.ocimig.popen(*service.command(hosts.a, hosts.b), stderr=subprocess.PIPE)
    with process:
        until(lambda: _reached(hosts.a, record) or process.poll() is not None, record, 60, 0.001)
        # the program itself, not the shell and nsenter before it: they became it by exec
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    if process.returncode == 0:  # it was faster
        assert where(service) == ["b"]
        return
    assert process.returncode == 130, said
    assert b"runs here" in said
    service.answers()
    assert where(service) == ["a"]
    until(lambda: traces(hosts.b, service) == [], "the far side to clean up")


def _reached(host: Host, record: str) -> bool:
    journals = (host.root / ".migrations").glob("*/journal")
    return any(f'"record":"{record}"' in path.read_text() for path in journals)
