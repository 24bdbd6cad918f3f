"""Where the files of a store lie: the protocol that a directory here and one behind SSH fulfil alike.

A place knows names and bytes, and nothing of what is in them. One contract suite
(tests/contract/test_place.py) holds every implementation to what is written here.
"""

from contextlib import AbstractContextManager
from typing import Protocol

TOP = ""  # the room of STORE itself
KEYS, PACKS, SNAPSHOTS, QUARANTINE = "keys", "packs", "snapshots", "quarantine"
ROOMS = (TOP, KEYS, PACKS, SNAPSHOTS, QUARANTINE)


class Making(Protocol):
    """A file on its way into a place. Leaving the `with` block without commit() leaves nothing behind."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append. Raises NoSpace, PlaceFailed."""
        ...

    def commit(self, name: str) -> None:
        """Give it its name: durable, whole, or not at all. Raises NameTaken where there is one."""
        ...

    def __enter__(self) -> "Making": ...

    def __exit__(self, *_: object) -> None: ...


class Place(Protocol):
    """The files of one store.

    Names are plain file names; how they spread over directories is the place's own business. Every
    method raises PlaceFailed with the words of the system for what it does not name here.
    """

    words: str  # what people call it: a path, or ssh://host/path

    def names(self, room: str) -> list[str]:
        """The names in a room, in no order; a room that was never used is empty."""
        ...

    def size(self, room: str, name: str) -> int:
        """Bytes. Raises FileMissing."""
        ...

    def read(self, room: str, name: str, offset: int = 0, size: int = -1) -> bytes:
        """`size` bytes from `offset` on, or all that follow. Raises FileMissing, FileShort."""
        ...

    def make(self, room: str) -> Making:
        """Begin a file."""
        ...

    def remove(self, room: str, name: str) -> None:
        """Remove a file; fine when it is gone already. Works on a full disk."""
        ...

    def quarantine(self, room: str, name: str) -> None:
        """Move a file out of the way, into QUARANTINE, under its name."""
        ...

    def lock(self, *, exclusive: bool, purpose: str) -> AbstractContextManager[None]:
        """Hold the store, shared or alone. Raises StoreLocked at once where others are in the way, with
        who they are. The holder of the exclusive lock has removed what crashes left in the making."""
        ...

    def holders(self) -> list[str]:
        """Who holds the store now, in words."""
        ...

    def free(self) -> int:
        """Bytes that may still be written there."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...
