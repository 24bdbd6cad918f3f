"""The network of a container that is being made: what --net, its annotations or its image ask for."""

import os
from collections.abc import Callable
from typing import Any

from ocimig.criu_images.image import CheckpointImage
from ocimig.migrate import network, network_arp
from ocimig.runtime import validate


def connector(text: str, config: str, id: str) -> Callable[[int], dict[str, Any]] | None:
    """What builds the network once the process `pid` has its namespaces; its facts go to the state."""
    if text:
        wanted: network.NetworkConfig | None = network.parse(text)
    else:
        wanted = network.from_annotations(validate.load(config).get("annotations") or {})
    if wanted is None:
        return None
    found = wanted

    def connect(pid: int) -> dict[str, Any]:
        namespace = network.open_namespace(pid)
        try:
            return _connect(namespace, found, id)
        finally:
            os.close(namespace)

    return connect


def restorer(image: str, id: str) -> Callable[[int], dict[str, Any]] | None:
    """What builds, in a namespace, the network that ocimig had built for the container in the image."""
    saved = (CheckpointImage(image).manifest().facts.get("state") or {}).get("network")
    if not saved:
        return None
    config = network.from_facts(saved)

    def connect(netns: int) -> dict[str, Any]:
        return _connect(netns, config, id)

    return connect


def _connect(netns: int, config: network.NetworkConfig, id: str) -> dict[str, Any]:
    """Neighbours may remember the MAC of a container that had the address before: tell them the new one."""
    facts = network.connect(netns, config, id)
    network_arp.announce(netns, network.from_facts(facts)).close()
    return facts
