"""Files that are written through a memory mapping, on their way into a snapshot."""

import mmap
import os
import time
from pathlib import Path

import pytest

from ocimig.migrate.rootfs import Watch
from ocimig_testkit.captured import Captures

pytestmark = [pytest.mark.root]


@pytest.mark.parametrize("blind", [True, False], ids=["blind", "watched"])
def test_what_was_written_by_a_mapping_that_is_gone_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, blind: bool
) -> None:
    """A second write to a page that is dirty already changes no time; nothing names the file any more."""
    if blind:
        monkeypatch.setattr(Watch, "start", staticmethod(lambda root: Watch(-1, "blind")))
    # the page is made dirty between the scan's syncfs(2) and its look
    monkeypatch.setattr("ocimig.migrate.backup.files.syncfs", lambda fd: None)
    tree = Captures(tmp_path)
    path = tree.here / "f"
    path.write_bytes(b"x" * 8192)
    file = path.open("r+b")
    memory = mmap.mmap(file.fileno(), 8192)
    memory[0:1] = b"1"
    time.sleep(0.05)  # its time is not young any more

    def running() -> None:
        memory[0:1] = b"2"
        memory.close()
        file.close()

    captured = tree.go(running=running, pids=[os.getpid()])
    assert (tree.check(captured) / "f").read_bytes()[:1] == b"2"
    assert (tree.check(tree.go(pids=[os.getpid()])) / "f").read_bytes()[:1] == b"2"
