"""Whether a process's mappings have the flags that were seen: told by the kernel's own words, without smaps."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from ocimig.migrate.mappings import Mappings
from ocimig.migrate.memory.errors import MappingsChanged
from ocimig.runtime.linux.vma_flags import Unavailable, VmaFlags

pytestmark = [pytest.mark.root]

# Gives advice on a whole mapping when it is told to: no line of /proc/PID/maps changes by that.
CHILD = """
import mmap, sys
area = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
line = "ready"
while line:
    print(line, flush=True)
    line = sys.stdin.readline().strip()
    if line:
        area.madvise(getattr(mmap, line))
"""


class Child:
    """That process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-IS", "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        self.hear()
        self.advise("MADV_NORMAL")  # whatever it needs for that is loaded

    def hear(self) -> None:
        """Wait until it stands still again."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline()

    def advise(self, advice: str) -> None:
        """Have it call madvise(2)."""
        assert self.process.stdin is not None
        self.process.stdin.write(advice + "\n")
        self.process.stdin.flush()
        self.hear()


@pytest.fixture
def child() -> Iterator[Child]:
    """It stands still."""
    made = Child()
    yield made
    made.process.kill()
    made.process.communicate()


@pytest.fixture
def here() -> Iterator[Mappings]:
    """With what the kernel tells."""
    try:
        words = VmaFlags()
    except Unavailable as error:
        pytest.skip(f"no flags of mappings: {error}")
    with words:
        yield Mappings(words)


def test_what_did_not_change_is_not_counted_again(child: Child, here: Mappings) -> None:
    """The text for CRIU is whole, and nothing is left to confirm."""
    pid = child.process.pid
    here.look([pid])
    assert pid in here.texts([pid])
    here.start_to_confirm()
    assert not here._threads
    here.confirm()


@pytest.mark.parametrize("advice", ["MADV_DONTFORK", "MADV_DONTDUMP"])
def test_advice_in_between_is_found(child: Child, here: Mappings, advice: str) -> None:
    """The words differ, and smaps tells what CRIU was not told."""
    pid = child.process.pid
    here.look([pid])
    child.advise(advice)
    assert pid in here.texts([pid])
    here.start_to_confirm()
    with pytest.raises(MappingsChanged):
        here.confirm()
