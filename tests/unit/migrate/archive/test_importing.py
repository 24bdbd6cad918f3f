"""From an archive to a bundle and images that a restore can work from, or to nothing at all."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocimig.criu_images import binary, screening
from ocimig.criu_images.errors import BadImage
from ocimig.criu_images.image import CheckpointImage
from ocimig.errors import NoSpace
from ocimig.files import Fd
from ocimig.migrate.archive import carry
from ocimig.migrate.archive.errors import (
    ArchiveChanged,
    ArchiveRefused,
    CannotUnpack,
    ManifestMismatch,
    NotGranted,
)
from ocimig.migrate.archive.importing import Prepared

pytestmark = pytest.mark.root
Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def _images_that_criu_never_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the archives here are text; tests/criu/test_screening.py looks at true ones."""
    monkeypatch.setattr(binary, "find", lambda: "criu")
    monkeypatch.setattr(screening, "screen", lambda *_: screening.Screened(tasks=2))


def loud(source: str = "/etc") -> dict[str, Any]:
    """A configuration that asks for a path of the host."""
    mount = {"destination": "/in", "type": "bind", "source": source, "options": ["rbind"]}
    return {
        "process": {}, "mounts": [mount], "hooks": {"prestart": [{"path": "/tmp/evil"}]},
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "mount")],
                  "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}},
    }  # fmt: skip


def test_a_whole_archive_becomes_a_bundle(archive: Make, tmp_path: Path) -> None:
    """Its root file system, its configuration, and images that their own manifest vouches for."""
    bundle = tmp_path / "bundle"
    with Fd(os.open(archive("web.tar"), os.O_RDONLY)) as fd:
        plan = carry.look(fd, "web.tar")
        assert not bundle.exists()
        with Prepared(fd, plan, str(bundle)) as made:
            assert CheckpointImage(made.images).verify().id == "web"
            assert (bundle / "rootfs/etc/motd").read_text() == "hello\n"
            assert json.loads((bundle / "config.json").read_text())["root"]["path"] == "rootfs"
            made.keep()
    assert sorted(os.listdir(bundle)) == ["config.json", "rootfs"]


def test_a_restore_that_fails_leaves_nothing(archive: Make, tmp_path: Path) -> None:
    """The bundle that was made is gone; one that was there is as it was."""
    bundle = tmp_path / "bundle"
    with Fd(os.open(archive("web.tar"), os.O_RDONLY)) as fd:
        plan = carry.look(fd, "web.tar")
        with pytest.raises(ZeroDivisionError), Prepared(fd, plan, str(bundle)):
            raise ZeroDivisionError
        assert not bundle.exists()
        bundle.mkdir()
        (bundle / "mine").write_text("x")
        with pytest.raises(ZeroDivisionError), Prepared(fd, plan, str(bundle)):
            raise ZeroDivisionError
        assert os.listdir(bundle) == ["mine"]
        (bundle / "rootfs").mkdir()
        with pytest.raises(ZeroDivisionError), Prepared(fd, plan, str(bundle)):
            raise ZeroDivisionError(os.listdir(bundle / "rootfs"))
    assert sorted(os.listdir(bundle)) == ["mine", "rootfs"]
    assert os.listdir(bundle / "rootfs") == []


def test_what_was_not_granted_is_refused_before_anything_is_written(
    archive: Make, tmp_path: Path
) -> None:
    """All of it in one line, with the options that would grant it."""
    bundle = tmp_path / "bundle"
    with Fd(os.open(archive("web.tar", spec=loud()), os.O_RDONLY)) as fd:
        with pytest.raises(NotGranted, match="/etc at /in") as caught:
            Prepared(fd, carry.look(fd, "web.tar"), str(bundle)).__enter__()
        assert "--allow mounts" in caught.value.advice
        assert not bundle.exists()
        with Prepared(fd, carry.look(fd, "web.tar", granted=["mounts"]), str(bundle)) as made:
            kept = CheckpointImage(made.images).config()
    assert kept["mounts"][0]["source"] == "/etc"
    assert "hooks" not in kept


