"""Names of watched files, found by their inodes."""

import os
from pathlib import Path

from ocimig.migrate import watched
from ocimig.migrate.mountinfo import Mount

INFO = b"""pos:	0
flags:	00
mnt_id:	15
inotify wd:1 ino:2220d5 sdev:fe00000 mask:fff ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:d5
fanotify flags:0 event-flags:8000
fanotify mnt_id:12 mflags:0 mask:20 ignored_mask:0
fanotify ino:310135 sdev:27 mflags:0 mask:20 ignored_mask:0 fhandle-bytes:20 fhandle-type:f8 f_handle:00
"""


def mount(path: Path, fstype: str = "overlay", *options: str) -> Mount:
    """As if `path` were the root of a file system."""
    there = os.stat(path).st_dev
    device = f"{os.major(there)}:{os.minor(there)}"
    return Mount(1, 0, device, "/", str(path), (), (), fstype, "x", options)


def key(path: Path) -> watched.Key:
    """As fdinfo names it."""
    there = path.stat()
    return os.major(there.st_dev) << 20 | os.minor(there.st_dev), there.st_ino


def test_marks_are_read_from_fdinfo() -> None:
    """Those on files; a mark on a mount has no inode, and CRIU needs no name for it."""
    assert watched.marks(INFO) == [(0xFE00000, 0x2220D5), (0x27, 0x310135)]


def test_only_file_systems_without_handles_are_blind(tmp_path: Path) -> None:
    """An overlay with nfs_export has handles."""
    sdev = key(tmp_path)[0]
    assert watched.blind([mount(tmp_path)]) == {sdev}
    assert (
        watched.blind([mount(tmp_path, "ext4"), mount(tmp_path, "overlay", "nfs_export=on")])
        == set()
    )


def test_files_are_found_by_their_inode(tmp_path: Path) -> None:
    """The top itself, and however deep."""
    deep = tmp_path / "a/b/c"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    wanted = {key(tmp_path), key(deep), key(deep / "file")}
    found = watched.find(os.getpid(), wanted, [mount(tmp_path)])
    assert found == {key(path): str(path) for path in (tmp_path, deep, deep / "file")}


def test_what_is_gone_is_not_found(tmp_path: Path) -> None:
    """And another of the same number on another file system is not it."""
    (tmp_path / "file").touch()
    gone = key(tmp_path / "file")
    (tmp_path / "file").unlink()
    (tmp_path / "other").mkdir()
    elsewhere = (gone[0] + 1, key(tmp_path / "other")[1])
    found = watched.find(os.getpid(), {(gone[0], 2**63), elsewhere}, [mount(tmp_path)])
    assert found == {}


def test_nothing_is_searched_where_nothing_is_watched() -> None:
    """The usual container: not even its mounts are read."""
    assert watched.paths(-1, [os.getpid()]) == []
