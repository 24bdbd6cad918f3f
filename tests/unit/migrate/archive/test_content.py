"""What an archive says it is, whoever made it, and who vouches for it."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocimig.criu_images.image import CheckpointImage
from ocimig.files import Fd
from ocimig.migrate.archive import content, exporting, packing
from ocimig.migrate.archive.content import Contents, Signers
from ocimig.migrate.archive.errors import (
    ArchiveBroken,
    ArchiveRefused,
    BadSignature,
    CannotSign,
    ManifestMismatch,
    NoCheckpoint,
    NotSigned,
)
from ocimig.migrate.archive.exporting import Export

SPEC = {"ociVersion": "1.0.2", "annotations": {}, "process": {}, "linux": {}}
Make = Callable[..., Path]


def read(path: Path, signers: Signers | None = None) -> Contents:
    """As `archive verify` does."""
    with Fd(os.open(path, os.O_RDONLY)) as fd:
        return content.read(fd, str(path), signers=signers)


@pytest.mark.parametrize("how", packing.FORMS)
def test_what_is_written_is_read(archive: Make, how: str) -> None:
    """Name, date, processes, and every member as its manifest says."""
    found = read(archive("web.tar", compress=how))
    assert (found.maker, found.id, found.name) == ("ocimig", "web", "web")
    assert (found.processes, found.created) == (2, "2026-01-02T03:04:05Z")
    assert found.holds("rootfs-diff.tar")
    assert found.holds("checkpoint/pages-1.img")
    assert not found.signed


def test_other_readers_find_what_they_look_for(archive: Make) -> None:
    """checkpointctl and podman: a directory entry, the two dumps, plain modes, relative names."""
    path = archive("web.tar.gz", compress="gzip")
    with tarfile.open(path) as opened:
        members = {member.name: member for member in opened}
        assert members["checkpoint"].isdir()
        assert all(member.mode in (0o600, 0o700) for member in members.values())
        config = json.load(opened.extractfile("config.dump"))  # type: ignore[arg-type]
        spec = json.load(opened.extractfile("spec.dump"))  # type: ignore[arg-type]
    assert {"id", "name", "rootfsImageName", "runtime", "checkpointedTime"} <= set(config)
    assert spec["annotations"]["io.kubernetes.cri.container-name"] == "web"


def test_two_exports_of_one_checkpoint_are_the_same_file(archive: Make, tmp_path: Path) -> None:
    """Sorted, with the checkpoint's own date: nothing of the moment of writing is in it."""
    one = archive("one", compress="zstd")
    again = archive("two", compress="zstd")
    for path in (tmp_path / "one.rootfs", tmp_path / "two.rootfs"):
        for name in ("etc/motd", "etc", "."):
            os.utime(path / name, (5, 5))
    one.unlink()
    again.unlink()
    for name in ("one", "two"):
        wanted = Export(file=str(tmp_path / name))
        captured = exporting.capture(
            str(tmp_path / f"{name}.rootfs"), wanted, str(tmp_path / f"{name}.s2")
        )
        image = CheckpointImage(str(tmp_path / "one.checkpoint"))
        exporting.write_archive(image, captured, wanted)
    assert one.read_bytes() == again.read_bytes()


def test_a_signature_of_the_one_who_is_named_holds(
    archive: Make, keys: Callable[[str], Path], tmp_path: Path
) -> None:
    """And of nobody else."""
    path = archive("web.tar", key=str(keys("ops@site")))
    keys("eve@site")
    signers = str(tmp_path / "signers")
    assert read(path, Signers(signers, "ops@site")).signer == "ops@site"
    assert read(path).signed
    for name in ("eve@site", "nobody"):
        with pytest.raises(BadSignature, match=name) as caught:
            read(path, Signers(signers, name))
        assert caught.value.code == 12


def test_no_signature_is_none(archive: Make, keys: Callable[[str], Path], tmp_path: Path) -> None:
    """Where one is wanted."""
    keys("ops@site")
    with pytest.raises(NotSigned):
        read(archive("web.tar"), Signers(str(tmp_path / "signers"), "ops@site"))


def test_a_signature_of_another_namespace_or_time_is_none(
    archive: Make, keys: Callable[[str], Path], tmp_path: Path
) -> None:
    """One made for git is no word about a checkpoint; nor is one of a key that has expired."""
    key = keys("ops@site")
    path = archive("web.tar", key=str(key), compress="none")
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    expired = tmp_path / "expired"
    expired.write_text(f'ops@site valid-before="20200101" {public}\n')
    with pytest.raises(BadSignature):
        read(path, Signers(str(expired), "ops@site"))
    listed = tmp_path / "listed"
    with tarfile.open(path) as opened:
        listed.write_bytes(opened.extractfile("ocimig/manifest.json").read())  # type: ignore[union-attr]
    command = ["ssh-keygen", "-Y", "sign", "-q", "-n", "git", "-f", str(key), str(listed)]
    subprocess.run(command, check=True, capture_output=True)
    other = _replace(path, "ocimig/manifest.sig", Path(f"{listed}.sig").read_bytes())
    with pytest.raises(BadSignature):
        read(other, Signers(str(tmp_path / "signers"), "ops@site"))


