"""userfaultfd(2) and its ioctls, by their kernel names. Never decides what to watch or what to answer.

Addresses and lengths are bytes of the address space the descriptor belongs to, page aligned; that may
be another process's than ours. Layouts are those of <linux/userfaultfd.h>. Every function raises
OSError with the kernel's errno; those met in practice: EBUSY (another descriptor watches the range),
EEXIST (the page is there already), EAGAIN (the address space is changing: again), ENOENT (no such
range is registered), ESRCH (the process is gone), EINVAL (no such mapping, or an unknown feature).
"""

import errno
import fcntl
import os
import struct

from ocimig.runtime.linux import syscalls

UFFD_API = 0xAA
UFFD_USER_MODE_ONLY = 1

UFFD_FEATURE_PAGEFAULT_FLAG_WP = 1 << 0
UFFD_FEATURE_EVENT_FORK = 1 << 1
UFFD_FEATURE_EVENT_REMAP = 1 << 2
UFFD_FEATURE_EVENT_REMOVE = 1 << 3
UFFD_FEATURE_EVENT_UNMAP = 1 << 6
UFFD_FEATURE_THREAD_ID = 1 << 8
UFFD_FEATURE_EXACT_ADDRESS = 1 << 11
UFFD_FEATURE_WP_HUGETLBFS_SHMEM = 1 << 12
UFFD_FEATURE_WP_UNPOPULATED = 1 << 13
UFFD_FEATURE_WP_ASYNC = 1 << 15  # since Linux 6.7

UFFDIO_REGISTER_MODE_MISSING = 1 << 0
UFFDIO_REGISTER_MODE_WP = 1 << 1
UFFDIO_COPY_MODE_DONTWAKE = 1 << 0
UFFDIO_COPY_MODE_WP = 1 << 1
UFFDIO_ZEROPAGE_MODE_DONTWAKE = 1 << 0
UFFDIO_WRITEPROTECT_MODE_WP = 1 << 0
UFFDIO_WRITEPROTECT_MODE_DONTWAKE = 1 << 1

_READ, _WRITE = 2, 1


def _ioc(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | 0xAA << 8 | number


_API = _ioc(_READ | _WRITE, 0x3F, 24)
_REGISTER = _ioc(_READ | _WRITE, 0x00, 32)
_UNREGISTER = _ioc(_READ, 0x01, 16)
_WAKE = _ioc(_READ, 0x02, 16)
_COPY = _ioc(_READ | _WRITE, 0x03, 40)
_ZEROPAGE = _ioc(_READ | _WRITE, 0x04, 32)
_WRITEPROTECT = _ioc(_READ | _WRITE, 0x06, 24)

# Older than the numbers all architectures share.
_NUMBERS = {
    "x86_64": 323, "i686": 374, "ppc64le": 364, "ppc64": 364, "s390x": 355, "armv7l": 388,
}  # fmt: skip
_GENERIC = 282  # aarch64, riscv64, loongarch64


def userfaultfd(flags: int = UFFD_USER_MODE_ONLY) -> int:
    """A descriptor over our own address space, O_CLOEXEC and O_NONBLOCK. Unusable before `api`."""
    number = _NUMBERS.get(os.uname().machine, _GENERIC)
    return syscalls.call(number, flags | os.O_CLOEXEC | os.O_NONBLOCK)


def api(uffd: int, features: int = 0) -> int:
    """UFFDIO_API: ask for `features`, once for a descriptor; returns those the kernel has."""
    request = bytearray(struct.pack("=QQQ", UFFD_API, features, 0))
    fcntl.ioctl(uffd, _API, request)
    return int(struct.unpack_from("=Q", request, 8)[0])


def register(uffd: int, start: int, end: int, mode: int) -> None:
    """UFFDIO_REGISTER: watch every mapping between `start` and `end`, in UFFDIO_REGISTER_MODE_…"""
    fcntl.ioctl(uffd, _REGISTER, bytearray(struct.pack("=QQQQ", start, end - start, mode, 0)))


def unregister(uffd: int, start: int, end: int) -> None:
    """UFFDIO_UNREGISTER: watch no more; marks of write protection are taken away, waiters wake."""
    fcntl.ioctl(uffd, _UNREGISTER, struct.pack("=QQ", start, end - start))


def wake(uffd: int, start: int, length: int) -> None:
    """UFFDIO_WAKE: let whoever waits for a page of this range try again."""
    fcntl.ioctl(uffd, _WAKE, struct.pack("=QQ", start, length))


def writeprotect(uffd: int, start: int, length: int, mode: int) -> None:
    """UFFDIO_WRITEPROTECT: protect (UFFDIO_WRITEPROTECT_MODE_WP) or free (0) a range."""
    fcntl.ioctl(uffd, _WRITEPROTECT, bytearray(struct.pack("=QQQ", start, length, mode)))


def copy(uffd: int, dst: int, src: int, length: int, mode: int = 0) -> int:
    """UFFDIO_COPY of `length` bytes at our address `src` to their address `dst`.

    Returns the bytes that were put there, fewer than asked when the copy was cut short after a
    beginning; raises OSError when there was none.
    """
    request = bytearray(struct.pack("=QQQQq", dst, src, length, mode, 0))
    return _filled(uffd, _COPY, request, 32)


def zeropage(uffd: int, start: int, length: int, mode: int = 0) -> int:
    """UFFDIO_ZEROPAGE; returns and raises as `copy`."""
    return _filled(uffd, _ZEROPAGE, bytearray(struct.pack("=QQQq", start, length, mode, 0)), 24)


def _filled(uffd: int, command: int, request: bytearray, at: int) -> int:
    try:
        fcntl.ioctl(uffd, command, request)
    except OSError as error:
        # the kernel says EAGAIN both for "nothing yet" and for "some, go on from there"
        if error.errno != errno.EAGAIN:
            raise
        done = int(struct.unpack_from("=q", request, at)[0])
        if done <= 0:
            raise
        return done
    return int(struct.unpack_from("=q", request, at)[0])
