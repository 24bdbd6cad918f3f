"""What a container's network is asked to be, before anything is built."""

import pytest

from ocimig.migrate import network, network_arp
from ocimig.migrate.errors import InvalidNetwork
from ocimig.migrate.network import NetworkConfig


def test_a_short_description_is_read() -> None:
    """The bridge and the address are enough; the rest has defaults."""
    config = network.parse("bridge=br0,address=10.0.0.5/24")
    assert config == NetworkConfig("br0", "10.0.0.5/24")
    assert (config.interface, config.mtu, config.ip) == ("eth0", 0, "10.0.0.5")


def test_every_field_is_read() -> None:
    """All fields can be given, in any order, with blanks around them."""
    text = "mtu=1400, gateway=10.0.0.1,mac=02:00:00:00:00:05,interface=net0,address=10.0.0.5/24,bridge=b"
    assert network.parse(text) == NetworkConfig(
        "b", "10.0.0.5/24", "02:00:00:00:00:05", "10.0.0.1", "net0", 1400
    )


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "network"),
        ("bridge", "bridge"),
        ("bridge=br0", "address"),
        ("address=10.0.0.5/24", "bridge"),
        ("bridge=br0,address=10.0.0.5", "address"),
        ("bridge=br0,address=10.0.0.0/24", "address"),
        ("bridge=br0,address=ten/24", "address"),
        ("bridge=br0,address=fd00::5/64", "address"),
        ("bridge=br0,address=10.0.0.5/24,address=10.0.0.6/24", "address"),
        ("bridge=br0,address=10.0.0.5/24,gateway=10.0.1.1", "gateway"),
        ("bridge=br0,address=10.0.0.5/24,gateway=10.0.0.5", "gateway"),
        ("bridge=br0,address=10.0.0.5/24,mac=03:00:00:00:00:05", "mac"),
        ("bridge=br0,address=10.0.0.5/24,mac=02:00:00:00:05", "mac"),
        ("bridge=br0,address=10.0.0.5/24,mac=02:00:00:00:00:0g", "mac"),
        ("bridge=br0,address=10.0.0.5/24,mtu=12", "mtu"),
        ("bridge=br0,address=10.0.0.5/24,mtu=x", "mtu"),
        ("bridge=a/b,address=10.0.0.5/24", "bridge"),
        ("bridge=0123456789abcdef,address=10.0.0.5/24", "bridge"),
        ("bridge=br0,address=10.0.0.5/24,adress=1", "adress"),
    ],
)
def test_a_description_that_cannot_be_built_names_its_field(text: str, field: str) -> None:
    """The error says which field is wrong, never what the kernel would have said."""
    with pytest.raises(InvalidNetwork) as caught:
        network.parse(text)
    assert caught.value.fields["field"] == field
    assert caught.value.code == 2


def test_annotations_carry_the_same() -> None:
    """What the command line says of a network, the annotations of config.json can say too."""
    config = network.parse("bridge=br0,address=10.0.0.5/24,mtu=1400")
    annotations = {
        "other": "x",
        "org.ocimig.network.bridge": "br0",
        "org.ocimig.network.address": "10.0.0.5/24",
        "org.ocimig.network.mtu": "1400",
    }
    assert network.from_annotations(annotations) == config


def test_a_bundle_without_annotations_has_no_network() -> None:
    """Annotations of other programs are none of ours."""
    assert network.from_annotations({"org.example": "1"}) is None


def test_the_mac_follows_from_id_and_address() -> None:
    """The same container has the same MAC on every host; another one has another."""
    config = NetworkConfig("br0", "10.0.0.5/24")
    first = config.settled("c1")
    assert first.mac.startswith("02:")
    assert first == config.settled("c1")
    assert first.mac != config.settled("c2").mac
    assert first.settled("c2") == first


def test_facts_hold_the_configuration() -> None:
    """State files of later versions may hold more facts; the configuration is found in them."""
    config = NetworkConfig("br0", "10.0.0.5/24").settled("c1")
    facts = {**{name: getattr(config, name) for name in NetworkConfig.__slots__}, "port": "x"}
    assert network.from_facts(facts) == config


def test_an_arp_frame_names_its_sender() -> None:
    """What is sent can be read back; anything else is not taken for an answer."""
    data = network_arp.frame(2, b"\x02\0\0\0\0\x05", b"\x0a\0\0\x05", b"\xff" * 6, b"\x0a\0\0\x05")
    assert len(data) == 42
    assert network_arp.sender(data) == ("02:00:00:00:00:05", "10.0.0.5")
    assert network_arp.sender(data[:41]) is None
    assert network_arp.sender(b"\xff" * 60) is None


def test_the_announcement_is_repeated_as_qemu_does() -> None:
    """Five rounds, each later than the one before, all within a second."""
    assert network_arp.round_gaps() == [50, 150, 250, 350]
    assert network_arp.round_gaps(rounds=8)[-1] == 550
