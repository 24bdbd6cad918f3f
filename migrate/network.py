"""A container's network: one veth pair, a bridge, an address and a MAC. Never filters packets.

The container's end carries the address and the MAC and follows the container to another host; the
host's end is a port of a bridge. Until `attach` the pair is complete but joined to nothing, so that
the far side of a migration can be ready while the address still answers here.
"""

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from ocimig.migrate.errors import BridgeMissing, InvalidNetwork, NetworkFailed, NotABridge

ANNOTATION = "org.ocimig.network."
INTERFACE_NAME = 15  # IFNAMSIZ without the terminating byte


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What a container's network has to look like, on whatever host it runs."""

    bridge: str
    address: str  # with its prefix: 10.0.0.5/24
    mac: str = ""  # made from the id and the address when empty
    gateway: str = ""
    interface: str = "eth0"
    mtu: int = 0  # the bridge's when 0

    def __post_init__(self) -> None:
        """Refuse what the kernel would refuse later, in words."""
        _check_name("bridge", self.bridge)
        _check_name("interface", self.interface)
        try:
            interface = IPv4Interface(self.address)
        except ValueError:
            reason = "it has to be an IPv4 address with its prefix, as 10.0.0.5/24"
            raise InvalidNetwork(field="address", value=self.address, reason=reason) from None
        if "/" not in self.address:
            reason = f"the prefix is missing, as {self.address}/24"
            raise InvalidNetwork(field="address", value=self.address, reason=reason)
        if interface.ip == interface.network.network_address and interface.network.prefixlen < 31:
            reason = "that is the address of the network, not of a host in it"
            raise InvalidNetwork(field="address", value=self.address, reason=reason)
        if self.gateway:
            _check_gateway(self.gateway, interface)
        if self.mac:
            _check_mac(self.mac)
        if self.mtu and not 68 <= self.mtu <= 65535:
            reason = "it has to be between 68 and 65535"
            raise InvalidNetwork(field="mtu", value=str(self.mtu), reason=reason)

    @property
    def ip(self) -> str:
        """The address without its prefix."""
        return str(IPv4Interface(self.address).ip)

    def settled(self, id: str) -> "NetworkConfig":
        """The same with the MAC decided: what is not given follows from the id and the address."""
        if self.mac:
            return self
        digest = hashlib.sha256(f"ocimig mac {id} {self.ip}".encode()).digest()
        return replace(self, mac="02:" + digest[:5].hex(":"))


def _check_name(field: str, value: str) -> None:
    if not value:
        raise InvalidNetwork(field=field, value=value, reason="it is missing")
    if (
        len(value) > INTERFACE_NAME
        or value in (".", "..")
        or any(char in "/:" or char.isspace() or not char.isprintable() for char in value)
    ):
        reason = (
            f"an interface name has up to {INTERFACE_NAME} characters, no slash, colon or space"
        )
        raise InvalidNetwork(field=field, value=value, reason=reason)


def _check_gateway(gateway: str, interface: IPv4Interface) -> None:
    try:
        there = IPv4Address(gateway)
    except ValueError:
        raise InvalidNetwork(
            field="gateway", value=gateway, reason="it has to be an IPv4 address"
        ) from None
    if there not in interface.network or there == interface.ip:
        reason = f"it has to be another address of {interface.network}"
        raise InvalidNetwork(field="gateway", value=gateway, reason=reason)


def _check_mac(mac: str) -> None:
    parts = mac.split(":")
    digits = "0123456789abcdefABCDEF"
    if len(parts) != 6 or any(len(part) != 2 or part.strip(digits) for part in parts):
        reason = "it has to be six pairs of hexadecimal digits, as 02:00:00:00:00:05"
        raise InvalidNetwork(field="mac", value=mac, reason=reason)
    if int(parts[0], 16) & 1:
        reason = "that is a multicast address; make the first pair even, as 02"
        raise InvalidNetwork(field="mac", value=mac, reason=reason)


def parse(text: str) -> NetworkConfig:
    """`bridge=br0,address=10.0.0.5/24[,mac=..][,gateway=..][,interface=eth0][,mtu=1500]`."""
    values: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals:
            raise InvalidNetwork(
                field=name or "network", value=text, reason="write it as name=value"
            )
        if name in values:
            raise InvalidNetwork(field=name, value=value, reason="it is given twice")
        values[name] = value
    return from_values(values)


