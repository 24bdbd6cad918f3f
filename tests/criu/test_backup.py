"""Snapshots of running containers in a store, and containers out of it, by the program's command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu]


class Shelf:
    """A store and the calls that tests make."""

    def __init__(self, box: Box, path: Path) -> None:
        self.box = box
        self.path = path / "store"
        self.cache = path / "cache"
        box.ocimig("backup", "init", str(self.path), *self.options())

    def options(self) -> list[str]:
        """What every call needs."""
        return ["--cache", str(self.cache)]

    def __call__(self, verb: str, *words: str) -> Any:
        """`ocimig backup VERB STORE …` with its output as JSON."""
        done = self.box.ocimig(
            "backup", verb, str(self.path), *words, *self.options(), "--format", "json"
        )
        return json.loads(done.out)

    def take(self) -> dict[str, Any]:
        """A snapshot of the box."""
        (taken,) = self("create", self.box.id)
        assert "error" not in taken, taken
        found: dict[str, Any] = taken
        return found

    def bring_back(self, snapshot: str, *words: str) -> None:
        """Restore."""
        self.box.ocimig("backup", "restore", str(self.path), snapshot, *words, *self.options())


@pytest.fixture
def shelf(box: Box, tmp_path: Path) -> Shelf:
    """An empty store."""
    return Shelf(box, tmp_path)


def _lose(box: Box) -> None:
    """The container and all its files are gone."""
    box.ocimig("delete", "--force", box.id)
    shutil.rmtree(box.bundle.path)


def test_a_container_comes_back_as_it_was(box: Box, shelf: Shelf) -> None:
    """Memory with the same checksum, files, and the place in the program; it ran on meanwhile."""
    box.run("count", "32")
    kept = box.bundle.rootfs / "kept"
    kept.write_text("before")
    taken = shelf.take()
    box.goes_on()
    kept.write_text("after")
    _lose(box)
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
    _lose(box)
    shelf.bring_back("latest", "--container", box.id)
    box.goes_on()
