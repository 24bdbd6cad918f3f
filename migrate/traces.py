"""What a migration leaves on a host, and how it is removed: every act may be done twice."""

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ocimig import files
from ocimig.files import Fd
from ocimig.migrate.journal import Journal
from ocimig.runtime.errors import NoSuchContainer
from ocimig.runtime.linux import mount
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


def pin(entry: Journal, netns: int) -> None:
    """Keep a network namespace until unpin(), whoever dies.

    The kernel takes the lock out of a namespace that goes before it takes the interfaces: what came to a
    container that was killed would be answered with a reset as long as its port is in the bridge.
    """
    path = _pin(entry)
    with Fd(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)):
        mount.mount(f"/proc/self/fd/{netns}", path, flags=mount.MS_BIND)


def unpin(entry: Journal) -> None:
    """Let the namespace go with the last who is in it; fine where none was kept."""
    try:
        mount.umount2(_pin(entry), mount.MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):  # EINVAL: not mounted, after a reboot
            raise
    with suppress(FileNotFoundError):
        os.unlink(_pin(entry))


def _pin(entry: Journal) -> str:
    return os.path.join(entry.home, "netns")


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
