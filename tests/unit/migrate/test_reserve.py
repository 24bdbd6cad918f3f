"""Who comes to a host gets a name and directories of its own, or is told who has them."""

import threading
from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate import facts, journal, reserve, rootfs
from ocimig.migrate.destination import RealDestination
from ocimig.migrate.errors import BrokenFrame, Fenced, PlaceTaken
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store
from ocimig_testkit.migration import FakeDestination, World


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty state root."""
    (tmp_path / "root").mkdir()
    monkeypatch.setattr(facts, "image_homes", lambda _store: [str(tmp_path / "images")])
    return Store(str(tmp_path / "root"))


def wanted(tmp_path: Path, id: str, root: str, *, epoch: int = 1) -> dict[str, Any]:
    """What the source of that container asks for."""
    return {
        "id": id, "migration": f"{epoch}-{id[1]}", "epoch": epoch, "source": "x",
        "bundle": str(tmp_path / id), "rootfs": str(tmp_path / root),
        "images": str(tmp_path / "images"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "ours"), [("shared", "shared"), ("shared/one", "shared"), ("shared", "shared/two")]
)
def test_two_that_come_at_the_same_time_share_no_directory(
    theirs: str, ours: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find it empty; the first pass of the second would remove what the first has brought."""
    monkeypatch.setattr(rootfs, "receive", lambda *_given, **_more: None)
    first = wanted(tmp_path, "c1", theirs)
    entry, _ = reserve.reserve(store, first, RealDestination(), "x")
    RealDestination().reserve(store, entry, first)
    with pytest.raises(PlaceTaken, match=r"container c1, whose migration 1-1 has no end yet"):
        reserve.reserve(store, wanted(tmp_path, "c2", ours), RealDestination(), "y")
    assert [found.migration for found in journal.every(store)] == ["1-1"]
    entry.write("ABORTED")
    reserve.reserve(store, wanted(tmp_path, "c2", "c2-root"), RealDestination(), "y")


def test_the_directories_of_a_container_that_is_here_are_its_own(
    store: Store, tmp_path: Path
) -> None:
    """Its mount is not there just now, so its root is empty: it is not free all the same."""
    (tmp_path / "real/root").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    store.claim("c1")
    store.save(
        ContainerState("c1", bundle=str(tmp_path / "c1"), rootfs=str(tmp_path / "real/root"))
    )
    with pytest.raises(PlaceTaken, match="of container c1"):
        reserve.reserve(store, wanted(tmp_path, "c2", "link/root"), RealDestination(), "y")


def test_what_left_something_may_come_back_to_its_place(store: Store, tmp_path: Path) -> None:
    """Its own journal as a source, which has no end yet, is nobody else's."""
    entry = journal.create(
        store, "1-0", "source", id="c1", epoch=1, images="", trees=[[str(tmp_path / "c1"), 1, 1]]
    )
    for record in ("PRECOPY", "FREEZE", "PREPARED", "COMMIT-INTENT", "ACKED"):
        entry.write(record)
    with pytest.raises(PlaceTaken):
        reserve.reserve(store, wanted(tmp_path, "c2", "c1"), RealDestination(), "y")
    reserve.reserve(store, wanted(tmp_path, "c1", "c1-root", epoch=2), RealDestination(), "x")


def test_of_two_the_second_looks_when_the_first_has_its_place(tmp_path: Path, store: Store) -> None:
    """Looking and taking are one step: else both would find the same directory free."""
    looking, going = threading.Event(), threading.Event()

    class Slow(FakeDestination):
        def check_free(self, store: Store, id: str, wanted: Any) -> None:
            """See Destination."""
            looking.set()
            assert going.wait(5)

    (tmp_path / "world").mkdir()
    slow = Slow(World(tmp_path / "world"))
    first = threading.Thread(
        target=reserve.reserve, args=(store, wanted(tmp_path, "c1", "shared"), slow, "x")
    )
    first.start()
    assert looking.wait(5)
    threading.Timer(0.1, going.set).start()
    with pytest.raises(PlaceTaken):
        reserve.reserve(store, wanted(tmp_path, "c2", "shared"), RealDestination(), "y")
    first.join(5)


@pytest.mark.parametrize("place", ["relative", "/", "/a/../b", "/a//b"])
def test_a_place_that_is_none_is_refused(place: str, store: Store, tmp_path: Path) -> None:
    """It comes from another host, and files will be removed there."""
    asked = {**wanted(tmp_path, "c1", "c1-root"), "bundle": place, "rootfs": ""}
    with pytest.raises(BrokenFrame, match="no place"):
        reserve.reserve(store, asked, RealDestination(), "x")


def test_an_old_epoch_is_refused(store: Store, tmp_path: Path) -> None:
    """What was known here of the container is newer."""
    journal.create(store, "1-0", "source", id="c1", epoch=3, images="").write("ABORTED")
    with pytest.raises(Fenced):
        reserve.reserve(store, wanted(tmp_path, "c1", "c1-root", epoch=3), RealDestination(), "x")


def test_what_an_agent_took_that_is_gone_is_free_for_the_next(store: Store, tmp_path: Path) -> None:
    """Killed right after it took the name: nothing else is left of it that anybody could find."""

    def phases() -> list[str]:
        return [entry.phase for entry in journal.of_container(store, "c1")]

    _, lock = reserve.reserve(store, wanted(tmp_path, "c1", "c1-root"), RealDestination(), "x")
    reserve.settle_dead(store, "c1", RealDestination())
    assert phases() == ["RESERVED"]
    lock.__exit__(None, None, None)
    reserve.settle_dead(store, "c2", RealDestination())
    assert phases() == ["RESERVED"]
    reserve.settle_dead(store, "c1", RealDestination())
    assert phases() == ["ABORTED"]
    reserve.reserve(store, wanted(tmp_path, "c1", "c1-root", epoch=2), RealDestination(), "x")


def test_what_cannot_be_settled_stays_taken(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks is told who has the name, not that a directory could not be removed."""
    _, lock = reserve.reserve(store, wanted(tmp_path, "c1", "c1-root"), RealDestination(), "x")
    lock.__exit__(None, None, None)

    def full(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(RealDestination, "discard", full)
    reserve.settle_dead(store, "c1", RealDestination())
    assert journal.of_container(store, "c1")[0].phase == "RESERVED"
