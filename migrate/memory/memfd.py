"""Sparse files in memory, offset = address: made. Knows no spaces."""

import errno
import os
import resource
from contextlib import suppress

from ocimig.migrate.memory.frames import TOP

_MFD_CLOEXEC = 0x1


def make(name: str) -> int:
    """An empty one that every offset up to TOP can be written in."""
    try:
        fd = os.memfd_create(f"ocimig-{name}", _MFD_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        # a descriptor for each process: the soft limit is for programs that use select(2)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        fd = os.memfd_create(f"ocimig-{name}", _MFD_CLOEXEC)
    with suppress(OSError):  # then mappings of it reach everywhere
        os.ftruncate(fd, TOP)
    return fd
