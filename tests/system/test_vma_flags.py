"""The flags of mappings by a BPF iterator, against what /proc tells of the same process."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.runtime.linux.vma_flags import Unavailable, VmaFlags
from ocimig_testkit.source import ROOT

pytestmark = [pytest.mark.root]

PAGE = os.sysconf("SC_PAGE_SIZE")
A_BUFFER = (PAGE << 3) // 24  # mappings the kernel hands out at once

VM_READ, VM_WRITE, VM_EXEC, VM_MAYSHARE = 0x1, 0x2, 0x4, 0x80
VM_LOCKED, VM_DONTCOPY, VM_DONTDUMP = 0x2000, 0x20000, 0x4000000

# Does what it reads: a function of the C library and numbers, or something with threads. A mapping of
# 16 pages is there from the beginning.
CHILD = """
import ctypes, mmap, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_long
page = mmap.PAGESIZE
area = libc.mmap(None, ctypes.c_size_t(16 * page), 3, 0x22, -1, ctypes.c_long(0))
room = libc.mmap(None, ctypes.c_size_t(40000 * page), 0, 0x4022, -1, ctypes.c_long(0))
libc.munmap(ctypes.c_void_p(room), ctypes.c_size_t(40000 * page))
made = 0
def more(count):
    # pages with a hole between them: the kernel joins none of them
    global made
    for made in range(made, made + count):
        at = room + 2 * made * page
        assert libc.mmap(ctypes.c_void_p(at), ctypes.c_size_t(page), 1, 0x100022, -1, ctypes.c_long(0)) == at
    made += 1
def threads(count, alone):
    def body():
        alone and libc.unshare(0x400)  # CLONE_FILES
        ready.wait()
        threading.Event().wait()
    ready = threading.Barrier(count + 1)
    for _ in range(count):
        threading.Thread(target=body, daemon=True).start()
    ready.wait()
print(hex(area), flush=True)
for line in iter(sys.stdin.readline, ""):
    name, *words = line.split()
    numbers = [int(word, 0) for word in words]
    if name in globals():
        globals()[name](*numbers)
    elif getattr(libc, name)(*(ctypes.c_size_t(number) for number in numbers)):
        raise OSError(ctypes.get_errno(), name)
    print("done", flush=True)
"""


class Child:
    """A process that does what a test says, and waits in between."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-IS", "-c", CHILD],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self._process.pid
        self.area = int(self._answer(), 16)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the child ended"
        return line

    def do(self, *words: object) -> None:
        """One order, done when this returns."""
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)
        assert self._answer() == "done\n"

    def kill(self) -> None:
        """End it; it stays a zombie until `reap`."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def reap(self) -> None:
        """End it, whatever it did before."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def child() -> Iterator[Child]:
    """A process that waits for orders."""
    made = Child()
    yield made
    made.reap()


@pytest.fixture(scope="module")
def flags() -> Iterator[VmaFlags]:
    """The iterator, or a skip with the reason."""
    try:
        made = VmaFlags()
    except Unavailable as error:
        pytest.skip(str(error))
    with made:
        yield made