def test_changes_want_their_base_and_all_of_it_wants_none(archive: Make, tmp_path: Path) -> None:
    """An archive with a base changes the root file system that is there."""
    base, bundle = tmp_path / "base", tmp_path / "bundle"
    (base / "etc").mkdir(parents=True)
    (base / "etc/gone").write_text("x")
    changes = archive("changes.tar", base=str(base))
    with Fd(os.open(changes, os.O_RDONLY)) as fd:
        plan = carry.look(fd, "changes.tar")
        assert any("1 deletions" in line for line in plan.describe())
        with pytest.raises(CannotUnpack, match="only what was changed"):
            Prepared(fd, plan, str(bundle)).__enter__()
        assert not bundle.exists()
        (bundle / "rootfs/etc").mkdir(parents=True)
        (bundle / "rootfs/etc/gone").write_text("x")
        with Prepared(fd, plan, str(bundle)) as made:
            made.keep()
    assert os.listdir(bundle / "rootfs/etc") == ["motd"]
    with (
        Fd(os.open(archive("whole.tar"), os.O_RDONLY)) as fd,
        pytest.raises(CannotUnpack, match="all of it"),
    ):
        Prepared(fd, carry.look(fd, "whole.tar"), str(bundle)).__enter__()
    assert os.listdir(bundle / "rootfs/etc") == ["motd"]


