"""A checkpoint as an image that registries carry, and back."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocimig.files import Fd
from ocimig.migrate.archive import content, oci, packing
from ocimig.migrate.archive.errors import ArchiveBroken, NoCheckpoint

Make = Callable[..., Path]


def make(path: Path, out: Path, how: str = "zstd") -> None:
    """As `archive convert --oci`."""
    with Fd(os.open(path, os.O_RDONLY)) as fd:
        oci.write(fd, content.read(fd, str(path)), str(out), compress=how)


def again(path: Path) -> content.Contents:
    """As `archive show` of an image."""
    with Fd(oci.open_archive(str(path))) as fd:
        return content.read(fd, str(path))


@pytest.mark.parametrize("how", packing.FORMS)
@pytest.mark.parametrize("out", ["image", "image.tar"])
def test_an_image_is_the_archive_again(archive: Make, tmp_path: Path, how: str, out: str) -> None:
    """Every member as its manifest says, through the layer of a directory or of a tar."""
    make(archive("web.tar"), tmp_path / out, how)
    found = again(tmp_path / out)
    assert found.name == "web"
    assert found.manifest is not None


def test_each_engine_finds_its_annotations_where_it_looks(archive: Make, tmp_path: Path) -> None:
    """podman and CRI-O on the manifest, containerd on the index."""
    make(archive("web.tar", image_name="docker.io/library/web:1"), tmp_path / "image")
    index = json.loads((tmp_path / "image/index.json").read_text())
    entry = index["manifests"][0]
    blobs = tmp_path / "image/blobs/sha256"
    manifest = json.loads((blobs / entry["digest"].removeprefix("sha256:")).read_text())
    for holder in (index, entry, manifest):
        told = holder["annotations"]
        assert told["io.podman.annotations.checkpoint.name"] == "web"
        assert told["io.kubernetes.cri-o.annotations.checkpoint.name"] == "web"
        assert told["org.criu.checkpoint.container.name"] == "web"
        assert told["org.criu.checkpoint.rootfsImageName"] == "docker.io/library/web:1"


@pytest.mark.skopeo
@pytest.mark.parametrize(("out", "form"), [("image", "oci"), ("image.tar", "oci-archive")])
def test_skopeo_copies_it(archive: Make, tmp_path: Path, out: str, form: str) -> None:
    """To a registry's form and back; what comes back is the checkpoint."""
    make(archive("web.tar"), tmp_path / out, "gzip")
    policy = ["skopeo", "--insecure-policy"]
    source, other = f"{form}:{tmp_path / out}", tmp_path / "other"
    if form == "oci-archive":
        source += ":latest"
    subprocess.run([*policy, "copy", "-q", source, f"oci:{other}:latest"], check=True)
    shown = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{other}:latest"], check=True, capture_output=True
    )
    assert json.loads(shown.stdout)["annotations"]["org.criu.checkpoint.container.name"] == "web"
    assert again(other).name == "web"


def _damage(image: Path, change: Callable[[dict[str, Any]], None]) -> None:
    index = json.loads((image / "index.json").read_text())
    change(index)
    (image / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "digest", ["sha256:../../../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "0" * 32, "", "x"]
)
def test_a_digest_is_no_path(archive: Make, tmp_path: Path, digest: str) -> None:
    """It is 64 hexadecimal digits, or refused."""
    make(archive("web.tar"), tmp_path / "image")
    _damage(tmp_path / "image", lambda index: index["manifests"][0].update(digest=digest))
    with pytest.raises(NoCheckpoint):
        again(tmp_path / "image")


def test_a_blob_that_was_changed_is_found(archive: Make, tmp_path: Path) -> None:
    """The layer by its digest, and the manifest by its own."""
    make(archive("web.tar"), tmp_path / "image", "none")
    blobs = sorted((tmp_path / "image/blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)
    for blob, words in ((blobs[-1], "layer"), (blobs[-2], "manifest")):
        kept = blob.read_bytes()
        blob.write_bytes(kept.replace(b"web", b"bew", 1))
        with pytest.raises(ArchiveBroken, match=words):
            again(tmp_path / "image")
        blob.write_bytes(kept)
    again(tmp_path / "image")


def test_a_blob_that_is_a_link_is_not_followed(archive: Make, tmp_path: Path) -> None:
    """A layer outside the image is not one of it."""
    make(archive("web.tar"), tmp_path / "image")
    blobs = sorted((tmp_path / "image/blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)
    outside = tmp_path / "outside"
    blobs[-1].rename(outside)
    blobs[-1].symlink_to(outside)
    with pytest.raises(OSError, match="symbolic links"):
        again(tmp_path / "image")


def test_the_same_archive_gives_the_same_image(archive: Make, tmp_path: Path) -> None:
    """A registry that has it already takes nothing again."""
    path = archive("web.tar")
    make(path, tmp_path / "one.tar")
    make(path, tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
