"""Directories that several containers stand on."""

import os
from pathlib import Path

import pytest

from ocimig.runtime import lifecycle, shared
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """With something in it, for "a" and "b"."""
    found = tmp_path / "place"
    (found / "trees/bundle").mkdir(parents=True)
    (found / "trees/bundle/motd").write_text("hello\n")
    shared.make(str(found))
    for name in ("a", "b"):
        shared.hold(str(found), name, str(tmp_path / "root" / name))
    return found


def test_it_goes_with_the_last(place: Path) -> None:
    """Whoever lets go first leaves everything to the other; twice is as good as once."""
    assert not shared.release(str(place), "a")
    assert not shared.release(str(place), "a")
    assert (place / "trees/bundle/motd").exists()
    assert shared.release(str(place), "b")
    assert not place.exists()
    assert not shared.release(str(place), "b")


def test_a_container_lets_go_when_it_is_deleted(place: Path, tmp_path: Path) -> None:
    """Its state says what it stands on; the other one still has it."""
    store = Store(str(tmp_path / "root"))
    for name in ("a", "b"):
        store.claim(name)
        store.save(ContainerState(name, shared=[str(place)]))
    assert set(shared.users(str(place))) == {"a", "b"}
    lifecycle.delete(store, "a", force=True)
    assert shared.users(str(place)) == {"b": store.path("b")}
    lifecycle.delete(store, "b", force=True)
    assert not place.exists()
    assert os.listdir(store.root) == []


def test_what_was_made_for_something_else_is_not_removed(place: Path) -> None:
    """Whoever names it: the file that says what it is decides."""
    (place / shared.MARK).unlink()
    shared.release(str(place), "a")
    shared.release(str(place), "b")
    shared.remove(str(place))
    assert (place / "trees/bundle/motd").exists()
