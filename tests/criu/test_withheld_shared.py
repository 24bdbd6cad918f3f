"""Memory that processes share, left out of a dump and put in again."""

import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ocimig.criu_images import assemble, pagemap
from ocimig.criu_images.errors import BadImage
from ocimig.migrate import checkpoint
from ocimig.migrate.checkpoint import CheckpointOptions
from ocimig.migrate.memory.runs import Run, total
from ocimig.runtime.store import Store
from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.busybox]


class Shared:
    """Withholds every anonymous shared object, and keeps what was left out in a memfd each."""

    def __init__(self) -> None:
        self.places: dict[int, str] = {}
        self.kept: dict[int, int] = {}
        self.left_out: dict[int, list[Run]] = {}

    def withhold(self, tasks: Mapping[int, int]) -> Mapping[int, Sequence[Run]]:
        """Nothing of the private memory."""
        return {}

    def withheld(self, runs: Mapping[int, Sequence[Run]]) -> None:
        """None of it was named."""
        assert not runs

    def withhold_shared(self, tasks: Mapping[int, int]) -> Mapping[int, Sequence[Run]]:
        """Whole objects, by inode."""
        found: dict[int, list[Run]] = {}
        for pid in tasks:
            with open(f"/proc/{pid}/maps") as maps:
                for line in maps:
                    if "s " in line and line.split()[3] == _device():
                        words = line.split()
                        self.places[int(words[4])] = f"/proc/{pid}/map_files/{words[0]}"
                        found[int(words[4])] = [(0, 1 << 30)]
        return found

    def withheld_shared(self, runs: Mapping[int, Sequence[Run]]) -> None:
        """Copy what CRIU did not save."""
        for inode, found in runs.items():
            self.left_out[inode] = list(found)
            self.kept[inode] = os.memfd_create("kept")
            source = os.open(self.places[inode], os.O_RDONLY)
            os.ftruncate(self.kept[inode], max(end for _, end in found))
            for start, end in found:
                for at in range(start, end, 1 << 20):
                    part = os.pread(source, min(1 << 20, end - at), at)
                    os.pwrite(self.kept[inode], part, at)
            os.close(source)

    def close(self) -> None:
        """Forget what was kept."""
        for fd in self.kept.values():
            os.close(fd)


def _device() -> str:
    """That of memory that has no name in a file system."""
    with mmap.mmap(-1, 4096), open("/proc/self/maps") as maps:
        return next(line.split()[3] for line in maps if line.endswith("/dev/zero (deleted)\n"))


@pytest.fixture(params=["anonymous", "memfd", "sysv"])
def dumped(request: pytest.FixtureRequest, box: Box) -> tuple[Box, Shared, checkpoint.Frozen]:
    """A container whose two processes share seven megabytes, dumped without them."""
    box.run("share", "7", request.param)  # of a memfd the last page is not whole
    memory = Shared()
    seen: list[checkpoint.Frozen] = []
    wanted = CheckpointOptions(image_path=str(box.image), seal=False, keep=True)
    store = Store(str(box.ocimig.root))
    checkpoint.checkpoint(store, box.id, wanted, on_frozen=seen.append, memory=memory)
    return box, memory, seen[0]


def test_shared_memory_left_out_and_put_in_again_is_the_same(
    dumped: tuple[Box, Shared, checkpoint.Frozen],
) -> None:
    """Only what was ever written is left out, holes are none of it; then the processes go on sharing."""
    box, memory, frozen = dumped
    (inode,) = memory.left_out
    assert total(memory.left_out[inode]) == 4 << 20  # every second megabyte
    assert assemble.fill_shared(str(box.image), inode, memory.kept[inode]) == 4 << 20
    assert assemble.fill_shared(str(box.image), inode, memory.kept[inode]) == 0  # it is whole now
    memory.close()
    frozen.image.seal(frozen.manifest)
    box.ocimig("delete", "--force", box.id)
    box.restore()
    box.goes_on()
    box.unbroken()


def test_images_are_not_filled_from_what_is_too_short(
    dumped: tuple[Box, Shared, checkpoint.Frozen], tmp_path: Path
) -> None:
    """A page that is nowhere is an error, and the images stay what they were."""
    box, memory, _ = dumped
    (inode,) = memory.left_out
    path = str(box.image / f"pagemap-shmem-{inode}.img")
    before = pagemap.read(path)
    os.ftruncate(memory.kept[inode], 3 << 20)
    with pytest.raises(BadImage, match="nowhere"):
        assemble.fill_shared(str(box.image), inode, memory.kept[inode])
    memory.close()
    assert pagemap.read(path) == before
