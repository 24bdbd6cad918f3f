"""What the tests of CRIU share: the program that is checkpointed, and a container that runs it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocimig_testkit import Bundle, Ocimig, until
from ocimig_testkit.backup_shelf import Shelf
from ocimig_testkit.box import Box
from ocimig_testkit.podman import Podman


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """worker.c, compiled."""
    target = tmp_path_factory.mktemp("worker") / "worker"
    source = Path(__file__).with_name("worker.c")
    subprocess.run(["cc", "-static", "-O1", "-o", target, source], check=True)
    return target


@pytest.fixture
def box(ocimig: Ocimig, bundle: Bundle, worker: Path, tmp_path: Path) -> Box:
    """A container that is not started yet."""
    shutil.copy2(worker, bundle.rootfs / "bin/worker")
    return Box(ocimig, bundle, tmp_path / "output")


@pytest.fixture
def shelf(box: Box, tmp_path: Path) -> Shelf:
    """An empty store."""
    return Shelf(box, tmp_path)


@pytest.fixture
def new_box(
    ocimig: Ocimig, new_bundle: Callable[..., Bundle], worker: Path, tmp_path: Path
) -> Callable[[], Box]:
    """More of them."""

    def make() -> Box:
        bundle = new_bundle()
        shutil.copy2(worker, bundle.rootfs / "bin/worker")
        return Box(ocimig, bundle, bundle.path / "output")

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)
        os.rmdir(place)


@pytest.fixture
def podman(request: pytest.FixtureRequest) -> Iterator[Podman]:
    """A podman of its own, by its runtime; it takes no path of more than 50 letters."""
    place = Path(tempfile.mkdtemp(prefix="ocimig-podman-", dir="/tmp"))
    made = Podman(place, request.param)
    yield made
    made.close()
    until(lambda: _removed(place), f"{place} to be removed")


def _removed(place: Path) -> bool:
    """podman's own cleaning up goes on behind its back."""
    shutil.rmtree(place, ignore_errors=True)
    return not place.exists()
