"""Established TCP connections across a checkpoint, with a peer that knows nothing of it."""

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ocimig_testkit import TOKEN, until
from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.netns]


def ip(*words: str) -> str:
    """Run ip(8)."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True, slots=True)
class Cable:
    """A namespace of the container's, given by path, joined to this one by a veth pair."""

    path: str
    address: str


@pytest.fixture
def cable() -> Iterator[Cable]:
    """An address here and one in the container's namespace, of a network that no other session uses."""
    name = f"{TOKEN}-n"
    network = f"10.78.{os.getpid() % 250}"
    port = f"v{TOKEN}"[:14]
    ip("netns", "add", name)
    try:
        ip("link", "add", port, "type", "veth", "peer", "eth0", "netns", name)
        ip("address", "add", f"{network}.1/24", "dev", port)
        ip("link", "set", port, "up")
        ip("-n", name, "address", "add", f"{network}.2/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield Cable(f"/run/netns/{name}", f"{network}.2")
    finally:
        ip("netns", "delete", name)
        subprocess.run(["ip", "link", "delete", port], capture_output=True, check=False)


def _locked(cable: Cable) -> bool:
    inside = ["nsenter", f"--net={cable.path}", "nft", "list", "tables"]
    return "ocimig" in subprocess.run(inside, capture_output=True, text=True, check=True).stdout


def _serve(box: Box, cable: Cable) -> socket.socket:
    for space in box.bundle.linux["namespaces"]:
        if space["type"] == "network":
            space["path"] = cable.path
    box.run("serve", "5000")
    peer = socket.create_connection((cable.address, 5000), timeout=20)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def _ask(peer: socket.socket) -> int:
    peer.sendall(b"x")
    answer = b""
    while not answer.endswith(b"\n"):
        part = peer.recv(100)
        assert part, "the connection was closed"
        answer += part
    return int(answer)


def test_a_connection_outlives_the_container(box: Box, cable: Cable) -> None:
    """Gone, locked, restored: the peer's next byte is answered by the next number."""
    with _serve(box, cable) as peer:
        assert [_ask(peer) for _ in range(3)] == [1, 2, 3]
        box.checkpoint("--tcp-established")
        assert _locked(cable), "a packet of the peer would be answered with a reset"
        peer.sendall(b"x")  # into the void: it is sent again and again
        box.restore("--tcp-established")
        assert not _locked(cable)
        answer = b""
        while not answer.endswith(b"\n"):
            answer += peer.recv(100)
        assert int(answer) == 4
        assert [_ask(peer) for _ in range(3)] == [5, 6, 7]


def test_a_connection_goes_on_after_leave_running(box: Box, cable: Cable) -> None:
    """Frozen for a moment, no byte lost."""
    with _serve(box, cable) as peer:
        for number in range(1, 4):
            assert _ask(peer) == number
            box.checkpoint("--tcp-established", "--leave-running")
            assert not _locked(cable)
        assert _ask(peer) == 4


def test_a_killed_criu_does_not_cut_a_connection(box: Box, cable: Cable) -> None:
    """Its sockets are taken out of repair mode, its network is unlocked.

    Until then (milliseconds) the program reads EPERM: nobody but the dead CRIU held it still.
    """
    with _serve(box, cable) as peer:
        assert _ask(peer) == 1
        checkpoint = box.ocimig.popen(
            "checkpoint", "--tcp-established", "--image-path", box.image, box.id,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(
            lambda: list((box.image / ".partial").glob("core-*.img")), "a dump at work", 20, 0.0005
        )
        found = subprocess.run(
            ["pkill", "-KILL", "-P", str(checkpoint.pid), "criu"], capture_output=True, check=False
        )
        checkpoint.wait(timeout=60)
        if found.returncode == 0 and checkpoint.returncode:
            assert not _locked(cable)
            assert _ask(peer) == 2
            assert box.ocimig.status(box.id) == "running"


def test_tcp_close_drops_the_connection_and_keeps_the_listener(box: Box, cable: Cable) -> None:
    """For a container whose address does not follow."""
    with _serve(box, cable) as peer:
        assert _ask(peer) == 1
        box.checkpoint("--tcp-close")
    box.restore("--tcp-close")
    with socket.create_connection((cable.address, 5000), timeout=20) as peer:
        assert _ask(peer) > 1
