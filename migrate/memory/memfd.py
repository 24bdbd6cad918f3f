"""Sparse files in memory, offset = address: made, and copied from one to another. Knows no spaces."""

import errno
import os
import resource
from contextlib import suppress

from ocimig.migrate.memory.frames import TOP
from ocimig.migrate.memory.runs import Run
from ocimig.runtime.linux.fallocate import punch_hole

_MFD_CLOEXEC = 0x1
_STEP = 1 << 20


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


def copy_runs(origin: int, fd: int, runs: list[Run]) -> list[Run]:
    """Copy between two sparse files; what is a hole in one becomes one in the other. The others."""
    copied = []
    for start, end in runs:
        punch_hole(fd, start, end)
        at = start
        while at < end:
            try:
                at = os.lseek(origin, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only a hole is left
                    break
                raise
            if at >= end:
                break
            stop = min(end, os.lseek(origin, at, os.SEEK_HOLE))
            copied.append((at, stop))
            while at < stop:
                at += os.pwrite(fd, os.pread(origin, min(_STEP, stop - at), at), at)
    return copied
