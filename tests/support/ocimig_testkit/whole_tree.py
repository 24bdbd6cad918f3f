"""A directory tree with one of everything in it. Needs root."""

import os
import stat
import struct
from pathlib import Path


def write(path: Path, data: bytes = b"x") -> Path:
    """A file, with its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def capability(path: Path) -> None:
    """cap_net_bind_service as setcap writes it."""
    os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))


def make_everything(root: Path) -> None:
    """One of each thing that a root file system can hold."""
    write(root / "etc/passwd", b"root:x:0:0\n")
    write(root / "bin/su", b"\x7fELF").chmod(0o4755)
    capability(write(root / "bin/ping", b"\x7fELF"))
    os.chown(root / "bin/ping", 7, 8)
    capability(root / "bin/ping")
    write(root / "big", os.urandom(3 << 20))
    write(root / "unreadable").chmod(0)
    (root / "empty").touch()
    os.link(root / "etc/passwd", root / "etc/passwd-")
    os.symlink("/etc/passwd", root / "link")
    os.link(root / "link", root / "link2", follow_symlinks=False)
    os.symlink("nowhere" * 100, root / "dangling")
    os.chown(root / "link", 3, 4, follow_symlinks=False)
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    os.mknod(root / "socket", stat.S_IFSOCK | 0o755)
    (root / "tmp").mkdir(mode=0o777)
    (root / "tmp").chmod(0o1777)
    write(root / "tmp/attr")
    os.setxattr(root / "tmp/attr", "user.name", b"\0value\xff")
    os.setxattr(root / "tmp", "trusted.overlay.opaque", b"y")
    os.setxattr(root / "link", "trusted.on-a-link", b"1", follow_symlinks=False)
    write(root / os.fsdecode(b"not \xff utf-8\nand a newline"), b"odd")
    write(root / ("n" * 255), b"long")
    (root / "d").mkdir()
    deep = root / "d" / "/".join(["d" * 20] * 60)
    deep.mkdir(parents=True)
    write(deep / "f")
    with open(root / "sparse", "wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
        file.truncate(100 << 20)
    write(root / "old")
    os.utime(root / "old", ns=(1, 123_456_789))
    os.utime(root / "dangling", ns=(5, 987_654_321_123_456_789), follow_symlinks=False)
    os.utime(root / "etc", ns=(0, -1_500_000_000))
    os.chown(root, 10, 20)
    root.chmod(0o750)
