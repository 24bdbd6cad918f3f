"""What a userfaultfd says, kept where it survives its reader. Decides nothing.

The kernel writes each event straight into memory shared with the guard, so that there is no moment at
which an event was taken and is not on record: whoever takes over after a reader that died replays them.
Page faults are not kept, a fault that nobody answered is asked for again when its sleeper is woken.

    offset   field
    0        u64   1 when events were lost because the record was full
    64 + 40n u64   serial of the userfaultfd
    72 + 40n struct uffd_msg, 32 bytes (linux/userfaultfd.h); its first byte is 0 where the record ends
"""

import mmap
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

PAGEFAULT = 0x12
FORK = 0x13
REMAP = 0x14
REMOVE = 0x15
UNMAP = 0x16

_HEAD = 64
_SLOT = 40
_MESSAGE = struct.Struct("=B7xQQQ")
SIZE = 32 << 20  # of address space: memory is used as events come


class Event(NamedTuple):
    """`slot` is its number in the record. What the three words mean is the kernel's matter of each kind."""

    slot: int
    serial: int
    kind: int
    first: int
    second: int
    third: int

    @property
    def descriptor(self) -> int:
        """Of a FORK: the child's userfaultfd in the process that read the event."""
        return self.first & 0xFFFFFFFF


class Record:
    """The events of all userfaultfds of one restore, in the order in which they were read."""

    def __init__(self, size: int = SIZE) -> None:
        self._memory = mmap.mmap(-1, size)
        self._view = memoryview(self._memory)
        self._room = (size - _HEAD) // _SLOT
        self._next = 0

    @property
    def whole(self) -> bool:
        """Whether every event is in it."""
        return not self._memory[0]

    def read(self, fd: int, serial: int) -> Event | None:
        """The next event of a userfaultfd, or None when it has none."""
        slot = self._next
        if slot == self._room:
            self._memory[0] = 1
            slot -= 1
        place = _HEAD + slot * _SLOT
        struct.pack_into("=Q", self._memory, place, serial)
        try:
            os.readv(fd, [self._view[place + 8 : place + _SLOT]])
        except BlockingIOError:
            return None
        event = self._event(slot)
        if event.kind == PAGEFAULT:
            self._memory[place + 8] = 0
        else:
            self._next = slot + 1
        return event

    def replay(self) -> Iterator[Event]:
        """Everything that was read before, by whomever; reading goes on behind it."""
        for slot in range(self._room):
            event = self._event(slot)
            if event.kind in (0, PAGEFAULT):
                break
            self._next = slot + 1
            yield event

    def _event(self, slot: int) -> Event:
        place = _HEAD + slot * _SLOT
        (serial,) = struct.unpack_from("=Q", self._memory, place)
        return Event(slot, serial, *_MESSAGE.unpack_from(self._memory, place + 8))
