"""Images that are damaged on purpose, and one look at them with everything that reads images."""

import errno
import os
import random
import re
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ocimig.cli import inspect_document, inspect_html, inspect_text
from ocimig.cli.inspect_document import Document, Wanted
from ocimig.criu_images import compare, contents, corefile, mappings, tree
from ocimig.criu_images.descriptors import Files
from ocimig.criu_images.errors import MemoryElsewhere
from ocimig.criu_images.opened import ImageDirectory, Images
from ocimig.errors import OcimigError

_EVERYTHING = Wanted(0, True, True, True, True, True, True)
# What a file system says to a sparse file that is larger than it can be.
_TOO_LARGE = {errno.EFBIG, errno.ENOSPC, errno.EINVAL, errno.EOVERFLOW}
_NUMBERS = [0, 1, 2, 127, 128, 4095, 4096, 1 << 31, (1 << 32) - 1, 1 << 47, 1 << 62, 1 << 63,
            (1 << 64) - 4096, (1 << 64) - 1]  # fmt: skip


Opener = Callable[[Path], AbstractContextManager[Images]]


def directory_of(path: Path) -> ImageDirectory:
    """The images where they are."""
    return ImageDirectory(str(path))


def look(path: Path, other: Path, scratch: Path, opened: Opener = directory_of) -> int:
    """Read all there is, by every way there is; how many of them said that the image is bad.

    `opened` may put the images of a directory elsewhere first. Anything but an error of ours is what the campaign looks for, and comes out of here.
    """
    refused = 0
    for way in (_inspect, _memory, _core, _extract, _diff):
        try:
            way(path, other, scratch, opened)
        except OcimigError:
            refused += 1
        except OSError as error:
            if error.errno not in _TOO_LARGE or way not in (_core, _extract):
                raise
    return refused


def _inspect(path: Path, other: Path, scratch: Path, opened: Opener) -> None:
    with opened(path) as directory:
        for _ in inspect_document.json_text(Document(directory, _EVERYTHING)):
            pass
        for line in inspect_text.lines(Document(directory, _EVERYTHING)):
            assert line.isprintable(), line
        inspect_html.page(Document(directory, _EVERYTHING))


def _memory(path: Path, other: Path, scratch: Path, opened: Opener) -> None:
    with opened(path) as directory:
        files = Files(directory)
        for process in tree.processes(directory):
            if mappings.has_memory(directory, process.pid):
                find = contents.expression(re.compile(rb"[a-z]{4}"))
                for _ in contents.search(directory, process.pid, files, find, 8):
                    pass


def _core(path: Path, other: Path, scratch: Path, opened: Opener) -> None:
    target = scratch / "core"
    target.unlink(missing_ok=True)
    with opened(path) as directory:
        pid = tree.processes(directory)[0].pid
        corefile.write(directory, pid, Files(directory), str(target))


def _extract(path: Path, other: Path, scratch: Path, opened: Opener) -> None:
    target = scratch / "extracted"
    with opened(path) as directory:
        files, pid = Files(directory), tree.processes(directory)[0].pid
        ranges = [(each.start, each.end) for each in mappings.of(directory, pid, files)][:8]
        for each in ranges:
            target.unlink(missing_ok=True)
            try:
                contents.extract(directory, pid, files, [each], str(target))
            except MemoryElsewhere:
                pass  # as it is in the undamaged images


