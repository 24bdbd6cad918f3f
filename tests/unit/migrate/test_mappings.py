"""What CRIU is told about mappings without the kernel's counting."""

import mmap
import os
import subprocess
from collections.abc import Iterator

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


def test_a_process_that_ended_is_none() -> None:
    """Between the look and the freeze processes come and go."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
        here = Mappings()
        here.look([process.pid])
        assert here.texts([process.pid]) == {}
