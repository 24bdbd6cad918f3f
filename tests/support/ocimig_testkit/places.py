"""A place in memory that does its durable steps one by one, and what power cuts and full disks make of it.

disk = Disk(); place = MemoryPlace(disk)
disk.fail_at = 7             the 7th step from the first raises ENOSPC, and all later ones that write
disk.cut_at = 7              the power fails instead of the 7th step: PowerCut, and nothing works any more
MemoryPlace(disk.survivors(Random(3)))   what may be there afterwards: of what was not synced any part
"""

import errno
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

from ocimig.errors import NoSpace
from ocimig.migrate.store import rooms
from ocimig.migrate.store.errors import FileMissing, FileShort, NameTaken, PlaceFailed, StoreLocked
from ocimig.migrate.store.local import RENAME, SYNC, SYNC_DIRECTORY, UNLINK, WRITE
from ocimig.migrate.store.place import QUARANTINE, ROOMS, SNAPSHOTS

SYNC_REMOVED = "sync-removed"  # a directory out of which something was taken: that needs no room


class PowerCut(BaseException):
    """The machine is off. No `except Exception` lives through it."""


class Node:
    """The bytes of one file, and how many of them are on the disk for sure."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.safe = 0


Entry = tuple[str, tuple[str, str], Node | None]  # a room, a name in it, what it names or None


class Disk:
    """Names and bytes as programs see them, and as they would be found after a power cut."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, str], Node] = {}
        self.safe: dict[tuple[str, str], Node] = {}  # what was synced
        self.pending: list[Entry] = []
        self.steps: list[tuple[str, str]] = []
        self.fail_at = 0
        self.cut_at = 0
        self.off = False
        self.shared = 0
        self.alone = False
        self.purposes: list[str] = []

    def step(self, act: str, room: str) -> None:
        """`act` is about to be done. Raises PowerCut, or ENOSPC where it needs room."""
        if self.off:
            raise PowerCut
        self.steps.append((SYNC_DIRECTORY if act == SYNC_REMOVED else act, room))
        if self.cut_at and len(self.steps) >= self.cut_at:
            self.off = True
            raise PowerCut
        if self.fail_at and len(self.steps) >= self.fail_at and act not in (UNLINK, SYNC_REMOVED):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def name(self, room: str, name: str, node: Node | None) -> None:
        """A name is given or taken away; durable with sync() of its room."""
        if node is None:
            self.names.pop((room, name), None)
        else:
            self.names[room, name] = node
        self.pending.append((room, (room, name), node))

    def sync(self, room: str) -> None:
        """The names in a room are durable from here on."""
        for entry in self.pending:
            if entry[0] == room:
                _apply(self.safe, entry)
        self.pending = [entry for entry in self.pending if entry[0] != room]

    def survivors(self, chance: random.Random) -> "Disk":
        """What a power cut now may leave: of unsynced names any, in any order; of unsynced bytes any part."""
        found = dict(self.safe)
        kept = [entry for entry in self.pending if chance.random() < 0.5]
        chance.shuffle(kept)
        for entry in kept:
            _apply(found, entry)
        after = Disk()
        for key, node in found.items():
            left = Node()
            left.data = bytearray(node.data[: chance.randint(node.safe, len(node.data))])
            if chance.random() < 0.5:  # allocated, never written
                left.data[node.safe :] = bytes(len(left.data) - node.safe)
            left.safe = len(left.data)
            after.names[key] = after.safe[key] = left
        return after


def _apply(names: dict[tuple[str, str], Node], entry: Entry) -> None:
    _, key, node = entry
    if node is None:
        names.pop(key, None)
    else:
        names[key] = node


