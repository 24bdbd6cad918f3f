"""Which memory CRIU keeps out of a dump, and which it did keep out. The other side of preload/withhold.c;
never reads memory itself.

    <directory>/withhold    "ocimigW1", u64 count, count times {u64 pid, u64 start, u64 end}; sorted
    <directory>/withheld    any number of {u64 pid, u64 start, u64 end}, as CRIU asked; may overlap. Whole ranges,
                            also of pages that do not exist, where CRIU asks by PAGEMAP_SCAN
    <directory>/smaps-PID   what CRIU reads in place of /proc/PID/smaps, where there is one (haste.c)

Little endian, addresses in bytes, ends exclusive, pids as the host counts them. A shared object (anonymous
memory that processes share) has in place of a pid: bit 63, the minor number of the kernel's device for it from
bit 40 on, its inode; its runs are offsets in it. `withhold` is put in place whole, by a rename, while CRIU
waits; CRIU fails on one that is not whole, and where it cannot write `withheld`.
"""

import functools
import mmap
import os
import struct
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ocimig import files
from ocimig.criu_images import binary
from ocimig.criu_images.errors import BadImage, CriuMissing
from ocimig.files import Fd

Run = tuple[int, int]
_HEAD = struct.Struct("<8sQ")
_RECORD = struct.Struct("<QQQ")
_MAGIC = b"ocimigW1"
_SHARED = 1 << 63
_INODE_BITS = 40
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Withheld:
    """One dump's two files, in a directory that is ours alone. Made before CRIU starts."""

    def __init__(self, directory: str) -> None:
        self._wanted = os.path.join(directory, "withhold")
        self._log = os.path.join(directory, "withheld")
        self.directory = os.path.abspath(directory)
        self._mappings: list[str] = []
        self.remove()
        with Fd(os.open(self._log, _FLAGS, 0o600)):
            pass

    def environment(self) -> dict[str, str]:
        """For CRIU; raises CriuMissing where the shared object is not compiled."""
        found = binary.preload(dump=True)
        if not found:
            raise CriuMissing(reason=f"{binary.PRELOAD} is not compiled (make init)")
        return found | {"OCIMIG_WITHHELD": self.directory}

    def write(
        self,
        ranges: Mapping[int, Iterable[Run]],
        shared: Mapping[int, Iterable[Run]] = MappingProxyType({}),
    ) -> None:
        """What to withhold, by host pid, and by inode. To be called while CRIU waits, once. The runs of
        one of them have to be sorted and disjoint."""
        keyed = dict(ranges)
        keyed.update({_shared_key(inode): runs for inode, runs in shared.items()})
        packed = [
            _RECORD.pack(key, start, end)
            for key in sorted(keyed)
            for start, end in keyed[key]
            if start < end
        ]
        new = f"{self._wanted}.new"
        _put(new, _HEAD.pack(_MAGIC, len(packed)) + b"".join(packed))
        os.rename(new, self._wanted)

    def write_mappings(self, pid: int, text: bytes) -> None:
        """What CRIU shall read as the smaps of a process. To be called while CRIU waits."""
        path = f"{self.directory}/smaps-{pid}"
        self._mappings.append(path)
        _put(path, text)

    def read(self) -> dict[int, list[Run]]:
        """What CRIU was not told of: by host pid, sorted and disjoint. Raises BadImage."""
        return {key: runs for key, runs in self._read().items() if not key & _SHARED}

    def read_shared(self) -> dict[int, list[Run]]:
        """The same of shared objects, by inode."""
        mask = (1 << _INODE_BITS) - 1
        return {key & mask: runs for key, runs in self._read().items() if key & _SHARED}

    def _read(self) -> dict[int, list[Run]]:
        with open(self._log, "rb") as file:
            text = file.read()
        if len(text) % _RECORD.size:
            raise BadImage(path=self._log, reason="it ends in the middle of a record")
        found: dict[int, list[Run]] = {}
        for pid, start, end in _RECORD.iter_unpack(text):
            if start >= end:
                raise BadImage(path=self._log, reason="it has a run that ends before it begins")
            found.setdefault(pid, []).append((start, end))
        return {pid: joined(runs) for pid, runs in found.items()}

    def remove(self) -> None:
        """All of them; fine when there are none."""
        for path in (self._wanted, f"{self._wanted}.new", self._log, *self._mappings):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass


def _shared_key(inode: int) -> int:
    return _SHARED | _device() << _INODE_BITS | inode


@functools.cache
def _device() -> int:
    """The minor number of the device that all anonymous shared memory of this host is on; its major is 0."""
    with mmap.mmap(-1, mmap.PAGESIZE), open("/proc/self/maps", encoding="utf-8") as maps:
        words = next(line.split() for line in maps if line.endswith("/dev/zero (deleted)\n"))
        return int(words[3].partition(":")[2], 16)


def _put(path: str, data: bytes) -> None:
    with Fd(os.open(path, _FLAGS, 0o600)) as file:
        files.write_all(file, data)


def joined(runs: Iterable[Run]) -> list[Run]:
    """Sorted; what touches or overlaps is one run."""
    found: list[Run] = []
    for start, end in sorted(runs):
        if found and start <= found[-1][1]:
            if end > found[-1][1]:
                found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found
