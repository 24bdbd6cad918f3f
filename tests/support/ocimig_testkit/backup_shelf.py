"""A store, and the calls that tests of snapshots of running containers make."""

import json
import shutil
from pathlib import Path
from typing import Any

from ocimig_testkit.box import Box


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

    def lose(self) -> None:
        """The container and all its files are gone."""
        self.box.ocimig("delete", "--force", self.box.id)
        shutil.rmtree(self.box.bundle.path)

    def left(self) -> list[str]:
        """What a backup leaves nowhere: rooms of its work, files in the making."""
        places = [
            *self.box.ocimig.root.glob(".backups/*"), *self.box.ocimig.root.glob(".restores/*"),
            *self.path.glob("tmp/*"), *self.cache.glob("*/work/*"), *self.cache.glob("*/imports/*"),
        ]  # fmt: skip
        return [str(path) for path in places]
