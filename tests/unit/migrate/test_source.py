"""What the source removes once the container runs elsewhere, however often it is told to."""

import mmap
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ocimig.migrate import journal, rootfs
from ocimig.migrate.source import RealSource, marked
from ocimig.migrate.transport.memory import pair
from ocimig.migrate.wire import Wire
from ocimig.runtime import cgroups
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store


def moved(tmp_path: Path) -> tuple[Store, journal.Journal, Path]:
    """A migration that ended its container and was killed before it removed the files."""
    store = Store(str(tmp_path / "state"))
    Path(store.root).mkdir()
    bundle = tmp_path / "bundle"
    (bundle / "rootfs/bin").mkdir(parents=True)
    (bundle / "rootfs/bin/sh").write_text("")
    entry = journal.create(
        store, journal.new_id(), "source", id="c1", epoch=1, images=str(tmp_path / "m/image"),
        pid=1, start_time=1, network=None, trees=marked([("bundle", str(bundle))]),
    )  # fmt: skip
    return store, entry, bundle


def test_files_go_although_the_container_is_gone_already(tmp_path: Path) -> None:
    """The command was killed between the two; --resume finishes."""
    store, entry, bundle = moved(tmp_path)
    assert RealSource().remove(store, entry) == []
    assert not bundle.exists()
    assert RealSource().remove(store, entry) == []


def test_a_new_directory_in_the_old_place_is_left_alone(tmp_path: Path) -> None:
    """Somebody made a bundle of the same name since."""
    store, entry, bundle = moved(tmp_path)
    bundle.rename(tmp_path / "kept so that its inode is not used again")
    bundle.mkdir()
    assert RealSource().remove(store, entry) == []
    assert bundle.exists()


@pytest.mark.parametrize("entered", [False, True])
def test_what_it_maps_while_it_runs_is_asked_for_at_each_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entered: bool
) -> None:
    """What was written through a mapping that is gone by the freeze would be lost."""
    asked: list[bool] = []
    (tmp_path / "db").write_bytes(bytes(4096))
    inode = (tmp_path / "db").stat().st_ino

    def send(*_: object, **options: object) -> tuple[rootfs.Index, rootfs.Sent]:
        mapped, suspects = options["mapped"], options["suspects"]
        assert callable(mapped)
        asked.append(inode in mapped())
        asked.append(inode in suspects)  # type: ignore[operator]
        return rootfs.Index(), rootfs.Sent()

    monkeypatch.setattr(rootfs, "send", send)
    group = SimpleNamespace(pids=lambda: [os.getpid()])
    monkeypatch.setattr(cgroups, "from_facts", lambda _: group)
    one, other = pair()
    source = RealSource()
    state = ContainerState("c1", pid=os.getpid(), bundle=str(tmp_path))
    if entered:  # by `exec`: in its cgroup, not below its first process
        state = ContainerState("c1", pid=1 << 22, bundle=str(tmp_path), cgroups={"unified": "/c1"})
    with (tmp_path / "db").open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        for pids in ([], [os.getpid()]):
            source.send_files(Wire(one), "bundle", str(tmp_path), state, pids)
    source.close()
    one.close()
    other.close()
    assert asked == [True, False, False, True]
