"""A dump without the memory that travels by other means, put together again with it."""

import os
import struct
from collections.abc import Mapping, Sequence

import pytest

from ocimig.criu_images import binary, features, pagemap
from ocimig.criu_images.errors import CriuFailed
from ocimig.criu_images.withheld import Withheld
from ocimig.migrate import checkpoint, withholding
from ocimig.migrate.checkpoint import CheckpointOptions
from ocimig.migrate.mappings import _Seen
from ocimig.migrate.memory.errors import MappingsChanged, MemoryUnaccounted
from ocimig.migrate.memory.runs import PAGE, Run, merge, subtract, total
from ocimig.migrate.withholding import stack_pages
from ocimig.runtime.store import Store
from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.busybox]
_PRESENT, _SWAPPED, _FILE = 1 << 63, 1 << 62, 1 << 61

_NAMES = ("", "[heap]", "[stack]")  # not [vdso], nor what else the kernel puts there


class Copy:
    """Withholds all private anonymous memory, and keeps what was left out."""

    def __init__(self) -> None:
        self.tasks: dict[int, int] = {}
        self.present: dict[int, list[Run]] = {}
        self.left_out: dict[int, list[Run]] = {}
        self.pages: dict[tuple[int, int], bytes] = {}  # (pid in the container, address)
        self.order: list[str] = []

    def withhold(self, tasks: Mapping[int, int]) -> Mapping[int, Sequence[Run]]:
        """Everything that may be lazy; which of it is there is noted for comparison."""
        self.order.append("withhold")
        self.tasks = dict(tasks)
        wanted = {pid: _anonymous(pid) for pid in tasks}
        for pid, runs in wanted.items():
            self.present[pid] = subtract(_present(pid, runs), stack_pages(pid))
        return wanted

    def withheld(self, runs: Mapping[int, Sequence[Run]]) -> None:
        """Read what CRIU did not."""
        self.order.append("withheld")
        self.left_out = {pid: list(found) for pid, found in runs.items()}
        for pid, found in runs.items():
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                for start, end in found:
                    for at in range(start, end, PAGE):
                        self.pages[self.tasks[pid], at] = os.pread(memory.fileno(), PAGE, at)

    def put_in(self, directory: str) -> None:
        """Make of the images classic ones: every lazy page present, its content in its place."""
        for vpid in self.tasks.values():
            path = os.path.join(directory, f"pagemap-{vpid}.img")
            found = pagemap.read(path)
            pages = os.path.join(directory, f"pages-{found.pages_id}.img")
            entries = []
            with open(pages, "rb") as old, open(f"{pages}.new", "wb") as new:
                for entry in found.entries:
                    if entry.flags & pagemap.PRESENT:
                        new.write(old.read(entry.pages * PAGE))
                    else:
                        new.writelines(
                            self.pages[vpid, at] for at in range(entry.start, entry.end, PAGE)
                        )
                    entries.append(entry._replace(flags=entry.flags | pagemap.PRESENT))
                assert not old.read()
            os.rename(f"{pages}.new", pages)
            pagemap.write(path, found._replace(entries=entries))


def _anonymous(pid: int) -> list[Run]:
    found = []
    start = end = 0
    eligible = False
    with open(f"/proc/{pid}/smaps") as smaps:
        for line in smaps:
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                start, end = (int(word, 16) for word in words[0].split("-"))
                name = words[5] if words[5:] else ""
                eligible = words[1][3] == "p" and words[4] == "0" and name in _NAMES
            elif words[0] == "VmFlags:" and eligible and not {"lo", "ht", "pf", "io"} & {*words}:
                found.append((start, end))
    return merge(found)


