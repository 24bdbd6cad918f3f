"""The sealed directory."""

import os
from pathlib import Path

import pytest

from ocimig.criu_images.errors import BadImage
from ocimig.criu_images.image import CheckpointImage, Manifest


@pytest.fixture
def sealed(tmp_path: Path) -> CheckpointImage:
    """A checkpoint of two files."""
    image = CheckpointImage(str(tmp_path / "image"))
    os.mkdir(image.directory)
    Path(image.path("pages-1.img")).write_bytes(os.urandom(3 << 20))
    Path(image.path("core-1.img")).write_bytes(b"core")
    Path(image.path("dump.log")).write_text("for people")
    image.write_json("config.json", {"ociVersion": "1.2.0"})
    image.seal(Manifest.new("c1", "4.2.1"))
    return image


def test_what_was_sealed_is_verified(sealed: CheckpointImage) -> None:
    """Logs belong to nobody, the documents are in it."""
    manifest = sealed.verify()
    assert set(manifest.files) == {"pages-1.img", "core-1.img", "config.json"}
    assert manifest.id == "c1"
    Path(sealed.path("restore.log")).write_text("another log")
    sealed.verify()


@pytest.mark.parametrize("size", [0, 1, 4096, (3 << 20) - 1])
def test_every_truncation_is_refused(sealed: CheckpointImage, size: int) -> None:
    """By length alone."""
    os.truncate(sealed.path("pages-1.img"), size)
    with pytest.raises(BadImage, match=r"pages-1\.img has"):
        sealed.verify()


def test_one_bit_is_enough(sealed: CheckpointImage) -> None:
    """CRIU itself would restore it."""
    pages = Path(sealed.path("pages-1.img"))
    data = bytearray(pages.read_bytes())
    data[1 << 20] ^= 1
    pages.write_bytes(data)
    with pytest.raises(BadImage, match="was changed"):
        sealed.verify()


def test_links_extra_files_and_missing_ones_are_refused(
    sealed: CheckpointImage, tmp_path: Path
) -> None:
    """A link could be changed after it was hashed; an extra image could be read."""
    core = Path(sealed.path("core-1.img"))
    core.unlink()
    with pytest.raises(BadImage, match=r"core-1\.img"):
        sealed.verify()
    (tmp_path / "core").write_bytes(b"core")
    core.symlink_to(tmp_path / "core")
    with pytest.raises(BadImage, match=r"core-1\.img"):
        sealed.verify()
    core.unlink()
    core.write_bytes(b"core")
    Path(sealed.path("extra.img")).write_bytes(b"")
    with pytest.raises(BadImage, match=r"extra\.img"):
        sealed.verify()


def test_without_a_manifest_it_is_no_checkpoint(sealed: CheckpointImage) -> None:
    """It is written last: a crash before it leaves nothing that could be taken for whole."""
    os.unlink(sealed.path("manifest.json"))
    with pytest.raises(BadImage, match="never finished"):
        sealed.verify()
    with pytest.raises(BadImage, match="no such directory"):
        CheckpointImage(sealed.directory + "-none").verify()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version":2,"id":"a","files":{}}', '{"version":1,"files":{}}',
             '{"version":1,"id":"a","files":{"../x":{"size":0,"sha256":""}}}'],
)  # fmt: skip
def test_a_strange_manifest_is_refused_in_words(sealed: CheckpointImage, text: str) -> None:
    """Never a traceback."""
    Path(sealed.path("manifest.json")).write_text(text)
    with pytest.raises(BadImage):
        sealed.verify()


def test_a_parent_is_verified_with_its_child(sealed: CheckpointImage, tmp_path: Path) -> None:
    """And a link that was turned is noticed."""
    child = CheckpointImage(str(tmp_path / "child"))
    os.mkdir(child.directory)
    Path(child.path("core-1.img")).write_bytes(b"x")
    os.symlink("../image", child.path("parent"))
    child.seal(Manifest.new("c1", "4.2.1"))
    assert child.verify().parent == "../image"
    os.truncate(sealed.path("pages-1.img"), 5)
    with pytest.raises(BadImage):
        child.verify()
    os.unlink(child.path("parent"))
    os.symlink("../other", child.path("parent"))
    with pytest.raises(BadImage, match="parent"):
        child.verify()


def test_modes_are_closed(sealed: CheckpointImage) -> None:
    """Images hold passwords."""
    for name in ("pages-1.img", "manifest.json", "config.json"):
        assert os.stat(sealed.path(name)).st_mode & 0o777 == 0o600
