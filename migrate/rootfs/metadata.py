"""Owner, mode, attributes and times of one file, in the only order that keeps them all."""

import errno
import os
from collections.abc import Iterable

from ocimig.migrate.rootfs import records
from ocimig.migrate.rootfs.records import Record

# What a new file can inherit here (a default ACL of its directory) and an old one can have lost there.
_OURS = (b"user.", b"trusted.", b"security.capability", b"system.posix_acl_")


def apply(record: Record, fd: int, name: str = "") -> list[str]:
    """Make a file as its record says; the attributes that the file system here cannot keep come back.

    `fd` is the file itself, or with `name` the directory it is in. chown(2) clears set-user-id and
    capabilities, chmod(2) changes an ACL: so owner, mode, attributes, times.
    """
    if not name:
        os.fchown(fd, record.uid, record.gid)
        os.fchmod(fd, record.mode)
        notes = _set_attributes(record, fd)
        os.utime(fd, ns=(record.atime_ns, record.mtime_ns))
        return notes
    os.chown(name, record.uid, record.gid, dir_fd=fd, follow_symlinks=False)
    # There is no fchmodat(2) that does not follow links before Linux 6.6: a handle and its path in
    # /proc reach the very file instead.
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        path = f"/proc/self/fd/{handle}"
        if record.type != records.SYMLINK:
            os.chmod(path, record.mode)
        notes = _set_attributes(record, path)
    finally:
        os.close(handle)
    os.utime(name, ns=(record.atime_ns, record.mtime_ns), dir_fd=fd, follow_symlinks=False)
    return notes


def _set_attributes(record: Record, of: int | str) -> list[str]:
    notes = []
    wanted = dict(record.attributes)
    for name in _there(of):
        if name not in wanted and name.startswith(_OURS):
            os.removexattr(of, name)
    for name, value in wanted.items():
        try:
            os.setxattr(of, name, value)
        except OSError as error:
            if name.startswith(_OURS) or error.errno not in (
                errno.ENOTSUP,
                errno.EPERM,
                errno.EINVAL,
            ):
                shown = os.fsdecode(name)
                raise OSError(error.errno, f"attribute {shown}: {error.strerror}") from None
            notes.append(f"{os.fsdecode(record.path)}: {os.fsdecode(name)} cannot be kept here")
    return notes


def _there(of: int | str) -> Iterable[bytes]:
    try:
        return [os.fsencode(name) for name in os.listxattr(of)]
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return ()
        raise