def from_values(values: Mapping[str, Any]) -> NetworkConfig:
    """A configuration from a mapping of its fields; a field that does not exist is an error."""
    known = [field.name for field in fields(NetworkConfig)]
    for name in values:
        if name not in known:
            reason = f"there is no such field; these are: {', '.join(known)}"
            raise InvalidNetwork(field=name, value=str(values[name]), reason=reason)
    for name in ("bridge", "address"):
        if name not in values:
            raise InvalidNetwork(field=name, value="", reason="it is missing")
    mtu = str(values.get("mtu", "0"))
    if not (mtu.isascii() and mtu.isdigit()):
        raise InvalidNetwork(field="mtu", value=mtu, reason="it has to be a number")
    texts = {name: str(value) for name, value in values.items() if name != "mtu"}
    return NetworkConfig(**texts, mtu=int(mtu))


def from_annotations(annotations: Mapping[str, str]) -> NetworkConfig | None:
    """What `org.ocimig.network.*` asks for; None where there is no such annotation."""
    found = {
        name.removeprefix(ANNOTATION): value
        for name, value in annotations.items()
        if name.startswith(ANNOTATION)
    }
    return from_values(found) if found else None


def from_facts(facts: Mapping[str, Any]) -> NetworkConfig:
    """The configuration that `connect` carried out, with its MAC decided."""
    return from_values({field.name: facts[field.name] for field in fields(NetworkConfig)})


@contextmanager
def inside(netns: int) -> Iterator[None]:
    """Let this thread make its sockets in another network namespace.

    A socket stays where it was made, so the block is short; other threads are not moved.
    """
    from ocimig.runtime.linux import namespaces

    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(netns, namespaces.CLONE_NEWNET)
        try:
            yield
        finally:
            namespaces.setns(own, namespaces.CLONE_NEWNET)
    finally:
        os.close(own)


def open_namespace(pid: int) -> int:
    """A descriptor of the network namespace of a process."""
    return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def new_namespace() -> int:
    """A descriptor of a new network namespace, its loopback up; it lives as long as the descriptor."""
    from ocimig.runtime.linux import namespaces

    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        try:
            fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            namespaces.setns(own, namespaces.CLONE_NEWNET)
    finally:
        os.close(own)
    try:
        with inside(fd):
            inner = _routes()
        with inner:
            _set_up(inner, "lo")
    except BaseException:
        os.close(fd)
        raise
    return fd


def connect(netns: int, config: NetworkConfig, id: str, *, attached: bool = True) -> dict[str, Any]:
    """Build the pair and everything on it; returns the facts that the other functions want.

    With `attached` false the host's end is up but no port of the bridge yet. Whatever was made is
    removed again when a step fails.
    """
    config = config.settled(id)
    port = _port_name(id, os.fstat(netns).st_ino)
    with _routes() as host:
        bridge = _bridge(host, config.bridge)
        if not config.mtu:
            config = replace(config, mtu=int(bridge.get_attr("IFLA_MTU")))
        facts = {**asdict(config), "port": port, "alias": _alias(id)}
        _make_pair(host, netns, config, port)
        try:
            host.link("set", ifname=port, ifalias=facts["alias"])
            with inside(netns):
                inner = _routes()
            with inner:
                _set_up_inside(inner, config)
            _set_up(host, port)
            if attached:
                host.link("set", ifname=port, master=bridge["index"])
        except BaseException as error:
            _delete(host, port)
            if isinstance(error, Exception):
                raise _failure(f"connect {config.interface} to {config.bridge}", error) from error
            raise
    return facts


def attach(facts: Mapping[str, Any]) -> None:
    """Make the host's end a port of its bridge; a second call changes nothing."""
    with _routes() as host:
        bridge = _bridge(host, facts["bridge"])
        _link_set(host, facts, master=bridge["index"])


class Port:
    """The host's end, held ready where time counts: `attach` is one message to the kernel."""

    __slots__ = ("_bridge", "_facts", "_host")

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts
        self._host = _routes()
        try:
            self._bridge = _bridge(self._host, facts["bridge"])["index"]
        except BaseException:
            self._host.close()
            raise

    def attach(self) -> None:
        """Make it a port of its bridge."""
        _link_set(self._host, self._facts, master=self._bridge)

    def close(self) -> None:
        """It is of no more use; the port stays as it is."""
        self._host.close()


