"""A snapshot as an archive: all of its memory and files are in it, and nothing of this host."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from ocimig.criu_images import pagemap
from ocimig.errors import OcimigError
from ocimig.files import Fd
from ocimig.migrate.archive import content
from ocimig.migrate.archive.exporting import Export
from ocimig.migrate.backup.export import export
from ocimig.migrate.store.errors import StoreDamaged
from ocimig.migrate.store.store import Store
from ocimig_testkit.images import PAGE
from ocimig_testkit.lent import KEPT, SAVED, WORDS, lent
from ocimig_testkit.shelves import shelf


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one, in memory."""
    return shelf(tmp_path / "cache")


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """What is in a file of the archive."""
    found = archive.extractfile(name)
    assert found is not None
    return found.read()


def test_memory_and_files_are_in_the_archive(store: Store, tmp_path: Path) -> None:
    """Pages that the store had lie where CRIU would have put them, and need no server, but may have one."""
    snapshot = lent(store, tmp_path / "made")
    file = tmp_path / "out" / "web.tar"
    file.parent.mkdir()
    export(store, snapshot, Export(file=str(file), compress="none"))
    assert os.listdir(file.parent) == ["web.tar"]
    with Fd(os.open(file, os.O_RDONLY)) as fd:
        found = content.read(fd, "web")
    assert found.manifest is not None
    assert found.manifest["rootfs"] == "whole"
    with tarfile.open(file) as archive:
        with tarfile.open(fileobj=io.BytesIO(member(archive, "rootfs-diff.tar"))) as inner:
            assert member(inner, "motd") == b"hello\n"
        listed = tmp_path / "pagemap-1.img"
        listed.write_bytes(member(archive, "checkpoint/pagemap-1.img"))
        pages = member(archive, "checkpoint/pages-1.img")
    assert pagemap.read(str(listed)).entries == [
        pagemap.Entry(SAVED, 1, pagemap.PRESENT),
        pagemap.Entry(KEPT, 2, pagemap.PRESENT | pagemap.LAZY),
    ]
    assert len(pages) == 3 * PAGE
    assert pages.startswith(b"saved by CRIU")
    assert pages[PAGE:].startswith(WORDS)
    assert not any(pages[2 * PAGE :])


def test_memory_that_the_store_does_not_have_is_no_zeros(store: Store, tmp_path: Path) -> None:
    """An archive that lacks a page would restore to something else."""
    snapshot = lent(store, tmp_path / "made", lost=True)
    with pytest.raises(StoreDamaged, match="lacks memory of p1"):
        export(store, snapshot, Export(file=str(tmp_path / "web.tar")))
    assert not list(tmp_path.glob("web*"))


@pytest.mark.parametrize("target", ["/etc", "..", "../../../etc"])
def test_a_link_instead_of_the_root_file_system_is_refused(
    store: Store, tmp_path: Path, target: str
) -> None:
    """Else whoever can write to the store could fetch the files of the host that exports."""
    snapshot = lent(store, tmp_path / "made", rootfs=target)
    with pytest.raises(StoreDamaged, match="its root file system"):
        export(store, snapshot, Export(file=str(tmp_path / "web.tar")))
    assert not list(tmp_path.glob("web*"))


@pytest.mark.parametrize("path", ["../x", "/elsewhere", "..", "", ".", 7])
def test_a_root_file_system_outside_of_the_snapshot_is_refused(
    store: Store, tmp_path: Path, path: object
) -> None:
    """config.json of a snapshot is from outside too."""
    snapshot = lent(store, tmp_path / "made", config={"root": {"path": path}})
    with pytest.raises(StoreDamaged, match="root file system"):
        export(store, snapshot, Export(file=str(tmp_path / "web.tar")))
    assert not list(tmp_path.glob("web*"))


def test_without_files_they_are_not_looked_at(store: Store, tmp_path: Path) -> None:
    """--ignore-rootfs; and a directory of that name is left alone."""
    snapshot = lent(store, tmp_path / "made", rootfs="/etc")
    file = tmp_path / "web.tar"
    export(store, snapshot, Export(file=str(file), compress="none", ignore_rootfs=True))
    with tarfile.open(file) as archive:
        assert "rootfs-diff.tar" not in archive.getnames()
    (tmp_path / "taken").mkdir()
    with pytest.raises(OcimigError, match="is a directory"):
        export(store, snapshot, Export(file=str(tmp_path / "taken")))
    assert os.listdir(tmp_path / "taken") == []


def test_other_readers_find_what_they_look_for(store: Store, tmp_path: Path) -> None:
    """What checkpointctl 1.3.0 opens for show, inspect and memparse, and what podman wants before it hands the
    file to its runtime: tests/criu has podman itself."""
    snapshot = lent(store, tmp_path / "made")
    file = tmp_path / "web.tar"
    wanted = Export(file=str(file), compress="none", image_name="localhost/web:1@sha256:abc")
    export(store, snapshot, wanted)
    with tarfile.open(file) as archive:
        members = {each.name: each for each in archive}
        config = json.loads(member(archive, "config.dump"))
        spec = json.loads(member(archive, "spec.dump"))
    assert members["checkpoint"].isdir()
    assert {each.mode for each in members.values()} == {0o600, 0o700}
    images = {
        "inventory.img",
        "pstree.img",
        "core-1.img",
        "mm-1.img",
        "pagemap-1.img",
        "pages-1.img",
    }
    assert {f"checkpoint/{name}" for name in images} <= set(members)
    assert (config["name"], config["rootfsImageName"]) == ("web", "localhost/web:1")
    assert (config["rootfsImageID"], config["checkpointedTime"]) == ("abc", "2026-01-02T03:04:05Z")
    assert len(config["id"]) == 64
    assert spec["annotations"]["io.kubernetes.cri.container-name"] == "web"


def test_with_a_base_only_what_changed_is_in_the_archive(store: Store, tmp_path: Path) -> None:
    """Of the root file system; what the base has and the snapshot has not is named as gone."""
    snapshot = lent(store, tmp_path / "made")
    base, file = tmp_path / "base", tmp_path / "web.tar"
    base.mkdir()
    (base / "gone").write_text("x")
    export(store, snapshot, Export(file=str(file), compress="none", base=str(base)))
    with tarfile.open(file) as archive:
        assert json.loads(member(archive, "ocimig/manifest.json"))["rootfs"] == "changes"
        assert json.loads(member(archive, "deleted.files")) == ["/gone"]
        with tarfile.open(fileobj=io.BytesIO(member(archive, "rootfs-diff.tar"))) as inner:
            assert "motd" in inner.getnames()
    assert os.listdir(base) == ["gone"]
