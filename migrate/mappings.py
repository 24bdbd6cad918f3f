"""What CRIU reads of /proc/PID/smaps, ready before the freeze. Never changes a process.

Of smaps CRIU uses each mapping's line and its flags (VmFlags); the kernel counts every page of it beside that,
13 ms a GiB of 4 KiB pages. So the flags are read while the container runs; in the freeze only /proc/PID/maps,
whose lines tell which mappings are the ones that were seen. madvise(2) or mlock(2) of a whole mapping in the
fraction of a second between leave no trace there. Where the kernel tells its own word of flags for each mapping
(runtime/linux/vma_flags.py) equal words say that nothing changed; else the real smaps is read once more while
the images travel, to confirm, and a change undoes the freeze.
"""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from ocimig import log
from ocimig.files import Fd
from ocimig.migrate.memory.errors import MappingsChanged
from ocimig.migrate.memory.runs import Run

_IGNORED = (b"sd",)  # soft-dirty: set by any write
_MARK = b"\nVmFlags: "  # at the start of a line: a name may hold these words, but no end of line
_SOFT_DIRTY = 0x08000000  # include/linux/mm.h: VM_SOFTDIRTY, "sd"
_NO_MAPPING = b"[vsyscall]"  # of the kernel, at the end of every process


class Words(Protocol):
    """The kernel's own flags: VmaFlags."""

    def read(self, pid: int) -> Sequence[tuple[int, int, int]]:
        """(start, end, flags) of every mapping. Raises OSError."""
        ...


class Mappings:
    """The mappings of all processes of one container."""

    def __init__(self, words: Words | None = None) -> None:
        self._words = words
        self._seen: dict[int, _Seen] = {}
        # flags that were given to CRIU, in order of address, and have to be confirmed
        self._used: dict[int, list[bytes]] = {}
        self._threads: list[threading.Thread] = []
        self._changed: list[int | BaseException] = []

    def look(self, pids: Iterable[int]) -> None:
        """Read the flags, before the freeze. A process that ends meanwhile is none."""
        for pid in pids:
            before = self._now(pid)
            try:
                seen = self._seen[pid] = _Seen(_read(pid, "smaps"))
            except (FileNotFoundError, ProcessLookupError):
                self._seen.pop(pid, None)
                continue
            if before == self._now(pid):
                seen.words = before

    def _now(self, pid: int) -> dict[Run, int]:
        """The kernel's words by mapping; nothing where it does not tell."""
        if self._words is None:
            return {}
        try:
            return {(start, end): word for start, end, word in self._words.read(pid)}
        except OSError as error:
            log.debug(f"process {pid}: the flags of its mappings are confirmed by smaps: {error}")
            return {}

    def texts(self, pids: Iterable[int]) -> dict[int, bytes]:
        """In the freeze: what CRIU shall read as smaps, of those processes of which everything is known."""
        found = {}
        for pid in pids:
            seen = self._seen.get(pid)
            if seen is None:
                continue
            lines = _lines(_read(pid, "maps"))
            flags = seen.flags(lines)
            if flags is not None:
                if not seen.unchanged(lines, self._now(pid)):
                    self._used[pid] = flags
                text = [part for line, flag in zip(lines, flags, strict=True)
                        for part in (line, _MARK, flag, b"\n")]  # fmt: skip
                found[pid] = b"".join(text)
        return found

    def start_to_confirm(self) -> None:
        """In the freeze, once CRIU is done with the processes: begin to read what is really there."""
        if not self._used:
            return
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
        self.words: dict[Run, int] = {}  # at that moment, by mapping

    def flags(self, lines: list[bytes]) -> list[bytes] | None:
        """Of the mappings that these lines of /proc/PID/maps are; None where one was not seen."""
        found = [self._by_line.get(line) for line in lines]
        if None in found:
            found = [
                self._of_part(line) if flags is None else flags
                for line, flags in zip(lines, found, strict=True)
            ]
        return None if None in found else [flags for flags in found if flags is not None]

    def unchanged(self, lines: list[bytes], now: Mapping[Run, int]) -> bool:
        """Whether these mappings have the flags that those had which were seen, by the kernel's own words."""
        for line in lines:
            if line.endswith(_NO_MAPPING) and _backing(line)[-1] == _NO_MAPPING:
                continue
            word, known = now.get(_range(line)), self._words_of(line)
            if word is None or any((word ^ other) & ~_SOFT_DIRTY for other in known) or not known:
                return False
        return bool(self.words)

    def _words_of(self, line: bytes) -> list[int]:
        """Of the mapping as it was, or of those that were seen at a part of the place."""
        if line in self._by_line:
            ranges = [_range(line)]
        else:
            start, end = _range(line)
            backing = _backing(line)
            ranges = [
                (other_start, other_end)
                for other_start, other_end, other_backing, _ in self._ranges
                if other_start < end and start < other_end and other_backing == backing
            ]
        return [self.words[each] for each in ranges if each in self.words]

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
    for part in (b"\n" + text).split(_MARK):
        flags, _, following = part.partition(b"\n")
        if found:
            found[-1] = (found[-1][0], flags.strip())
        if following:
            found.append((following.partition(b"\n")[0], b""))
    return found


def _lines(text: bytes) -> list[bytes]:
    """Of the ends of line that Python knows, the kernel escapes only this one in names."""
    return text.removesuffix(b"\n").split(b"\n") if text else []


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
