"""Whether the times of files tell of every change from one snapshot to the next. Reads only."""

import os

from ocimig.migrate import mountinfo
from ocimig.runtime.linux.files import statfs_type

# Not tmpfs: what is written through a mapping there changes no time. Not the file systems of a network or
# of a program: others write behind the kernel's back.
_TELL = (
    0xEF53,  # ext4
    0x58465342,  # xfs
    0x9123683E,  # btrfs
    0xF2F52010,  # f2fs
)
_OVERLAY = 0x794C7630


def times_tell(root: int) -> bool:
    """Whether a file below this open directory whose times and size are as before is as before.

    A layered file system is as good as the one that its changes go to.
    """
    kind = statfs_type(root)
    if kind != _OVERLAY:
        return kind in _TELL
    status = os.fstat(root)
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    for mount in mountinfo.read():
        if mount.device != device or mount.fstype != "overlay":
            continue
        for option in mount.super_options:
            if option.startswith("upperdir="):
                return _directory_tells(option.removeprefix("upperdir="))
    return False


def _directory_tells(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # relative, or with characters that mountinfo writes in another way
        return False
    try:
        return statfs_type(fd) in _TELL
    finally:
        os.close(fd)