def test_a_base_is_not_touched_when_the_images_are_no_good(
    archive: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be put back, so it is changed last."""
    base, bundle = tmp_path / "base", tmp_path / "bundle"
    base.mkdir()
    changes = archive("changes.tar", base=str(base))
    (bundle / "rootfs").mkdir(parents=True)
    (bundle / "rootfs/mine").write_text("x")

    def torn(*_: object) -> screening.Screened:
        raise BadImage(path="core-1.img", reason="it is torn")

    def changed(*_: object) -> None:
        raise BadImage(path="manifest.json", reason="it was changed")

    with Fd(os.open(changes, os.O_RDONLY)) as fd:
        plan = carry.look(fd, "changes.tar")
        for owner, name, fault in (
            (screening, "screen", torn), (CheckpointImage, "verify", changed)
        ):  # fmt: skip
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fault)
                with pytest.raises(BadImage):
                    Prepared(fd, plan, str(bundle)).__enter__()
            assert os.listdir(bundle) == ["rootfs"]
            assert os.listdir(bundle / "rootfs") == ["mine"]


def test_the_archive_that_was_looked_at_is_the_one_that_is_unpacked(
    archive: Make, tmp_path: Path
) -> None:
    """Another file under its name changes nothing; other bytes in it are found."""
    path, bundle = archive("web.tar", compress="none"), tmp_path / "bundle"
    evil = archive("evil.tar", spec=loud())
    with Fd(os.open(path, os.O_RDONLY)) as fd:
        plan = carry.look(fd, "web.tar")
        os.rename(evil, path)
        with Prepared(fd, plan, str(bundle)) as made:
            assert CheckpointImage(made.images).config()["hostname"] == "web"
    again = archive("again.tar", compress="none")
    with Fd(os.open(again, os.O_RDONLY)) as fd:
        plan = carry.look(fd, "again.tar")
        data = bytearray(again.read_bytes())
        place = data.index(b"pages-1.imgpages-1.img")
        data[place] ^= 1
        again.write_bytes(data)
        with pytest.raises(ArchiveChanged, match="pages-1.img"):
            Prepared(fd, plan, str(bundle)).__enter__()
        assert not bundle.exists()
        with pytest.raises(ManifestMismatch, match="pages-1.img"):
            carry.look(fd, "again.tar")


def test_the_processes_are_judged_by_the_images(
    archive: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.json says little, and the images hold CAP_SYS_ADMIN and no filter: refused, unless granted."""
    found = screening.Screened(1, {5, 21}, 1)  # CAP_KILL, CAP_SYS_ADMIN
    monkeypatch.setattr(screening, "screen", lambda *_: found)
    bundle = tmp_path / "bundle"
    with Fd(os.open(archive("web.tar"), os.O_RDONLY)) as fd:
        with pytest.raises(NotGranted, match="CAP_SYS_ADMIN in its images; 1 threads") as caught:
            Prepared(fd, carry.look(fd, "web.tar"), str(bundle)).__enter__()
        assert "--allow capabilities --allow unconfined" in caught.value.advice
        assert not bundle.exists()
        plan = carry.look(fd, "web.tar", granted=["capabilities", "unconfined"])
        with Prepared(fd, plan, str(bundle)):
            pass


def test_a_disk_that_is_too_small_is_known_beforehand(
    archive: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is unpacked that would not fit."""
    room = os.statvfs_result((4096, 4096, 10**6, 10**4, 16_000, 1, 1, 1, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: room)
    with (
        Fd(os.open(archive("web.tar"), os.O_RDONLY)) as fd,
        pytest.raises(NoSpace),
    ):
        Prepared(fd, carry.look(fd, "web.tar"), str(tmp_path / "bundle")).__enter__()
    assert not (tmp_path / "bundle").exists()


def test_set_user_id_and_devices_in_the_root_file_system(tmp_path: Path, archive: Make) -> None:
    """The former is the container's own; a device node needs a word, before the root is touched."""
    (tmp_path / "dev.tar.rootfs").mkdir()
    os.mknod(tmp_path / "dev.tar.rootfs/sda", 0o060600, os.makedev(8, 0))
    (tmp_path / "dev.tar.rootfs/su").write_bytes(b"x")
    (tmp_path / "dev.tar.rootfs/su").chmod(0o4755)
    path, bundle = archive("dev.tar"), tmp_path / "bundle"
    with Fd(os.open(path, os.O_RDONLY)) as fd:
        with pytest.raises(Exception, match="allow devices"):
            Prepared(fd, carry.look(fd, "dev.tar"), str(bundle)).__enter__()
        assert not bundle.exists()
        plan = carry.look(fd, "dev.tar", granted=["devices"])
        with Prepared(fd, plan, str(bundle)) as made:
            made.keep()
    assert (bundle / "rootfs/su").stat().st_mode & 0o7777 == 0o4755
    assert (bundle / "rootfs/sda").is_block_device()


def test_a_plan_of_hostile_words_is_lines_of_text(archive: Make) -> None:
    """Names from the archive cannot draw on the terminal of whoever looks at it."""
    spec = loud("/etc\x1b[2J\ngranted: mounts: nothing")
    with Fd(os.open(archive("web.tar", spec=spec), os.O_RDONLY)) as fd:
        for line in carry.look(fd, "web.tar").describe():
            assert line.isprintable(), line


def test_an_odd_document_is_a_refusal_and_no_traceback(foreign: Make) -> None:
    """Fields of other types than they have."""
    odd: list[dict[str, Any]] = [
        {"mounts": [7]}, {"mounts": {"a": 1}}, {"linux": {"namespaces": [7]}}, {"hooks": {"a": 1}},
        {"annotations": {"org.criu.config": []}}, {"linux": {"seccomp": 1, "sysctl": 3}},
        {"process": {"capabilities": {"x": 7}}}, {"linux": {"resources": 7}}, {"linux": []},
    ]  # fmt: skip
    for number, spec in enumerate(odd):
        files = {"checkpoint/inventory.img": b"x", "spec.dump": spec}
        path = foreign(f"{number}.tar", files)
        with Fd(os.open(path, os.O_RDONLY)) as fd:
            try:
                plan = carry.look(fd, str(path))
            except ArchiveRefused:
                continue
            list(plan.describe())
