"""The veth pair, its bridge and its ARP, on the kernel."""

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from ocimig.migrate import network, network_arp
from ocimig.migrate.errors import BridgeMissing, NetworkFailed, NotABridge
from ocimig_testkit import Bundle, Ocimig, until

pytestmark = [pytest.mark.root, pytest.mark.netns]


def ip(*words: str) -> str:
    """Run ip(8)."""
    return subprocess.run(
        ["ip", *words], check=True, capture_output=True, text=True, timeout=10
    ).stdout


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge with an address and an uplink of its own, removed afterwards."""
    name = f"obr{os.getpid()}"
    ip("link", "add", name, "type", "bridge")
    try:
        ip("link", "add", f"u{name}", "type", "veth", "peer", f"v{name}")
        ip("link", "set", f"u{name}", "master", name, "up")
        ip("address", "add", "10.213.7.1/24", "dev", name)
        ip("link", "set", name, "up")
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", f"u{name}"], check=False, timeout=10)
        ip("link", "delete", name)


@pytest.fixture
def netns() -> Iterator[int]:
    """A new network namespace."""
    fd = network.new_namespace()
    yield fd
    os.close(fd)


def reaches(netns: int, address: str) -> bool:
    """A TCP connection from inside the namespace to a listener on `address` succeeds."""
    with socket.socket() as server:
        server.bind((address, 0))
        server.listen()
        with network.inside(netns):
            client = socket.socket()
        with client:
            client.settimeout(0.5)
            return client.connect_ex(server.getsockname()) == 0


def config_on(bridge: str) -> network.NetworkConfig:
    """A container's network on the bridge of the test."""
    return network.parse(f"bridge={bridge},address=10.213.7.5/24,gateway=10.213.7.1")


def test_a_connected_container_reaches_the_bridge(bridge: str, netns: int) -> None:
    """Address, MAC, route and link are there; after disconnect nothing is left."""
    facts = network.connect(netns, config_on(bridge), "c1")
    # The kernel looks at most once a second which ports have become ready (net/core/link_watch.c).
    until(lambda: reaches(netns, "10.213.7.1"), "the port to be ready", 10)
    assert network_arp.holder(bridge, "10.213.7.5") == facts["mac"]
    assert facts["mtu"] == 1500
    network.disconnect(facts)
    network.disconnect(facts)
    assert facts["port"] not in ip("link")
    with network.inside(netns):
        names = [name for _, name in socket.if_nameindex()]
    assert names == ["lo"]


def test_a_pair_that_is_not_attached_is_silent(bridge: str, netns: int) -> None:
    """The address answers only while the port is in the bridge; attach and detach may be repeated."""
    facts = network.connect(netns, config_on(bridge), "c1", attached=False)
    try:
        assert network_arp.holder(bridge, "10.213.7.5") == ""
        network.attach(facts)
        network.attach(facts)
        until(lambda: network_arp.holder(bridge, "10.213.7.5"), "the port to be ready", 10)
        assert network_arp.holder(bridge, "10.213.7.5") == facts["mac"]
        network.detach(facts)
        network.detach(facts)
        assert network_arp.holder(bridge, "10.213.7.5") == ""
    finally:
        network.disconnect(facts)


def test_the_bridge_keeps_its_mac(bridge: str, netns: int) -> None:
    """A container that comes does not change the bridge's own MAC, which its neighbours know."""
    with open(f"/sys/class/net/{bridge}/address") as file:
        before = file.read()
    facts = network.connect(netns, config_on(bridge), "c1")
    try:
        with open(f"/sys/class/net/{bridge}/address") as file:
            after = file.read()
    finally:
        network.disconnect(facts)
    assert before == after


def test_a_missing_bridge_says_how_to_make_it(netns: int) -> None:
    """The message names the bridge, the hint makes it."""
    with pytest.raises(BridgeMissing, match="nosuchbr0") as caught:
        network.connect(netns, config_on("nosuchbr0"), "c1")
    assert "ip link add nosuchbr0 type bridge" in caught.value.advice


def test_something_else_than_a_bridge_is_refused(netns: int) -> None:
    """The loopback device is no bridge."""
    with pytest.raises(NotABridge):
        network.connect(netns, config_on("lo"), "c1")


def test_a_failed_step_leaves_nothing(bridge: str, netns: int) -> None:
    """An interface of that name in the namespace is refused and the half-made pair is removed."""
    facts = network.connect(netns, config_on(bridge), "c1")
    try:
        with pytest.raises(NetworkFailed, match="exists"):
            network.connect(netns, config_on(bridge), "c2")
        assert ip("link").count("ocimig container") == 1
    finally:
        network.disconnect(facts)


def test_disconnect_never_removes_what_is_not_ours(bridge: str, netns: int) -> None:
    """A port whose alias says something else stays."""
    facts = network.connect(netns, config_on(bridge), "c1")
    network.disconnect({**facts, "alias": "somebody else"})
    assert facts["port"] in ip("link")
    network.disconnect(facts)


def test_an_announcement_reaches_the_bridge(bridge: str, netns: int) -> None:
    """Both forms of gratuitous ARP arrive, so that old neighbours and new ones learn it."""
    facts = network.connect(netns, config_on(bridge), "c1")
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as heard:
            heard.bind((bridge, 0x0806))
            heard.settimeout(2)
            announcer = network_arp.announce(netns, network.from_facts(facts))
            frames = [heard.recv(100), heard.recv(100)]
            waits: list[float] = []
            announcer.rest(waits.append)
            announcer.close()
    finally:
        network.disconnect(facts)
    assert [network_arp.sender(frame) for frame in frames] == [(facts["mac"], "10.213.7.5")] * 2
    assert announcer.sent == 10
    assert waits == [0.05, 0.15, 0.25, 0.35]


@pytest.mark.init
def test_a_new_container_corrects_what_neighbours_remember(
    bridge: str, ocimig: Ocimig, bundle: Bundle
) -> None:
    """Its address belonged to another container a moment ago, with another MAC."""
    ip("neigh", "replace", "10.213.7.5", "lladdr", "02:00:00:00:00:01", "dev", bridge,
       "nud", "stale")  # fmt: skip
    net = f"bridge={bridge},address=10.213.7.5/24,mac=02:00:00:00:00:77"
    ocimig.launch(bundle, "--net", net)
    until(lambda: "02:00:00:00:00:77" in ip("neigh", "show", "dev", bridge), "the new MAC", 2)
