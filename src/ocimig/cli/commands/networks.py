"""The network of a container that is being created: what --net or its annotations ask for."""

import os
from collections.abc import Callable
from typing import Any

from ocimig.migrate import network
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
            return network.connect(namespace, found, id)
        finally:
            os.close(namespace)

    return connect
