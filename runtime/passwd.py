"""The home directory of a user as the container's own /etc/passwd says. Reads text, never runs NSS.

Looking a user up by the C library inside a container's root would load code from it (CVE-2019-14271).
"""

import os


def home(rootfs: str, uid: int) -> str:
    """Field 6 of the line of `uid`, or "/"."""
    text = _read(rootfs, "etc/passwd")
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 6 and fields[2] == str(uid).encode():
            return os.fsdecode(fields[5]) or "/"
    return "/"


def _read(rootfs: str, path: str, limit: int = 1 << 20) -> bytes:
    from ocimig.runtime.linux import openat2

    try:
        root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY  # a fifo there must not hang us
            rules = openat2.RESOLVE_IN_ROOT | openat2.RESOLVE_NO_MAGICLINKS
            fd = openat2.openat2(root, path, flags, resolve=rules)
        finally:
            os.close(root)
        try:
            return os.read(fd, limit)
        finally:
            os.close(fd)
    except OSError:
        return b""
