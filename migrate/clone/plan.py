"""What copies of a checkpoint are called and how they differ from their source. Pure; touches nothing."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Interface
from typing import Any

from ocimig.criu_images.image import Manifest
from ocimig.migrate.clone.errors import NotClonable
from ocimig.migrate.network import NetworkConfig
from ocimig.migrate.restore_request import mapped, spaces
from ocimig.runtime.store import check_id

LONGEST_HOST_NAME = 64  # __NEW_UTS_LEN
# Without one of its own a copy would take from another what only one can have.
_OWN = {
    "pid": "its processes need the numbers that they had",
    "network": "its sockets need the addresses that they had",
    "mount": "its files would be the host's",
}


def names(container: str, wanted: Sequence[str], count: int) -> list[str]:
    """What the copies are called: `wanted` if those are several, else numbers after the one or after the
    container's own name. `count` is 0 where none was given. Raises ValueError in words, and InvalidId."""
    if count < 0 or (len(wanted) > 1 and count not in (0, len(wanted))):
        raise ValueError(f"{len(wanted)} names for {count} copies")
    found = list(wanted)
    if len(found) < 2:
        prefix = found[0] if found else container
        found = [f"{prefix}-{number}" for number in range(1, (count or 1) + 1)]
    for name in found:
        check_id(name)
        if len(name) > LONGEST_HOST_NAME:
            raise ValueError(f"{name} is longer than a host name can be ({LONGEST_HOST_NAME})")
    if len(set(found)) < len(found):
        raise ValueError("a name is given twice")
    return found


def networks(first: NetworkConfig, count: int) -> list[NetworkConfig]:
    """One for each copy: addresses are counted on from the first, the gateway's is passed over.

    Raises ValueError in words where there are not so many."""
    if count > 1 and first.mac:
        raise ValueError("one mac for several copies; leave it out")
    interface = IPv4Interface(first.address)
    network = interface.network
    found: list[NetworkConfig] = []
    address = interface.ip
    while len(found) < count:
        last = address == network.broadcast_address and network.prefixlen < 31
        if address not in network or last:
            raise ValueError(f"{network} has no {count} addresses from {interface.ip} on")
        if str(address) != first.gateway:
            found.append(replace(first, address=f"{address}/{network.prefixlen}"))
        address += 1
    return found


def require(image: str, config: Mapping[str, Any]) -> None:
    """Raise NotClonable where copies would share what only one can have."""
    own = spaces(config)
    for kind, reason in _OWN.items():
        if own.get(kind) != "":
            raise NotClonable(
                image=image,
                reason=f"it has no {kind} namespace of its own, and {reason}",
                remedy="restore it once: ocimig restore",
            )


def configuration(
    config: Mapping[str, Any], name: str, *, bundle: str, root: str
) -> dict[str, Any]:
    """config.json of one copy: another host name, cgroup and root file system.

    `bundle` is the source's: what is bound from a place relative to it is bound from there."""
    linux = dict(config.get("linux") or {})
    if linux.get("cgroupsPath"):
        linux["cgroupsPath"] = _beside(str(linux["cgroupsPath"]), name)
    found = {**config, "linux": linux, "root": {**config["root"], "path": root}}
    if renamed(config):
        found["hostname"] = name
    if config.get("mounts"):
        found["mounts"] = [_absolute(mount, bundle) for mount in config["mounts"]]
    return found


def comes_late(manifest: Manifest, config: Mapping[str, Any]) -> bool:
    """Whether memory can come after the restore: all of it in these images, of users that are the host's."""
    return manifest.parent is None and not mapped(config)


def renamed(config: Mapping[str, Any]) -> bool:
    """Whether a copy gets a host name of its own: only in a namespace of its own."""
    return spaces(config).get("uts") == ""


def _beside(path: str, name: str) -> str:
    """The cgroup of a copy: next to its source's."""
    if path.count(":") == 2:  # slice:prefix:name, as systemd has it
        return path.rpartition(":")[0] + ":" + name
    return os.path.join(os.path.dirname(path.rstrip("/")), name)


def _absolute(mount: Mapping[str, Any], bundle: str) -> Mapping[str, Any]:
    words = mount.get("options") or []
    source = str(mount.get("source") or "")
    bound = mount.get("type") == "bind" or "bind" in words or "rbind" in words
    if not bound or not source or os.path.isabs(source):
        return mount
    return {**mount, "source": os.path.join(bundle, source)}
