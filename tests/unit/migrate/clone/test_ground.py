"""What copies of a snapshot stand on: taken out once, gone with the last of them, or after a crash."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ocimig.criu_images import pagemap
from ocimig.migrate.clone import ground
from ocimig.migrate.clone.errors import NotClonable
from ocimig.migrate.lazy import images
from ocimig.migrate.store.errors import StoreDamaged
from ocimig.runtime import lifecycle, shared
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store
from ocimig_testkit.images import PAGE
from ocimig_testkit.lent import KEPT, WORDS, lent
from ocimig_testkit.shelves import shelf

SPACES = [{"type": name} for name in ("pid", "network", "mount", "uts")]
CONFIG: dict[str, Any] = {"root": {"path": "rootfs"}, "linux": {"namespaces": SPACES}}


@pytest.fixture
def containers(tmp_path: Path) -> Store:
    """None yet."""
    return Store(str(tmp_path / "root"))


def made(containers: Store, name: str, place: str) -> None:
    """A copy, as far as its state says."""
    containers.claim(name)
    containers.save(ContainerState(name, shared=[place]))


def test_a_snapshot_is_taken_out_whole(tmp_path: Path) -> None:
    """Files with their root, and pages that may come late: they are in the images, and marked as such."""
    store = shelf(tmp_path / "cache")
    snapshot = lent(store, tmp_path / "made", config=CONFIG)
    place = tmp_path / "place"
    place.mkdir()
    source = ground.take_out(store, snapshot, str(place))
    assert Path(source.root, "motd").read_text() == "hello\n"
    assert Path(source.bundle) in Path(source.root).parents
    assert source.ground == str(place)
    ((pid, lazy),) = images.read(source.image)
    assert (pid, lazy.withheld) == (1, [])
    assert [(start, end) for start, end, _ in lazy.present] == [(KEPT, KEPT + 2 * PAGE)]
    listed = pagemap.read(os.path.join(source.image, "pagemap-1.img")).entries
    assert listed[0].flags == pagemap.PRESENT  # CRIU saved it itself: it is never left to anybody
    assert WORDS in Path(lazy.pages).read_bytes()


def test_what_cannot_be_copied_is_refused_before_anything_is_taken_out(tmp_path: Path) -> None:
    """It may be large."""
    store = shelf(tmp_path / "cache")
    snapshot = lent(store, tmp_path / "made")
    with pytest.raises(NotClonable, match="no pid namespace"):
        ground.take_out(store, snapshot, str(tmp_path / "place"))
    assert not (tmp_path / "place").exists()


def test_a_link_as_root_file_system_does_not_lead_to_the_host(tmp_path: Path) -> None:
    """The copies' layers would lie over whatever it names."""
    store = shelf(tmp_path / "cache")
    snapshot = lent(store, tmp_path / "made", rootfs="/etc", config=CONFIG)
    (tmp_path / "place").mkdir()
    with pytest.raises(StoreDamaged, match="root file system"):
        ground.take_out(store, snapshot, str(tmp_path / "place"))


def test_it_goes_with_the_last_copy(containers: Store, tmp_path: Path) -> None:
    """The images at once, the rest when no copy is left; a copy that was not made has no part in it."""
    home = tmp_path / "home"
    with ground.ground(str(home), containers, "web", ["web-1", "web-2", "web-3"]) as place:
        Path(place, "images").mkdir()
        Path(place, "trees").mkdir()
        made(containers, "web-1", place)
        made(containers, "web-3", place)
        lifecycle.delete(containers, "web-1", force=True)
        made(containers, "web-2", "/somewhere/else")
        assert ground.sweep(str(home)) == []
    assert sorted(os.listdir(place)) == [shared.MARK, "trees", "users"]
    assert ground.sweep(str(home)) == []
    lifecycle.delete(containers, "web-2", force=True)
    assert os.path.exists(place)
    lifecycle.delete(containers, "web-3", force=True)
    assert os.listdir(home) == []


def test_nothing_is_left_when_no_copy_was_made(containers: Store, tmp_path: Path) -> None:
    """Whatever went wrong."""
    home = tmp_path / "home"
    with (
        pytest.raises(KeyboardInterrupt),
        ground.ground(str(home), containers, "web", ["web-1"]),
    ):
        raise KeyboardInterrupt
    assert os.listdir(home) == []


def test_what_a_crash_or_a_reboot_left_is_swept(containers: Store, tmp_path: Path) -> None:
    """Of a maker that was killed before any copy, and of copies whose state is gone; not of one that is there."""
    home = tmp_path / "home"
    crash = (
        "import os, sys; from ocimig.migrate.clone import ground; from ocimig.runtime.store import Store\n"
        "with ground.ground(sys.argv[1], Store(sys.argv[2]), 'web', ['web-1']): os._exit(0)"
    )
    command = [sys.executable, "-c", crash, str(home), containers.root]
    subprocess.run(command, check=True)
    containers.claim("web-1")
    assert ground.sweep(str(home)) == []
    containers.remove("web-1")
    (left,) = home.iterdir()
    assert ground.sweep(str(home)) == [str(left)]
    assert os.listdir(home) == []


def test_what_else_is_in_its_home_stays(containers: Store, tmp_path: Path) -> None:
    """It may be any directory: somebody's volumes, say."""
    home = tmp_path / "srv"
    for name in ("db/users", "empty"):
        (home / name).mkdir(parents=True)
    (home / "db/data").write_text("precious")
    with ground.ground(str(home), containers, "web", ["web-1"]):
        pass
    assert sorted(os.listdir(home)) == ["db", "empty"]
    assert (home / "db/data").read_text() == "precious"
    assert ground.sweep(str(home)) == []
