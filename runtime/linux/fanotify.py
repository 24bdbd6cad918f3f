"""fanotify(7) with handles and names: what happens in a file system. Never decides what it means.

Layouts are those of <linux/fanotify.h>. Handles are compared, never opened: the bytes that an event
carries are those that name_to_handle_at(2) gives for the same file.
"""

import ctypes
import errno
import os
import struct
import sys

from ocimig.runtime.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocimig.runtime.linux.syscalls import Path

    # mask, handle of the directory, name in it ("." for itself), handle of the file; any may be b""
    Event = tuple[int, bytes, bytes, bytes]

FAN_CLOEXEC = 0x1
FAN_NONBLOCK = 0x2
FAN_CLASS_NOTIF = 0x0
FAN_UNLIMITED_QUEUE = 0x10
FAN_REPORT_FID = 0x200
FAN_REPORT_DIR_FID = 0x400
FAN_REPORT_NAME = 0x800
FAN_REPORT_TARGET_FID = 0x1000  # since Linux 5.17
FAN_REPORT_DFID_NAME_TARGET = (
    FAN_REPORT_FID | FAN_REPORT_DIR_FID | FAN_REPORT_NAME | FAN_REPORT_TARGET_FID
)

FAN_MARK_ADD = 0x1
FAN_MARK_FILESYSTEM = 0x100

FAN_MODIFY = 0x2
FAN_ATTRIB = 0x4
FAN_CLOSE_WRITE = 0x8
FAN_MOVED_FROM = 0x40
FAN_MOVED_TO = 0x80
FAN_CREATE = 0x100
FAN_DELETE = 0x200
FAN_Q_OVERFLOW = 0x4000
FAN_ONDIR = 0x40000000

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
MAX_HANDLE_SZ = 128

_INFO_FID, _INFO_DFID_NAME = 1, 2  # FAN_EVENT_INFO_TYPE_*
# enum fid_type of <linux/exportfs.h>; XFS_FILEID_TYPE_64FLAG; FILEID_BTRFS_WITHOUT_PARENT
_FILEID_INO32_GEN, _FILEID_INO64_GEN, _FILEID_BTRFS = 0x1, 0x81, 0x4D
_VERSION = 3  # FANOTIFY_METADATA_VERSION
_METADATA = struct.Struct("=IBBHQii")  # struct fanotify_event_metadata
_INFO = struct.Struct("=BBH8xII")  # fanotify_event_info_fid with fsid; handle_bytes, handle_type
_HANDLE = struct.Struct("=Ii")  # struct file_handle
_ROOM = 256 << 10  # bytes of events a read(2) takes at most


def fanotify_init(flags: int, event_f_flags: int = os.O_RDONLY) -> int:
    """A new group; needs CAP_SYS_ADMIN for whole file systems. EINVAL: the kernel is older than the flags."""
    fd = syscalls.libc.fanotify_init(ctypes.c_uint(flags), ctypes.c_uint(event_f_flags))
    if fd < 0:
        raise syscalls.oserror()
    return int(fd)


def fanotify_mark(fd: int, flags: int, mask: int, dirfd: int, path: "Path" = None) -> None:
    """Ask for events. EOPNOTSUPP, ENODEV, EXDEV: the file system has no handles that tell it apart."""
    result = syscalls.libc.fanotify_mark(
        fd, ctypes.c_uint(flags), ctypes.c_uint64(mask), dirfd, syscalls.path(path)
    )
    if result < 0:
        raise syscalls.oserror(path)


def name_to_handle_at(dirfd: int, path: "Path" = "", flags: int = AT_EMPTY_PATH) -> bytes:
    """The handle of a file as events carry it: its length, its type, its bytes."""
    room = ctypes.create_string_buffer(_HANDLE.pack(MAX_HANDLE_SZ, 0), _HANDLE.size + MAX_HANDLE_SZ)
    mount = ctypes.c_int()
    result = syscalls.libc.name_to_handle_at(
        dirfd, syscalls.path(path), room, ctypes.byref(mount), flags
    )
    if result < 0:
        raise syscalls.oserror(path)
    raw = room.raw
    return raw[: _HANDLE.size + _HANDLE.unpack_from(raw)[0]]


def inode_of(handle: bytes) -> int:
    """The inode number that a handle is made of; 0 where its kind is not known.

    Two words are number and generation (ext4, f2fs, xfs with small numbers), three are generation and
    number (tmpfs); xfs with large numbers and btrfs begin with 64 bits of it.
    """
    size, kind = _HANDLE.unpack_from(handle)
    if kind == _FILEID_INO32_GEN and size == 8:
        return int.from_bytes(handle[8:12], sys.byteorder)
    if kind == _FILEID_INO32_GEN and size == 12:
        return int.from_bytes(handle[12:20], sys.byteorder)
    if kind in (_FILEID_INO64_GEN, _FILEID_BTRFS):
        return int.from_bytes(handle[8:16], sys.byteorder)
    return 0


def events(fd: int) -> "Iterator[Event]":
    """All that waits in a group that does not block. Raises OSError(EPROTO) for another kernel's layout."""
    while True:
        try:
            data = os.read(fd, _ROOM)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            length, version, _, head, mask, _, _ = _METADATA.unpack_from(data, at)
            if version != _VERSION:
                raise OSError(errno.EPROTO, f"fanotify events of version {version}")
            yield mask, *_records(data, at + head, at + length)
            at += length


def _records(data: bytes, at: int, end: int) -> "tuple[bytes, bytes, bytes]":
    """What the records of one event name."""
    directory = name = target = b""
    while at < end:
        kind, _, size, handle_bytes, _ = _INFO.unpack_from(data, at)
        start = at + _INFO.size - _HANDLE.size
        stop = start + _HANDLE.size + handle_bytes
        if kind == _INFO_DFID_NAME:
            directory, name = data[start:stop], data[stop : at + size].partition(b"\0")[0]
        elif kind == _INFO_FID:
            target = data[start:stop]
        at += size
    return directory, name, target