def detach(facts: Mapping[str, Any]) -> None:
    """Take the host's end out of the bridge: nothing enters or leaves, the addresses stay."""
    with _routes() as host:
        _link_set(host, facts, master=0)


def disconnect(facts: Mapping[str, Any]) -> None:
    """Remove the pair. Fine when it is gone already; never removes what somebody else made."""
    with _routes() as host:
        link = _link(host, facts["port"])
        if link is not None and link.get_attr("IFLA_IFALIAS") == facts["alias"]:
            _delete(host, facts["port"])


def bridge_facts(name: str) -> dict[str, Any]:
    """For preflight: is there such a bridge here, is it up, which addresses has it."""
    with _routes() as host:
        link = _link(host, name)
        if link is None:
            return {"name": name, "kind": "", "up": False, "mtu": 0, "addresses": []}
        info = link.get_attr("IFLA_LINKINFO")
        return {
            "name": name,
            "kind": (info.get_attr("IFLA_INFO_KIND") if info else "") or "device",
            "up": bool(link["flags"] & 1),
            "mtu": int(link.get_attr("IFLA_MTU")),
            "addresses": [
                address.get_attr("IFA_ADDRESS")
                for address in host.get_addr(index=link["index"])
                if address["family"] == 2
            ],
        }


def _port_name(id: str, namespace: int) -> str:
    """A name nobody else has: the same id may live in two state roots of one host."""
    return "oci" + hashlib.sha256(f"{id} {namespace}".encode()).hexdigest()[:12]


def _alias(id: str) -> str:
    return f"ocimig container {id}"[:255]


def _routes() -> Any:
    from pyroute2 import IPRoute  # 120 ms: only where a network is built

    return IPRoute()


def _link(routes: Any, name: str) -> Any:
    from pyroute2 import NetlinkError

    try:
        return next(iter(routes.link("get", ifname=name)), None)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise


def _bridge(routes: Any, name: str) -> Any:
    link = _link(routes, name)
    if link is None:
        raise BridgeMissing(bridge=name)
    info = link.get_attr("IFLA_LINKINFO")
    if info is None or info.get_attr("IFLA_INFO_KIND") != "bridge":
        raise NotABridge(bridge=name)
    return link


def _make_pair(host: Any, netns: int, config: NetworkConfig, port: str) -> None:
    peer = {
        "ifname": config.interface,
        "address": config.mac,
        "mtu": config.mtu,
        "net_ns_fd": netns,
    }
    # A bridge takes the lowest MAC of its ports for its own and its neighbours would have to learn
    # it anew; no port's MAC is lower for starting with fe.
    mac = "fe:" + config.mac[3:]
    try:
        host.link("add", ifname=port, kind="veth", address=mac, mtu=config.mtu, peer=peer)
    except Exception as error:
        raise _failure(f"make the veth pair {port} and {config.interface}", error) from error


def _set_up_inside(inner: Any, config: NetworkConfig) -> None:
    _set_up(inner, "lo")
    link = _link(inner, config.interface)
    interface = IPv4Interface(config.address)
    inner.addr(
        "add", index=link["index"], address=str(interface.ip), prefixlen=interface.network.prefixlen
    )
    _set_up(inner, config.interface)
    if config.gateway:
        inner.route("add", dst="default", gateway=config.gateway, oif=link["index"])


def _set_up(routes: Any, name: str) -> None:
    routes.link("set", ifname=name, state="up")


def _link_set(host: Any, facts: Mapping[str, Any], **values: Any) -> None:
    try:
        host.link("set", ifname=facts["port"], **values)
    except Exception as error:
        raise _failure(f"change the port {facts['port']} of {facts['bridge']}", error) from error


def _delete(host: Any, name: str) -> None:
    from pyroute2 import NetlinkError

    try:
        host.link("del", ifname=name)
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise


def _failure(what: str, error: Exception) -> Exception:
    """pyroute2's error as ours; anything that is no refusal of the kernel stays what it is."""
    code = getattr(error, "code", None) or getattr(error, "errno", None)
    if not isinstance(code, int):
        return error
    return NetworkFailed(what=what, reason=os.strerror(code).lower())
