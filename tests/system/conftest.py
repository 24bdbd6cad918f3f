"""What several of the whole-program tests use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig_testkit.hostile import facts


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host with one file; nothing in it may change."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "file").write_text("of the host\n")
    os.chmod(path / "file", 0o644)
    before = facts(path)
    yield path
    assert facts(path) == before