def proc_maps(pid: int) -> list[tuple[int, int, str]]:
    """Start, end and permissions; [vsyscall] is no mapping of a process but of the machine."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    found = [re.match(r"(\w+)-(\w+) (\S+)", line) for line in lines if "[vsyscall]" not in line]
    return [(int(m[1], 16), int(m[2], 16), m[3]) for m in found if m is not None]


def permissions(word: int) -> str:
    """As /proc/PID/maps writes them."""
    return "".join(
        letter if word & bit else "-"
        for bit, letter in ((VM_READ, "r"), (VM_WRITE, "w"), (VM_EXEC, "x"))
    ) + ("s" if word & VM_MAYSHARE else "p")


def check(flags: VmaFlags, pid: int) -> int:
    """Compare with /proc; the number of mappings."""
    told = [(start, end, permissions(word)) for start, end, word in flags.read(pid)]
    assert told == proc_maps(pid)
    return len(told)


def test_the_mappings_are_those_of_proc(flags: VmaFlags, child: Child) -> None:
    """Ranges and permissions, of another process."""
    assert check(flags, child.pid) > 10


@pytest.mark.parametrize(
    ("set_", "undo", "bit", "letters"),
    [
        (("madvise", 10), ("madvise", 11), VM_DONTCOPY, "dc"),
        (("madvise", 16), ("madvise", 17), VM_DONTDUMP, "dd"),
        (("mlock",), ("munlock",), VM_LOCKED, "lo"),
    ],
)
def test_a_flag_comes_and_goes(
    flags: VmaFlags,
    child: Child,
    set_: tuple[str, *tuple[int, ...]],
    undo: tuple[str, *tuple[int, ...]],
    bit: int,
    letters: str,
) -> None:
    """What madvise(2) and mlock(2) set on two pages is in the word of these, and only there."""
    start, end = child.area + 2 * PAGE, child.area + 4 * PAGE

    def word() -> tuple[int, int, int]:
        (row,) = (row for row in flags.read(child.pid) if row[0] <= start < row[1])
        return row

    before = word()
    assert not before[2] & bit
    child.do(set_[0], hex(start), 2 * PAGE, *set_[1:])
    during = word()
    assert during[:2] == (start, end)
    assert during[2] & bit
    text = Path(f"/proc/{child.pid}/smaps").read_text()
    shown = re.search(rf"(?ms)^0*{start:x}-.*?^VmFlags:([^\n]*)", text)
    assert shown is not None
    assert letters in shown[1].split()
    child.do(undo[0], hex(start), 2 * PAGE, *undo[1:])
    assert not word()[2] & bit


@pytest.mark.parametrize("alone", [0, 1], ids=["one table of files", "each its own"])
def test_threads_share_what_is_told_once(flags: VmaFlags, child: Child, alone: int) -> None:
    """The kernel's walk over a group goes by tables of files, so both kinds are tried."""
    child.do("threads", 8, alone)
    assert len(os.listdir(f"/proc/{child.pid}/task")) == 9
    check(flags, child.pid)


def test_many_mappings_are_complete(flags: VmaFlags, child: Child) -> None:
    """Over several buffers, and where the last one is filled to the last mapping."""
    for total in (2000, 2 * A_BUFFER - 1, 2 * A_BUFFER, 2 * A_BUFFER + 1, 3 * A_BUFFER, 15000):
        child.do("more", total - len(proc_maps(child.pid)))
        assert check(flags, child.pid) == total


def test_exactly_one_buffer(flags: VmaFlags, child: Child) -> None:
    """And one mapping more or less."""
    for total in (A_BUFFER - 1, A_BUFFER, A_BUFFER + 1):
        child.do("more", total - len(proc_maps(child.pid)))
        assert check(flags, child.pid) == total


def test_who_is_gone_has_none(flags: VmaFlags, child: Child) -> None:
    """A zombie, and a number that nobody has."""
    child.kill()
    assert flags.read(child.pid) == []
    child.reap()
    assert flags.read(child.pid) == []
    assert flags.read(0) == []  # which the kernel would take for everybody


def test_nothing_is_left_open(flags: VmaFlags, child: Child) -> None:
    """After reads of the living and the dead, and after close()."""
    before = os.listdir("/proc/self/fd")
    for _ in range(50):
        flags.read(child.pid)
        flags.read(2**22 + 1)
    with VmaFlags() as another:
        another.close()
    assert os.listdir("/proc/self/fd") == before


def run_python(script: str, *before: str) -> str:
    """What a script of ours prints."""
    ended = subprocess.run(
        [*before, sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_numbers_are_those_of_our_own_pid_namespace(flags: VmaFlags) -> None:
    """Whichever /proc is mounted there: in a new one, the process number 1 is the first of it."""
    script = (
        "import os; from ocimig.runtime.linux.vma_flags import VmaFlags\n"
        "with VmaFlags() as flags: found = [row[:2] for row in flags.read(1)]\n"
        "lines = [line.split() for line in open('/proc/self/maps') if '[vsyscall]' not in line]\n"
        "there = [tuple(int(part, 16) for part in line[0].split('-')) for line in lines]\n"
        "print(os.getpid(), len(set(found) & set(there)) > 10)\n"
    )
    assert run_python(script, "unshare", "--pid", "--fork") == "1 True\n"


def test_without_privileges_it_is_unavailable(flags: VmaFlags) -> None:
    """In words, not with another error."""
    script = (
        "import os\n"
        "from ocimig.runtime.linux.vma_flags import Unavailable, VmaFlags\n"
        "os.setgid(65534), os.setuid(65534)\n"
        "try: VmaFlags()\n"
        "except Unavailable as error: print(error)\n"
    )
    assert run_python(script) == "bpf(2): Operation not permitted\n"
