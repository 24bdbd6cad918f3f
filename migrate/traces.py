"""What a migration leaves on a host, and how it is removed: every act may be done twice."""

import os
from collections.abc import Mapping
from typing import Any

from ocimig import files
from ocimig.migrate.journal import Journal
from ocimig.runtime.errors import NoSuchContainer
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store


def load(store: Store, id: str) -> ContainerState | None:
    """The facts of a container that may be gone."""
    try:
        return store.load(id)
    except NoSuchContainer:
        return None


def delete(store: Store, id: str) -> None:
    """Remove a container in whatever state."""
    from ocimig.runtime import lifecycle

    lifecycle.delete(store, id, force=True)


def disconnect(facts: Mapping[str, Any]) -> None:
    """Remove what `network.connect` built."""
    from ocimig.migrate import network

    network.disconnect(facts)


def discard(path: str) -> None:
    """Remove a tree; one that is not there, or a name that is empty, is fine."""
    if path:
        files.remove_tree(path)


def discard_images(entry: Journal) -> None:
    """Remove the images and, where it is not the journal's, the directory made for them."""
    images = str(entry.facts.get("images", ""))
    discard(images)
    home = os.path.dirname(images)
    if os.path.basename(home) == entry.migration and home != entry.home:
        discard(home)