def _present(pid: int, runs: list[Run]) -> list[Run]:
    """By another way than the one CRIU asks: the entries of /proc/PID/pagemap. Zero pages do not count."""
    found = []
    zero = _zero_frame()
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as file:
        for start, end in runs:
            for at in range(start, end, PAGE):
                (entry,) = struct.unpack("<Q", os.pread(file.fileno(), 8, at // PAGE * 8))
                frame = entry & ((1 << 55) - 1)
                there = entry & (_PRESENT | _SWAPPED) and not entry & _FILE
                if there and not (entry & _PRESENT and frame == zero):
                    found.append((at, at + PAGE))
    return merge(found)


def _zero_frame() -> int:
    """The frame of the one page of zeros that everything unwritten shares."""
    import ctypes
    import mmap

    memory = mmap.mmap(-1, 16 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    assert memory[5 * PAGE] == 0  # reading maps it
    here = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(here) + 5 * PAGE
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        (entry,) = struct.unpack("<Q", os.pread(file.fileno(), 8, address // PAGE * 8))
    del here
    memory.close()
    assert isinstance(entry, int)
    return entry & ((1 << 55) - 1)


def _dump(box: Box, memory: Copy, *, leave_running: bool = False) -> checkpoint.Frozen:
    seen: list[checkpoint.Frozen] = []
    store = Store(str(box.ocimig.root))
    wanted = CheckpointOptions(
        image_path=str(box.image), seal=False, keep=True, leave_running=leave_running
    )
    checkpoint.checkpoint(store, box.id, wanted, on_frozen=seen.append, memory=memory)
    return seen[0]


@pytest.mark.parametrize("argv", [("count", "64"), ("family",), ("threads", "8")])
def test_memory_left_out_and_put_in_again_is_the_same(box: Box, argv: tuple[str, ...]) -> None:
    """Every page that was there is left out and told; with them the images restore as any others."""
    box.run(*argv)
    memory = Copy()
    frozen = _dump(box, memory)
    assert memory.order == ["withhold", "withheld"]
    assert memory.left_out == {pid: runs for pid, runs in memory.present.items() if runs}
    kept = sum(file.stat().st_size for file in box.image.glob("pages-*.img"))
    assert kept < 128 << 10  # pages of files that were written to, and those under a stack pointer
    memory.put_in(str(box.image))
    frozen.image.seal(frozen.manifest)
    box.ocimig("delete", "--force", box.id)
    box.restore()
    box.goes_on()
    numbers = [number for number, _ in box.lines()]
    assert numbers == list(range(len(numbers)))
    assert len({checksum for _, checksum in box.lines()}) == 1


@pytest.mark.parametrize("empty", [False, True], ids=["none", "empty"])
def test_without_a_list_in_time_everything_is_saved(
    box: Box, monkeypatch: pytest.MonkeyPatch, *, empty: bool
) -> None:
    """The slow way, not the wrong one."""
    box.run("count", "8")
    plain = Withheld.write
    monkeypatch.setattr(Withheld, "write", lambda self, *_: plain(self, {}) if empty else None)
    memory = Copy()
    frozen = _dump(box, memory)
    assert memory.left_out == {}
    frozen.image.seal(frozen.manifest)
    box.ocimig("delete", "--force", box.id)
    box.restore()
    box.goes_on()
    box.unbroken()


@pytest.mark.parametrize("tail", [b"", b"\0" * 23, b"\xff" * 24], ids=["short", "torn", "odd"])
def test_a_list_that_is_not_whole_fails_the_dump(
    box: Box, monkeypatch: pytest.MonkeyPatch, tail: bytes
) -> None:
    """CRIU gives up and the container runs on, rather than lose pages that nobody noted."""
    box.run("count", "8")

    def write(self: Withheld, *_: object) -> None:
        with open(os.path.join(self.directory, "withhold"), "wb") as file:
            file.write(b"ocimigW1" + struct.pack("<Q", 1) + tail)

    monkeypatch.setattr(Withheld, "write", write)
    with pytest.raises(CriuFailed):
        _dump(box, Copy(), leave_running=True)
    box.goes_on()
    assert not list(box.image.glob("*.img"))
    assert not (box.image / "withhold").exists()


def test_what_memory_refuses_lets_the_container_run_on(box: Box) -> None:
    """The owner of the memory has a veto while everything can still be taken back."""

    class Refusing(Copy):
        def withheld(self, runs: Mapping[int, Sequence[Run]]) -> None:
            raise MemoryUnaccounted(pid=min(runs))

    box.run("count", "8")
    with pytest.raises(MemoryUnaccounted):
        _dump(box, Refusing())
    box.goes_on()
    assert not box.locked()
    assert box.ocimig.status(box.id) == "running"


def test_a_kernel_without_pagemap_scan_is_helped_too(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CRIU then reads the entries of /proc/PID/pagemap; one of its faults makes it do so here."""
    plain = Withheld.environment
    monkeypatch.setattr(Withheld, "environment", lambda self: plain(self) | {"CRIU_FAULT": "135"})
    box.run("count", "8")
    memory = Copy()
    frozen = _dump(box, memory)
    for pid, runs in memory.present.items():
        assert not subtract(runs, memory.left_out[pid])
        assert total(memory.left_out[pid]) < total(runs) + (1 << 20)
    memory.put_in(str(box.image))
    frozen.image.seal(frozen.manifest)
    box.ocimig("delete", "--force", box.id)
    box.restore()
    box.goes_on()
    box.unbroken()


def test_mappings_that_changed_unseen_undo_the_freeze(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CRIU was told another flag than the kernel tells afterwards; here the kernel tells no words of its own."""
    monkeypatch.setattr(withholding, "_words", lambda: None)
    plain = _Seen.flags
    told: list[int] = []

    def flags(self: _Seen, lines: list[bytes]) -> list[bytes] | None:
        found = plain(self, lines)
        assert found is not None  # nothing new came in the moment between
        told.append(len(found))
        return [*found[:-1], found[-1] + b" dc"]

    monkeypatch.setattr(_Seen, "flags", flags)
    box.run("count", "8")
    with pytest.raises(MappingsChanged):
        _dump(box, Copy())
    assert told
    box.goes_on()
    assert not box.locked()


def test_a_criu_that_does_not_load_our_object_saves_everything(
    box: Box, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As one that is linked statically: slow, right, and said aloud."""
    monkeypatch.setattr(binary, "preload", lambda **_: {"UNKNOWN": "1"})
    assert not features.probe().withholds
    box.run("count", "8")
    memory = Copy()
    frozen = _dump(box, memory)
    assert "cannot leave memory out" in capfd.readouterr().err
    assert memory.left_out == {}
    frozen.image.seal(frozen.manifest)
    box.ocimig("delete", "--force", box.id)
    box.restore()
    box.goes_on()
    box.unbroken()
    monkeypatch.undo()
    assert features.probe().withholds
