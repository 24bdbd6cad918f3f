"""A root file system of one static busybox, made in a few milliseconds."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

_DIRECTORIES = (
    "bin dev etc home proc root run sbin sys tmp usr usr/bin usr/sbin var var/tmp".split()
)
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n",
    "etc/group": "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n",
    "etc/hostname": "box\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}


@cache
def busybox() -> Path:
    """Debian's static busybox."""
    found = shutil.which("busybox")
    if found is None:
        raise FileNotFoundError("no busybox: apt-get install busybox-static")
    return Path(os.path.realpath(found))


@cache
def applets() -> tuple[str, ...]:
    """The names that busybox answers to."""
    listed = subprocess.run([busybox(), "--list"], capture_output=True, text=True, check=True)
    return tuple(name for name in listed.stdout.split() if name != "busybox")


def make_rootfs(directory: Path) -> Path:
    """Fill `directory` with a root file system that has a shell and the usual tools."""
    for name in _DIRECTORIES:
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "tmp").chmod(0o1777)
    shutil.copy2(busybox(), directory / "bin/busybox")
    for name in applets():
        (directory / "bin" / name).symlink_to("busybox")
    for name, text in _FILES.items():
        (directory / name).write_text(text)
    return directory