def _diff(path: Path, other: Path, scratch: Path, opened: Opener) -> None:
    with opened(path) as one, opened(other) as two:
        a, b = compare.Side(one), compare.Side(two)
        for _ in compare.differences(a, b):
            pass
        for _ in compare.pages(b, a):
            pass


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """A case that takes more time of the processor is a hang; so is one that waits twenty times as long."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"more than {seconds} seconds")

    timers = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    previous = {number: signal.signal(number, stop) for number in timers}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 20 * seconds)
    try:
        yield
    finally:
        for number, timer in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, previous[number])


class Fuzzer:
    """A directory with the images of a case: those of `base` and of an overlay, some of them damaged."""

    def __init__(self, corpus: Path, room: Path, dice: random.Random) -> None:
        self.base = corpus / "kinds"
        self.overlays = sorted(each for each in corpus.iterdir() if each != self.base)
        self.case = room / "case"
        self.scratch = room / "scratch"
        self.dice = dice
        self.above = room / "above"
        for directory in (self.case, self.scratch, self.above):
            directory.mkdir(exist_ok=True)
        self.pool = [each.read_bytes() for each in sorted(self.base.iterdir())]

    def fresh(self, overlay: Path | None = None) -> None:
        """An undamaged case."""
        for old in self.case.iterdir():
            old.rmdir() if old.is_dir() and not old.is_symlink() else old.unlink()
        for source in (self.base, overlay):
            for each in sorted(source.iterdir()) if source else ():
                (self.case / each.name).write_bytes(each.read_bytes())

    def next(self) -> None:
        """A new case."""
        self.fresh(self.dice.choice([None, *self.overlays]))
        names = sorted(each.name for each in self.case.iterdir())
        if self.dice.random() < 0.3:
            self._parent()
        for _ in range(self.dice.choice([1, 1, 1, 2, 4])):
            path = self.case / self.dice.choice(names)
            if self.dice.random() < 0.03:
                self._odd(path)
            elif path.is_file() and not path.is_symlink():
                path.write_bytes(self.damaged(path.read_bytes()))

    def _parent(self) -> None:
        """A parent whose own list of pages may be damaged, and which may have a parent."""
        for each in self.base.iterdir():
            (self.above / each.name).write_bytes(each.read_bytes())
        path = self.above / "pagemap-1.img"
        if self.dice.random() < 0.7:
            path.write_bytes(self.damaged(path.read_bytes()))
        os.symlink("../above", self.case / "parent")
        if self.dice.random() < 0.1 and not os.path.lexists(self.above / "parent"):
            os.symlink(self.dice.choice(["../case", "../above", "/"]), self.above / "parent")

    def look(self, opened: Opener = directory_of) -> int:
        """At the case."""
        return look(self.case, self.base, self.scratch, opened)

    def _odd(self, path: Path) -> None:
        """No file, or none that is regular."""
        if path.is_dir() and not path.is_symlink():
            return
        path.unlink(missing_ok=True)
        acts: list[Callable[[], None]] = [
            lambda: None,
            path.mkdir,
            lambda: os.mkfifo(path),
            lambda: os.symlink("/dev/zero", path),
            lambda: os.symlink("../case", self.case / f"parent{self.dice.choice(['', '2'])}"),
        ]
        try:
            self.dice.choice(acts)()
        except FileExistsError:
            pass  # the link is there from an earlier change

    def damaged(self, data: bytes) -> bytes:
        """One or a few changes, more often inside an entry, with its length put right, than not."""
        for _ in range(self.dice.choice([1, 1, 2, 8])):
            records = _split(data)
            if records and self.dice.random() < 0.7:
                number = self.dice.randrange(len(records))
                act = self.dice.choice(["change", "change", "change", "drop", "again", "swap"])
                if act == "change":
                    records[number] = self._bytes(records[number])
                elif act == "drop":
                    del records[number]
                elif act == "again":
                    records[number:number] = [records[number]] * self.dice.choice([1, 3, 50])
                else:
                    records[number], records[0] = records[0], records[number]
                data = data[:8] + b"".join(struct.pack("<I", len(r)) + r for r in records)
            else:
                data = self._bytes(data)
        return data

    def _bytes(self, data: bytes) -> bytes:
        dice = self.dice
        at = dice.randrange(len(data) + 1)
        kind = dice.randrange(7)
        if kind == 0:
            return data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
        if kind == 1:
            return data[:at]
        if kind == 2:
            return data[:at] + dice.randbytes(dice.randrange(1, 16)) + data[at:]
        if kind == 3:
            return data[:at] + data[at + dice.randrange(1, 16) :]
        if kind == 4:
            return data[:at] + _varint(dice.choice(_NUMBERS)) + data[at + 1 :]
        if kind == 5:
            other = dice.choice(self.pool)
            begin = dice.randrange(len(other) + 1)
            return data[:at] + other[begin : begin + dice.randrange(64)] + data[at:]
        return data[:at] + data[at : at + 40] * dice.choice([2, 20]) + data[at:]


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _split(data: bytes) -> list[bytes]:
    """The entries behind a head of eight bytes, as far as they are whole."""
    found, at = [], 8
    while at + 4 <= len(data):
        length = struct.unpack_from("<I", data, at)[0]
        if at + 4 + length > len(data):
            break
        found.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return found
