"""What CRIU reads of /proc/PID/smaps, ready before the freeze. Never changes a process.

Of smaps CRIU uses each mapping's line and its flags (VmFlags); the kernel counts every page of it beside that,
13 ms a GiB of 4 KiB pages. So the flags are read while the container runs; in the freeze only /proc/PID/maps,
whose lines tell which mappings are the ones that were seen; and while the images travel the real smaps is read
once more, to confirm. madvise(2) or mlock(2) of a whole mapping in the fraction of a second between would be
found there, and undoes the freeze.
"""

import os
import threading
from collections.abc import Iterable

from ocimig.files import Fd
from ocimig.migrate.memory.errors import MappingsChanged

_IGNORED = (b"sd",)  # soft-dirty: set by any write
_MARK = b"VmFlags: "


class Mappings:
    """The mappings of all processes of one container."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}
        self._used: dict[
            int, list[bytes]
        ] = {}  # flags that were given to CRIU, in order of address
        self._threads: list[threading.Thread] = []
        self._changed: list[int | BaseException] = []

    def look(self, pids: Iterable[int]) -> None:
        """Read the flags, before the freeze. A process that ends meanwhile is none."""
        for pid in pids:
            try:
                self._seen[pid] = _Seen(_read(pid, "smaps"))
            except (FileNotFoundError, ProcessLookupError):
                self._seen.pop(pid, None)

    def texts(self, pids: Iterable[int]) -> dict[int, bytes]:
        """In the freeze: what CRIU shall read as smaps, of those processes of which everything is known."""
        found = {}
        for pid in pids:
            seen = self._seen.get(pid)
            if seen is None:
                continue
            lines = _read(pid, "maps").splitlines()
            flags = seen.flags(lines)
            if flags is not None:
                self._used[pid] = flags
                text = [part for line, flag in zip(lines, flags, strict=True)
                        for part in (line, b"\n", _MARK, flag, b"\n")]  # fmt: skip
                found[pid] = b"".join(text)
        return found

    def start_to_confirm(self) -> None:
        """In the freeze, once CRIU is done with the processes: begin to read what is really there."""
        thread = threading.Thread(target=self._compare, daemon=True)
        self._threads.append(thread)
        thread.start()

    def confirm(self) -> None:
        """Wait for that. Raises MappingsChanged, or what went wrong; may be called again."""
        for thread in self._threads:
            thread.join()
        for found in self._changed:
            if isinstance(found, BaseException):
                raise found
            raise MappingsChanged(pid=found)

    def _compare(self) -> None:
        try:
            for pid, used in self._used.items():
                real = [flags for _, flags in _entries(_read(pid, "smaps"))]
                if list(map(_kept, real)) != list(map(_kept, used)):
                    self._changed.append(pid)
        except BaseException as error:  # noqa: BLE001  confirm() raises it
            self._changed.append(error)


class _Seen:
    """One look at the smaps of one process."""

    def __init__(self, text: bytes) -> None:
        self._by_line = dict(_entries(text))
        self._ranges = [
            (*_range(line), _backing(line), flags) for line, flags in self._by_line.items()
        ]

    def flags(self, lines: list[bytes]) -> list[bytes] | None:
        """Of the mappings that these lines of /proc/PID/maps are; None where one was not seen."""
        found = [self._by_line.get(line) for line in lines]
        if None in found:
            found = [
                self._of_part(line) if flags is None else flags
                for line, flags in zip(lines, found, strict=True)
            ]
        return None if None in found else [flags for flags in found if flags is not None]

    def _of_part(self, line: bytes) -> bytes | None:
        """Mappings grow, shrink and join only with those of the same flags: one that was seen at a part
        of the place, with the same rights and backing, tells."""
        start, end = _range(line)
        backing = _backing(line)
        found = {
            flags
            for other_start, other_end, other_backing, flags in self._ranges
            if other_start < end and start < other_end and other_backing == backing
        }
        return found.pop() if len(found) == 1 else None


def _entries(text: bytes) -> list[tuple[bytes, bytes]]:
    """(line of the mapping, its flags) in order of address."""
    found: list[tuple[bytes, bytes]] = []
    rest = b"\n" + text
    for part in rest.split(_MARK):
        flags, _, following = part.partition(b"\n")
        if found:
            found[-1] = (found[-1][0], flags.strip())
        if following:
            found.append((following.partition(b"\n")[0], b""))
    return found


def _range(line: bytes) -> tuple[int, int]:
    start, _, end = line.partition(b" ")[0].partition(b"-")
    return int(start, 16), int(end, 16)


def _backing(line: bytes) -> tuple[bytes, ...]:
    """Rights, device, inode and name; not the offset, which moves with the start."""
    words = line.split(None, 5)
    return (words[1], *words[3:])


def _kept(flags: bytes) -> tuple[bytes, ...]:
    return tuple(flag for flag in flags.split() if flag not in _IGNORED)


def _read(pid: int, name: str) -> bytes:
    found = []
    with Fd(os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)) as file:
        while part := os.read(file, 1 << 16):
            found.append(part)
    return b"".join(found)
