"""Small trees as lists."""

import base64
import os
import zlib
from pathlib import Path

import pytest

from ocimig.migrate import mountinfo, tmpfs


def _mount(root: Path, target: str) -> mountinfo.Mount:
    info = (root / target.lstrip("/")).stat()
    device = f"{os.major(info.st_dev)}:{os.minor(info.st_dev)}"
    return mountinfo.Mount(
        1, 0, device, "/", target, (), (), "tmpfs", "tmpfs", ("rw", "size=1m", "inode64")
    )


def _listing(root: Path, target: str = "/there") -> tuple[dict[str, object], ...] | None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return tmpfs.listing(fd, _mount(root, target))
    finally:
        os.close(fd)


def test_a_list_makes_the_same_tree(tmp_path: Path) -> None:
    """Files, links, directories, fifos with modes and times."""
    there = tmp_path / "there"
    (there / "d").mkdir(parents=True)
    (there / "d/file").write_bytes(b"\0data")
    (there / "large").write_bytes(large := os.urandom(100_000) + bytes(1 << 20))
    (there / "d/file").chmod(0o640)
    os.utime(there / "d/file", ns=(1, 2_000_000_003))
    (there / "link").symlink_to("d/file")
    os.mkfifo(there / "fifo")
    content = _listing(tmp_path)
    assert content is not None
    copy = tmp_path / "copy"
    copy.mkdir()
    fd = os.open(copy, os.O_RDONLY | os.O_DIRECTORY)
    try:
        tmpfs.fill(fd, content)
    finally:
        os.close(fd)
    assert (copy / "d/file").read_bytes() == b"\0data"
    assert (copy / "large").read_bytes() == large
    assert len(repr(content)) < 200_000  # zeros take no room
    assert (copy / "d/file").stat().st_mode == (there / "d/file").stat().st_mode
    assert (copy / "d/file").stat().st_mtime_ns == 2_000_000_003
    assert os.readlink(copy / "link") == "d/file"
    assert (copy / "fifo").is_fifo()
    assert copy.stat().st_mtime_ns == there.stat().st_mtime_ns


def test_what_a_list_cannot_carry_is_left_to_criu(tmp_path: Path) -> None:
    """Large files and second names."""
    there = tmp_path / "there"
    there.mkdir()
    (there / "file").write_bytes(b"x")
    os.link(there / "file", there / "other")
    assert _listing(tmp_path) is None
    (there / "other").unlink()
    assert _listing(tmp_path) is not None
    (there / "file").write_bytes(b"x" * (tmpfs.MOST_BYTES + 1))
    assert _listing(tmp_path) is None


def test_another_file_system_in_its_place_is_not_read(tmp_path: Path) -> None:
    """The container may have mounted over it, or put a link there."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("/proc")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        mount = _mount(tmp_path, "/there")
        assert tmpfs.listing(fd, mount) is not None
        away = mountinfo.Mount(1, 0, "0:1", "/", "/there", (), (), "tmpfs", "tmpfs", ())
        assert tmpfs.listing(fd, away) is None
        link = mountinfo.Mount(1, 0, mount.device, "/", "/link", (), (), "tmpfs", "tmpfs", ())
        assert tmpfs.listing(fd, link) is None
    finally:
        os.close(fd)


def test_a_name_below_a_link_is_refused(tmp_path: Path) -> None:
    """The list would be written out of the tmpfs, as root."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    common = {"uid": 0, "gid": 0, "mtime": 0}
    content = (
        {"name": "", "mode": 0o040755, **common},
        {"name": "l", "mode": 0o120777, "target": str(outside), **common},
        {"name": "l/x", "mode": 0o100644, **common},
    )
    fd = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(ValueError, match="no directory that came before"):
            tmpfs.fill(fd, content)
    finally:
        os.close(fd)
    assert os.listdir(outside) == os.listdir(inside) == []


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "."])
def test_names_that_leave_the_directory_are_refused(tmp_path: Path, name: str) -> None:
    """An image may come from elsewhere."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    entry = {"name": name, "mode": 0o100644, "uid": 0, "gid": 0, "mtime": 0}
    try:
        with pytest.raises(ValueError, match="no name"):
            tmpfs.fill(fd, ({"name": "", "mode": 0o40755, "uid": 0, "gid": 0, "mtime": 0}, entry))
    finally:
        os.close(fd)


def test_only_options_that_mount_takes_are_kept(tmp_path: Path) -> None:
    """inode64 and the like are what the kernel does anyway."""
    (tmp_path / "there").mkdir()
    assert tmpfs.options(_mount(tmp_path, "/there")) == ("size=1m",)


def test_a_packed_file_has_a_bound(tmp_path: Path) -> None:
    """A few kilobytes may unpack to gigabytes."""
    bomb = base64.b64encode(zlib.compress(bytes(16 << 20))).decode()
    root = {"name": "", "mode": 0o40755, "uid": 0, "gid": 0, "mtime": 0}
    entry = {"name": "bomb", "mode": 0o100600, "uid": 0, "gid": 0, "mtime": 0, "packed": bomb}
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(ValueError, match="more than"):
            tmpfs.fill(fd, (root, entry))
    finally:
        os.close(fd)
