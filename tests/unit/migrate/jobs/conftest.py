"""What every test of jobs stands on."""

from pathlib import Path

import pytest

from ocimig_testkit.backups import Stand


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    """New for each test."""
    return Stand(tmp_path)
