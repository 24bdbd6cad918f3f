"""A restore of images that are all here, whose memory comes while the container runs already."""

import errno
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack

from ocimig.files import Fd
from ocimig.migrate.errors import RestoreFailed
from ocimig.migrate.lazy import images
from ocimig.migrate.lazy.handler import SOCKET, PageHandler, Source


def served_by_another(work_path: str) -> bool:
    """Whether somebody listens for CRIU in its work directory already: `criu lazy-pages` (as runc has it).

    Asked with a socket of another type, which no listener ever sees: the kernel says that it is of the wrong
    type for one that lives, and refuses one whose owner was killed.
    """
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end,
        Fd(os.open(work_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd,
    ):
        return end.connect_ex(f"/proc/self/fd/{fd}/{SOCKET}") == errno.EPROTOTYPE


def serve(image_path: str, work_path: str, lost: Callable[[str], None]) -> PageHandler:
    """A page handler that has all memory of these images."""
    handler = PageHandler(work_path, lost=lost)
    try:
        with ExitStack() as opened:
            wanted: dict[int, list[Source]] = {}
            for pid, lazy in images.read(image_path):
                if lazy.withheld:
                    raise RestoreFailed(reason="not all of its memory is in the images")
                fd = opened.enter_context(Fd(os.open(lazy.pages, os.O_RDONLY | os.O_CLOEXEC)))
                wanted[pid] = [Source(fd, lazy.present)]
            handler.serve(wanted)
    except BaseException:
        handler.close()
        raise
    return handler
