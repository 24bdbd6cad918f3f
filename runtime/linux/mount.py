"""mount(2) and the mount calls on descriptors, as in <sys/mount.h> and <linux/mount.h>. Decides nothing."""

import ctypes
import os
import struct

from ocimig.runtime.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocimig.runtime.linux.syscalls import Path

AT_EMPTY_PATH = 0x1000
AT_FDCWD = -100
AT_NO_AUTOMOUNT = 0x800
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_BINARY = 2
FSCONFIG_SET_PATH = 3
FSCONFIG_SET_PATH_EMPTY = 4
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7
FSMOUNT_CLOEXEC = 0x1
FSOPEN_CLOEXEC = 0x1
FSPICK_CLOEXEC = 0x1
FSPICK_EMPTY_PATH = 0x8
FSPICK_SYMLINK_NOFOLLOW = 0x2

MNT_DETACH = 0x2
MNT_EXPIRE = 0x4
MNT_FORCE = 0x1
UMOUNT_NOFOLLOW = 0x8

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70  # the field of the three below; RELATIME is its zero
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

MOVE_MOUNT_F_SYMLINKS = 0x1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOVE_MOUNT_SET_GROUP = 0x100
MOVE_MOUNT_BENEATH = 0x200

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SILENT = 0x8000
MS_POSIXACL = 0x10000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_I_VERSION = 0x800000
MS_STRICTATIME = 0x1000000
MS_LAZYTIME = 0x2000000

OPEN_TREE_CLOEXEC = os.O_CLOEXEC
OPEN_TREE_CLONE = 0x1

_libc = syscalls.libc
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.pivot_root.argtypes = (ctypes.c_char_p, ctypes.c_char_p)


def mount(
    source: "Path", target: "Path", fstype: "Path" = None, flags: int = 0, data: "Path" = None
) -> None:
    """Attach a file system, bind, move or change one. mount(2)."""
    if _libc.mount(
        syscalls.path(source),
        syscalls.path(target),
        syscalls.path(fstype),
        flags,
        syscalls.path(data),
    ):
        raise syscalls.oserror(target)


def umount2(target: "Path", flags: int = 0) -> None:
    """Detach what is mounted on `target`. umount(2)."""
    if _libc.umount2(syscalls.path(target), flags):
        raise syscalls.oserror(target)


def pivot_root(new_root: "Path", put_old: "Path") -> None:
    """Swap the root of this mount namespace. pivot_root(2)."""
    if _libc.pivot_root(syscalls.path(new_root), syscalls.path(put_old)):
        raise syscalls.oserror(new_root)


def open_tree(dirfd: int, filename: "Path", flags: int) -> int:
    """A descriptor of a mount, or with OPEN_TREE_CLONE of a detached copy. Since Linux 5.2."""
    return syscalls.call(
        syscalls.NR_open_tree, dirfd, syscalls.path(filename), flags, filename=filename
    )


def move_mount(
    from_dirfd: int, from_path: "Path", to_dirfd: int, to_path: "Path", flags: int
) -> None:
    """Attach a detached mount, or move one. Since Linux 5.2."""
    syscalls.call(
        syscalls.NR_move_mount,
        from_dirfd,
        syscalls.path(from_path),
        to_dirfd,
        syscalls.path(to_path),
        flags,
        filename=to_path,
    )


def mount_setattr(
    dirfd: int,
    filename: "Path",
    flags: int,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """Change the flags of one mount or, with AT_RECURSIVE, of a tree: all or none. Since Linux 5.12."""
    attributes = struct.pack("=QQQQ", attr_set, attr_clr, propagation, userns_fd)
    syscalls.call(
        syscalls.NR_mount_setattr,
        dirfd,
        syscalls.path(filename),
        flags,
        attributes,
        len(attributes),
        filename=filename,
    )


def fsopen(fsname: str, flags: int = FSOPEN_CLOEXEC) -> int:
    """A blank configuration of a file system. Since Linux 5.2."""
    return syscalls.call(syscalls.NR_fsopen, syscalls.path(fsname), flags, filename=fsname)


def fspick(dirfd: int, filename: "Path", flags: int = FSPICK_CLOEXEC) -> int:
    """The configuration of a mounted file system. Since Linux 5.2."""
    return syscalls.call(
        syscalls.NR_fspick, dirfd, syscalls.path(filename), flags, filename=filename
    )


def fsconfig(
    fd: int, command: int, key: "str | None" = None, value: "Path" = None, aux: int = 0
) -> None:
    """Set one option of a configuration, or with FSCONFIG_CMD_* act on it. Since Linux 5.2."""
    syscalls.call(
        syscalls.NR_fsconfig, fd, command, syscalls.path(key), syscalls.path(value), aux,
        filename=key,
    )  # fmt: skip


def fsmount(fd: int, flags: int = FSMOUNT_CLOEXEC, attr_flags: int = 0) -> int:
    """A detached mount of a created configuration. Since Linux 5.2."""
    return syscalls.call(syscalls.NR_fsmount, fd, flags, attr_flags)
