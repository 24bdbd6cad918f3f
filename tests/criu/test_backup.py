"""Snapshots of running containers in a store, and containers out of it, by the program's command line."""

import json
import shutil
from pathlib import Path

import pytest

from ocimig_testkit.backup_shelf import Shelf
from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu]


def test_a_container_comes_back_as_it_was(box: Box, shelf: Shelf) -> None:
    """Memory with the same checksum, files, and the place in the program; it ran on meanwhile."""
    box.run("count", "32")
    kept = box.bundle.rootfs / "kept"
    kept.write_text("before")
    taken = shelf.take()
    box.goes_on()
    kept.write_text("after")
    shelf.lose()
    lines = len(box.lines())
    shelf.bring_back(taken["id"])
    assert kept.read_text() == "before"
    assert box.ocimig.status(box.id) == "running"
    box.goes_on()
    assert len(box.lines()) > lines


def test_a_snapshot_is_proven_by_restoring_it(box: Box, shelf: Shelf) -> None:
    """Held, compared and thrown away, while the container itself runs on undisturbed."""
    box.run("count", "32")
    taken = shelf.take()
    verdict = shelf("verify", "--restore", taken["id"])
    assert verdict["problems"] == []
    assert [each["id"] for each in json.loads(box.ocimig("list", "--format", "json").out)] == [
        box.id
    ]
    assert not list(shelf.cache.glob("*/rehearsals/*"))
    box.goes_on()
    box.unbroken()


def test_the_second_snapshot_stores_what_changed(box: Box, shelf: Shelf) -> None:
    """Not what the first has, and each of them restores by itself."""
    box.run("count", "64")
    first = shelf.take()
    box.goes_on()
    second = shelf.take()
    assert first["memory_bytes"] > 64 << 20
    assert second["stored_bytes"] < first["stored_bytes"] / 10
    shelf("forget", first["id"], "--prune")
    verdict = shelf("verify", "--read-data")
    assert verdict["problems"] == []
    assert verdict["snapshots"] == 1
    shelf.lose()
    shelf.bring_back("latest", "--container", box.id)
    box.goes_on()


def test_beside_the_container_that_still_runs(box: Box, shelf: Shelf, tmp_path: Path) -> None:
    """Another name, another directory, a root file system of its own, even where that lay elsewhere."""
    elsewhere = tmp_path / "root elsewhere"
    shutil.move(box.bundle.rootfs, elsewhere)
    box.bundle.config["root"]["path"] = str(elsewhere)
    box.run("count", "8")
    taken = shelf.take()
    other = box.ocimig.new_id()
    shelf.bring_back(taken["id"], "--as", other, "-b", str(tmp_path / "beside"))
    assert {each["id"] for each in json.loads(box.ocimig("list", "--format", "json").out)} == {
        box.id,
        other,
    }
    pid = box.ocimig.pid(other)
    root = Path(f"/proc/{pid}/root").stat()
    assert root.st_ino == (tmp_path / "beside/rootfs").stat().st_ino
    box.ocimig("delete", "--force", other)
    box.goes_on()