def _replace(path: Path, name: str, data: bytes | None, add: str = "") -> Path:
    """The archive with one member replaced, removed (None), or another one added at the end."""
    out = path.with_suffix(".other")
    with tarfile.open(path) as source, tarfile.open(out, "w") as target:
        for member in source:
            held = source.extractfile(member) if member.isfile() else None
            if member.name == name:
                if data is None:
                    continue
                member.size = len(data)
                target.addfile(member, io.BytesIO(data))
                continue
            target.addfile(member, held)
        if add:
            target.addfile(tarfile.TarInfo(add))
    return out


def test_what_was_changed_after_signing_is_found(
    archive: Make, keys: Callable[[str], Path], tmp_path: Path
) -> None:
    """A member added, removed or replaced; before anything else of the archive is believed."""
    path = archive("web.tar", key=str(keys("ops@site")), compress="none")
    signers = Signers(str(tmp_path / "signers"), "ops@site")
    for name, data, add, words in (
        ("", b"", "checkpoint/evil.img", "evil.img was added"),
        ("checkpoint/pages-1.img", None, "", "pages-1.img is missing"),
        ("checkpoint/pages-1.img", b"evil", "", "pages-1.img is another"),
        ("spec.dump", b"{not json", "", "spec.dump is another"),
    ):
        with pytest.raises(ManifestMismatch, match=words):
            read(_replace(path, name, data, add), signers)
    listed = b'{"version": 1, "members": {}}'
    with pytest.raises(BadSignature):
        read(_replace(path, "ocimig/manifest.json", listed), signers)
    with pytest.raises(ManifestMismatch, match="its version is 2"):
        read(_replace(path, "ocimig/manifest.json", b'{"version": 2, "members": {}}'))


def test_a_key_that_is_none_makes_no_archive(archive: Make, tmp_path: Path) -> None:
    """The words of ssh-keygen, and no file."""
    with pytest.raises(CannotSign, match="no/such/key"):
        archive("web.tar", key="/no/such/key")
    assert not (tmp_path / "web.tar").exists()
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("annotations", "maker"),
    [({"io.container.manager": "libpod"}, "podman"), ({"io.container.manager": "cri-o"}, "CRI-O"),
     ({}, "containerd"), ({"io.container.manager": ["odd"]}, "containerd")],
)  # fmt: skip
def test_who_made_it_is_told_by_its_annotation(
    foreign: Make, annotations: dict[str, Any], maker: str
) -> None:
    """As checkpointctl tells them apart."""
    files = {
        "checkpoint/inventory.img": b"x",
        "checkpoint/mm-1.img": b"x",
        "config.dump": {"id": "abc", "name": "web", "rootfsImageName": "docker.io/library/web"},
        "spec.dump": {**SPEC, "annotations": annotations},
    }
    found = read(foreign("a.tar", files))
    assert (found.maker, found.name, found.id, found.processes) == (maker, "web", "abc", 1)


def test_cri_o_calls_its_container_by_annotation(foreign: Make) -> None:
    """Its config.dump has no name; the log is a member named by an annotation."""
    spec = {**SPEC, "annotations": {"io.container.manager": "cri-o",
                                    "io.kubernetes.container.name": "counter"}}  # fmt: skip
    files = {
        "checkpoint/inventory.img": b"x", "config.dump": {"rootfsImageRef": "x"}, "spec.dump": spec,
        "bind.mounts": [{"source": "/s", "destination": "/d", "file_type": "file"}],
        "io.kubernetes.cri-o.LogPath": b"log\n", "dump.log": b"log", "stats-dump": b"x",
    }  # fmt: skip
    found = read(foreign("a.tar", files))
    assert (found.maker, found.name) == ("CRI-O", "counter")


def test_an_archive_of_something_else_is_no_checkpoint(foreign: Make, tmp_path: Path) -> None:
    """No images, no configuration, no archive."""
    with pytest.raises(NoCheckpoint, match="inventory"):
        read(foreign("a.tar", {"spec.dump": SPEC}))
    with pytest.raises(NoCheckpoint, match="spec.dump"):
        read(foreign("b.tar", {"checkpoint/inventory.img": b"x"}))
    (tmp_path / "c").write_bytes(b"\x7fELF" * 1000)
    with pytest.raises(ArchiveBroken):
        read(tmp_path / "c")


@pytest.mark.parametrize(
    "document", [b"{", b"[]", b'{"a": 1, "a": 2}', b"[" * 300 + b"]" * 300,
                 b'{"a":' * 100 + b"1" + b"}" * 100, b"NaN"],
)  # fmt: skip
def test_an_odd_document_is_refused(foreign: Make, document: bytes) -> None:
    """Deep, doubled, or of another kind."""
    files = {"checkpoint/inventory.img": b"x", "spec.dump": document}
    with pytest.raises(ArchiveRefused, match="spec.dump"):
        read(foreign("a.tar", files))


def test_a_document_of_forty_megabytes_is_refused(foreign: Make) -> None:
    """Before it is parsed, or even held."""
    files = {"checkpoint/inventory.img": b"x", "spec.dump": b" " * (40 << 20)}
    with pytest.raises(ArchiveRefused, match="spec.dump has"):
        read(foreign("a.tar", files))