class MemoryPlace:
    """See place.Place."""

    def __init__(self, disk: Disk | None = None, *, words: str = "memory") -> None:
        self.words = words
        self.disk = disk or Disk()

    def names(self, room: str) -> list[str]:
        """See Place."""
        if room not in ROOMS:
            raise ValueError(room)
        self._on()
        return [name for where, name in self.disk.names if where == room]

    def size(self, room: str, name: str) -> int:
        """See Place."""
        return len(self._node(room, name).data)

    def read(self, room: str, name: str, offset: int = 0, size: int = -1) -> bytes:
        """See Place."""
        data = self._node(room, name).data
        end = len(data) if size < 0 else offset + size
        if offset > len(data) or end > len(data):
            raise FileShort(place=self.words, file=rooms.shown(room, name))
        return bytes(data[offset:end])

    def make(self, room: str) -> "MemoryMaking":
        """See Place."""
        if room not in ROOMS:
            raise ValueError(room)
        self._on()
        return MemoryMaking(self, room)

    def remove(self, room: str, name: str) -> None:
        """See Place."""
        rooms.check(room, name)
        self._on()
        self.disk.step(UNLINK, room)
        self.disk.name(room, name, None)
        self.disk.step(SYNC_REMOVED, room)
        self.disk.sync(room)

    def quarantine(self, room: str, name: str) -> None:
        """See Place."""
        node = self._node(room, name)
        with self._told():
            self.disk.step(RENAME, QUARANTINE)
            self.disk.name(QUARANTINE, name, node)
            self.disk.name(room, name, None)
            for each in (QUARANTINE, room):
                self.disk.step(SYNC_DIRECTORY, each)
                self.disk.sync(each)

    @contextmanager
    def lock(self, *, exclusive: bool, purpose: str) -> Iterator[None]:
        """See Place."""
        self._on()
        disk = self.disk
        if disk.alone or (exclusive and disk.shared):
            raise StoreLocked(place=self.words, holders="; ".join(disk.purposes))
        disk.alone, disk.shared = exclusive, disk.shared + 1
        if exclusive:
            disk.sync(SNAPSHOTS)
        disk.purposes.append(purpose)
        try:
            yield
        finally:
            disk.alone, disk.shared = False, disk.shared - 1
            disk.purposes.remove(purpose)

    def holders(self) -> list[str]:
        """See Place."""
        return list(self.disk.purposes)

    def free(self) -> int:
        """See Place."""
        return 0 if self.disk.fail_at else 1 << 40

    def close(self) -> None:
        """See Place."""

    def _on(self) -> None:
        if self.disk.off:
            raise PowerCut

    def _node(self, room: str, name: str) -> Node:
        rooms.check(room, name)
        self._on()
        try:
            return self.disk.names[room, name]
        except KeyError:
            raise FileMissing(place=self.words, file=rooms.shown(room, name)) from None

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise NoSpace(path=self.words) from None


class MemoryMaking:
    """See place.Making."""

    def __init__(self, place: MemoryPlace, room: str) -> None:
        self._place = place
        self._room = room
        self._node = Node()
        self._whole = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See Making."""
        with self._place._told():
            try:
                self._place.disk.step(WRITE, self._room)
            except BaseException:
                self._whole = False
                raise
            self._node.data += data

    def commit(self, name: str) -> None:
        """See Making."""
        rooms.check(self._room, name)
        disk, place, room = self._place.disk, self._place, self._room
        if not self._whole:
            raise PlaceFailed(place=place.words, reason="a part of the file was not written")
        place._on()
        if (room, name) in disk.names:
            raise NameTaken(place=place.words, file=rooms.shown(room, name))
        self._whole = False
        with place._told():
            disk.step(SYNC, room)
            self._node.safe = len(self._node.data)
            disk.step(RENAME, room)
            disk.name(room, name, self._node)
            try:
                disk.step(SYNC_DIRECTORY, room)
            except OSError:
                disk.name(room, name, None)
                raise
            disk.sync(room)

    def __enter__(self) -> "MemoryMaking":
        return self

    def __exit__(self, *_: object) -> None:
        self._whole = False
