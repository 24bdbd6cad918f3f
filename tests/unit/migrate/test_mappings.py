"""What CRIU is told about mappings without the kernel's counting."""

import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.migrate import mappings
from ocimig.migrate.mappings import Mappings, _Seen
from ocimig.migrate.memory.errors import MappingsChanged

_SMAPS = b"""\
10000-20000 rw-p 00000000 00:00 0
Size:                 64 kB
VmFlags: rd wr mr mw me ac sd
20000-30000 rw-p 00000000 00:00 0
Size:                 64 kB
VmFlags: rd wr mr mw me dc ac
40000-50000 r--p 00001000 fe:00 77                                 /usr/lib/a b.so
Size:                 64 kB
VmFlags: rd mr mw me
"""  # fmt: skip


@pytest.fixture
def cat() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that stands still."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.read(1)  # it has started, and loads nothing any more
        yield process


def _lines(*ranges: tuple[str, str]) -> list[bytes]:
    return [f"{range} {rest}".encode() for range, rest in ranges]


_PLAIN = "rw-p 00000000 00:00 0 "


def test_mappings_that_were_seen_have_their_flags() -> None:
    """Each line as the kernel writes it in both files."""
    seen = _Seen(_SMAPS)
    lines = [line for line in _SMAPS.splitlines() if b"-p " in line]
    assert seen.flags(lines) == [
        b"rd wr mr mw me ac sd", b"rd wr mr mw me dc ac", b"rd mr mw me",
    ]  # fmt: skip


def test_one_that_grew_shrank_or_was_split_keeps_its_flags() -> None:
    """The kernel joins only mappings of the same flags."""
    seen = _Seen(_SMAPS)
    assert seen.flags(_lines(("8000-18000", _PLAIN))) == [b"rd wr mr mw me ac sd"]
    assert seen.flags(_lines(("28000-29000", _PLAIN))) == [b"rd wr mr mw me dc ac"]


@pytest.mark.parametrize(
    ("range", "rest"),
    [
        ("60000-70000", _PLAIN),  # new
        ("18000-28000", _PLAIN),  # of two that differed
        ("10000-20000", "r--p 00000000 00:00 0 "),  # other rights
        ("40000-50000", "r--p 00001000 fe:00 78 /usr/lib/a b.so"),  # another file
    ],
)
def test_one_that_cannot_be_known_makes_the_process_unknown(range: str, rest: str) -> None:
    """CRIU then reads the real file."""
    assert _Seen(_SMAPS).flags(_lines((range, rest))) is None


def test_the_text_is_that_of_smaps_without_the_counting(cat: "subprocess.Popen[bytes]") -> None:
    """Every line of a mapping and every flag of a real process, and it confirms."""
    here = Mappings()
    here.look([cat.pid])
    text = here.texts([cat.pid])[cat.pid]
    real = mappings._entries(mappings._read(cat.pid, "smaps"))
    assert mappings._entries(text) == real
    assert len(real) > 10
    here.start_to_confirm()
    here.confirm()


def test_a_flag_that_changed_in_between_is_found() -> None:
    """MADV_DONTFORK over a whole mapping leaves no trace in its line."""
    with mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        here = Mappings()
        here.look([os.getpid()])
        memory.madvise(mmap.MADV_DONTFORK)
        assert os.getpid() in here.texts([os.getpid()])
        here.start_to_confirm()
        with pytest.raises(MappingsChanged):
            here.confirm()


class Told:
    """What the kernel says of its own flags, until a test changes it."""

    def __init__(self) -> None:
        self.words = [
            (0x10000, 0x20000, 0x73),
            (0x20000, 0x30000, 0x20073),
            (0x40000, 0x50000, 0x71),
        ]

    def read(self, _pid: int) -> list[tuple[int, int, int]]:
        """See Words."""
        return self.words


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """A process of three mappings, one of them the kernel's own in name only."""
    maps = b"".join(line + b"\n" for line in _SMAPS.splitlines() if b"-p " in line)
    vsyscall = b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n"
    files = {"smaps": _SMAPS + vsyscall + b"VmFlags: ex\n", "maps": maps + vsyscall}
    monkeypatch.setattr(mappings, "_read", lambda _pid, name: files[name])
    return Told()


def confirms_by_smaps(here: Mappings) -> bool:
    """Whether the real smaps has to be read again."""
    here.texts([7])
    here.start_to_confirm()
    here.confirm()
    return bool(here._threads)


