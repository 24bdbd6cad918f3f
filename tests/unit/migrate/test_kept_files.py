"""After a migration the source's files go, unless somebody else on this host needs them."""

import subprocess
from pathlib import Path

import pytest

from ocimig.migrate.hands import places
from ocimig.migrate.source import _kept
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One other container, in /srv/b with its root in /data/shared."""
    store = Store(str(tmp_path / "state"))
    store.claim("other")
    store.save(ContainerState("other", bundle="/srv/b", rootfs="/data/shared"))
    return store


@pytest.mark.parametrize("path", ["/srv/b", "/srv", "/data/shared", "/data/shared/sub", "/"])
def test_what_another_container_uses_is_left(store: Store, path: str) -> None:
    """Its bundle, its root, what is above and what is below."""
    assert "other" in _kept(store, path, ["other"]) or "state" in _kept(store, path, ["other"])


def test_what_holds_the_state_is_left(store: Store) -> None:
    """A bundle that the state root lies in."""
    assert "state" in _kept(store, str(Path(store.root).parent), [])


def test_what_nobody_else_uses_goes(store: Store) -> None:
    """Also where names only begin alike."""
    assert _kept(store, "/srv/b2", ["other"]) == ""
    assert _kept(store, "/data/share", ["other"]) == ""


@pytest.mark.root
def test_nothing_is_removed_through_a_mount(store: Store, tmp_path: Path) -> None:
    """What is mounted in a bundle may be a layer, or a directory that others need; also of the same device."""
    other, rootfs = tmp_path / "other", tmp_path / "bundle/rootfs"
    rootfs.mkdir(parents=True)
    other.mkdir()
    subprocess.run(["mount", "--bind", other, rootfs], check=True)
    try:
        for path in (rootfs, rootfs.parent):
            assert f"mounted on {rootfs}" in _kept(store, str(path), [])
        assert _kept(store, str(other), []) == ""
    finally:
        subprocess.run(["umount", rootfs], check=True)


@pytest.mark.parametrize(
    ("rootfs", "expected"),
    [
        ("/srv/b/rootfs", ["/srv/b", "/srv/b/rootfs"]),
        ("/data/r", ["/srv/b", "/data/r"]),
        ("/srv/b", ["/srv/b"]),
        ("", ["/srv/b"]),
    ],
)
def test_a_root_has_a_place_wherever_it_is(rootfs: str, expected: list[str]) -> None:
    """Also in the bundle: it is sent by itself when it is mounted there."""
    assert places({"bundle": "/srv/b", "rootfs": rootfs}) == expected
