"""After a migration the source's files go, unless somebody else on this host needs them."""

from pathlib import Path

import pytest

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