def test_equal_words_need_no_second_look(told: Told) -> None:
    """That memory was written since (soft-dirty) is no change."""
    here = Mappings(told)
    here.look([7])
    told.words = [(0x10000, 0x20000, 0x73 | 0x08000000), *told.words[1:]]
    assert not confirms_by_smaps(here)


@pytest.mark.parametrize(
    "changed",
    [
        [(0x10000, 0x20000, 0x73), (0x20000, 0x30000, 0x73), (0x40000, 0x50000, 0x71)],
        [(0x10000, 0x20000, 0x73), (0x20000, 0x30000, 0x20073)],
        [(0x10000, 0x18000, 0x73), (0x20000, 0x30000, 0x20073), (0x40000, 0x50000, 0x71)],
        [],
    ],
    ids=["another word", "one is not told", "another place", "nothing is told any more"],
)
def test_whatever_else_the_words_say_smaps_has_to_confirm(
    told: Told, changed: list[tuple[int, int, int]]
) -> None:
    """Here it does: the text of the file is as it was."""
    here = Mappings(told)
    here.look([7])
    told.words = changed
    assert confirms_by_smaps(here)


def test_words_that_changed_during_the_look_are_none(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nobody knows which of them the letters belong to."""
    here = Mappings(told)
    read = mappings._read

    def changing(pid: int, name: str) -> bytes:
        told.words = [(0x10000, 0x20000, 0x20073), *told.words[1:]]
        return read(pid, name)

    monkeypatch.setattr(mappings, "_read", changing)
    here.look([7])
    monkeypatch.setattr(mappings, "_read", read)
    assert confirms_by_smaps(here)


def test_a_part_of_a_mapping_has_the_word_of_the_whole() -> None:
    """One that grew over another of the same kind has to have the words of both."""
    seen = _Seen(_SMAPS)
    seen.words = {(0x10000, 0x20000): 0x73, (0x20000, 0x30000): 0x20073, (0x40000, 0x50000): 0x71}
    grown = _lines(("8000-18000", _PLAIN))
    assert seen.unchanged(grown, {(0x8000, 0x18000): 0x73})
    assert not seen.unchanged(grown, {(0x8000, 0x18000): 0x20073})
    both = _lines(("18000-28000", _PLAIN))
    assert not seen.unchanged(both, {(0x18000, 0x28000): 0x73})
    assert not seen.unchanged(_lines(("60000-70000", _PLAIN)), {(0x60000, 0x70000): 0x73})


def test_a_kernel_that_does_not_tell_is_not_asked_twice(told: Told) -> None:
    """Without privileges or BTF it is as before."""

    class Refused:
        def read(self, _pid: int) -> list[tuple[int, int, int]]:
            raise OSError(1, "Operation not permitted")

    for words in (None, Refused()):
        here = Mappings(words)
        here.look([7])
        assert confirms_by_smaps(here)


def test_a_process_that_ended_is_none() -> None:
    """Between the look and the freeze processes come and go."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
        here = Mappings()
        here.look([process.pid])
        assert here.texts([process.pid]) == {}


@pytest.mark.parametrize("name", ["VmFlags: rd", "a\rb", "VmFlags: \r0 -w-s 0 0 x"])
def test_a_container_names_its_files_as_it_likes(tmp_path: Path, name: str) -> None:
    """What looks like a line or a word of the kernel in a name is a part of the name."""
    (tmp_path / name).write_bytes(bytes(4096))
    with (tmp_path / name).open("rb") as file:
        with mmap.mmap(file.fileno(), 4096, access=mmap.ACCESS_READ):
            here = Mappings()
            here.look([os.getpid()])
            entries = mappings._entries(here.texts([os.getpid()])[os.getpid()])
            flags = {line.rpartition(b"/")[2]: found.split()[0] for line, found in entries}
            assert flags[os.fsencode(name)] == b"rd"


def test_a_file_with_the_name_of_a_mapping_of_the_kernel_is_a_file() -> None:
    """Whoever calls it so cannot keep a change of its flags from being looked for."""
    line = b"40000-50000 r--p 00001000 fe:00 77 /tmp/a [vsyscall]"
    seen = _Seen(line + b"\nVmFlags: rd mr\n")
    seen.words = {(0x40000, 0x50000): 0x71}
    assert seen.unchanged([line], {(0x40000, 0x50000): 0x71})
    assert not seen.unchanged([line], {(0x40000, 0x50000): 0x20071})
