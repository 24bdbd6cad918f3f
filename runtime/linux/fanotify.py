"""fanotify(7) with directory handles and names: what happens in a file system. Never decides what it means.

Layouts are those of <linux/fanotify.h>. Handles are compared, never opened: the bytes that an event
carries are those that name_to_handle_at(2) gives for the same directory.
"""

import ctypes
import errno
import os
import struct

from ocimig.runtime.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocimig.runtime.linux.syscalls import Path

    Event = tuple[int, bytes, bytes]  # mask, handle of the directory, name in it ("." for itself)

FAN_CLOEXEC = 0x1
FAN_NONBLOCK = 0x2
FAN_CLASS_NOTIF = 0x0
FAN_UNLIMITED_QUEUE = 0x10
FAN_REPORT_DIR_FID = 0x400
FAN_REPORT_NAME = 0x800
FAN_REPORT_DFID_NAME = FAN_REPORT_DIR_FID | FAN_REPORT_NAME

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

_INFO_DFID_NAME = 2  # FAN_EVENT_INFO_TYPE_DFID_NAME
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


def events(fd: int) -> "Iterator[Event]":
    """All that waits in a group that does not block; an overflow comes with an empty handle.

    An event that names no directory is left out. Raises OSError(EPROTO) for another kernel's layout.
    """
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
            if mask & FAN_Q_OVERFLOW:
                yield mask, b"", b""
            elif length > head:
                kind, _, size, handle_bytes, _ = _INFO.unpack_from(data, at + head)
                if kind == _INFO_DFID_NAME:
                    start = at + head + _INFO.size - _HANDLE.size
                    stop = start + _HANDLE.size + handle_bytes
                    name = data[stop : at + head + size].partition(b"\0")[0]
                    yield mask, data[start:stop], name
            at += length
