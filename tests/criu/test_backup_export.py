"""Snapshots out of a store into archives, and back from those without the store."""

import os
import shutil
from pathlib import Path

import pytest

from ocimig_testkit.backup_shelf import Shelf
from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu]


def test_a_snapshot_comes_back_from_a_file(box: Box, shelf: Shelf, tmp_path: Path) -> None:
    """All of its memory is in the file, and the files of that moment: the store is not needed."""
    archive, bundle = tmp_path / "web.tar.zst", tmp_path / "new"
    box.run("count", "8")
    (box.bundle.rootfs / "kept").write_text("before")
    taken = shelf.take()
    (box.bundle.rootfs / "kept").write_text("after")
    words = ["backup", "export", str(shelf.path), taken["id"], str(archive), *shelf.options()]
    box.ocimig(*words)
    assert not [name for name in os.listdir(tmp_path) if name.endswith((".partial", ".tmp"))]
    assert archive.stat().st_mode & 0o777 == 0o600
    assert "as its manifest says" in box.ocimig("archive", "verify", archive).out
    assert "root file system is made from the archive" in box.ocimig("archive", "show", archive).out
    shelf.lose()
    shutil.rmtree(shelf.path)
    count = len(box.lines())
    grants = ("--allow", "unconfined", "--allow", "files")
    box.ocimig("restore", "-d", "--import", archive, "-b", bundle, *grants, box.id)
    box.goes_on()
    assert len({checksum for _, checksum in box.lines()}) == 1
    assert len(box.lines()) > count
    assert (bundle / "rootfs/kept").read_text() == "before"
