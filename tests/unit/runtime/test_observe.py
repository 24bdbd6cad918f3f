"""Lists and tables."""

import os
import subprocess
from pathlib import Path

import pytest

from ocimig.runtime import observe
from ocimig.runtime.errors import NoSuchContainer, PsFailed
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store without containers."""
    return Store(str(tmp_path / "root"))


def _make(store: Store, id: str, pid: int = 0) -> None:
    store.claim(id)
    state = ContainerState(
        id, bundle="/b", rootfs="/b/rootfs", oci_version="1.2.0", checkpointed=True
    )
    if pid:
        state.adopt(pid)
    store.save(state)


def test_the_list_shows_every_container_once(
    store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    """In order; half made ones are left out, a damaged one is a warning."""
    assert observe.list_documents(store) == []
    for id in ("c2", "c1"):
        _make(store, id)
    store.claim("half")
    store.claim("bad")
    Path(store.path("bad"), "state.json").write_text("{")
    found = observe.list_documents(store)
    assert [document["id"] for document in found] == ["c1", "c2"]
    assert found[0]["owner"] == observe.owner_name(os.geteuid())
    assert "state of container bad cannot be read" in capfd.readouterr().err


def test_the_table_is_runcs() -> None:
    """Columns of twelve or three more than the widest, the last one ragged."""
    document = {
        "id": "a-long-container-name",
        "pid": 0,
        "status": "stopped",
        "bundle": "/b",
        "created": "2026-11-23T04:02:08.333159695Z",
        "owner": "root",
    }
    lines = observe.list_table([document]).splitlines()
    assert lines[0] == (
        "ID                      PID         STATUS      BUNDLE      "
        "CREATED                          OWNER"
    )
    assert lines[1] == (
        "a-long-container-name   0           stopped     /b          "
        "2026-11-23T04:02:08.333159695Z   root"
    )
    assert observe.list_table([]) == (
        "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
    )


def test_an_owner_without_a_name_is_a_number() -> None:
    """As runc prints it."""
    assert observe.owner_name(0) == "root"
    assert observe.owner_name(4_000_000_000) == "#4000000000"


def test_ps_shows_the_header_and_the_containers_lines(store: Store) -> None:
    """Out of the real ps, by its PID column, with the options given."""
    child = subprocess.Popen(["sleep", "1000"])
    try:
        _make(store, "c1", child.pid)
        assert observe.pids(store, "c1") == [child.pid]
        lines = observe.ps(store, "c1", [])
        assert len(lines) == 2
        assert "PID" in lines[0].split()
        assert str(child.pid) in lines[1].split()
        lines = observe.ps(store, "c1", ["-o", "pid,comm", "-e"])
        assert lines[0].split() == ["PID", "COMMAND"]
        assert lines[1].split() == [str(child.pid), "sleep"]
        with pytest.raises(PsFailed, match="no PID column"):
            observe.ps(store, "c1", ["-o", "comm"])
        with pytest.raises(PsFailed, match="exit status"):
            observe.ps(store, "c1", ["--nonsense"])
    finally:
        child.kill()
        child.wait()
    assert observe.pids(store, "c1") == []
    assert len(observe.ps(store, "c1", [])) == 1


def test_ps_of_nothing_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing container and a missing ps each have their own words."""
    with pytest.raises(NoSuchContainer):
        observe.ps(store, "c1", [])
    _make(store, "c1")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PsFailed, match=r"^ps: executable file not found in \$PATH$"):
        observe.ps(store, "c1", [])


def test_only_a_whole_number_in_the_pid_column_counts() -> None:
    """A pid that stands in another column, or is part of another, shows nothing."""
    output = "UID PID CMD\n12 7 sleep 12\nroot 12 sh\nroot 121 x\n\n"
    assert observe.filter_ps("c1", output, {12}) == ["UID PID CMD", "root 12 sh"]
    with pytest.raises(PsFailed, match="unexpected pid"):
        observe.filter_ps("c1", "PID CMD\nx y\n", {12})
