"""Memory that comes only when it is touched, asked for at once: whoever has to wait for all of it connects here.

A socket in the container's state directory. A connection is the whole message; that nobody listens means that
nobody has to be asked: then memory comes by itself, or is there.
"""

import os
import socket
from contextlib import suppress

from ocimig.files import Fd

NAME = "hurry"
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def listen(directory: str) -> socket.socket:
    """Readable when somebody has asked."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with Fd(os.open(directory, _FLAGS)) as fd:  # a path may be longer than such a name can be
        listener.bind(f"/proc/self/fd/{fd}/{NAME}")
        os.chmod(NAME, 0o600, dir_fd=fd)
    listener.listen()
    return listener


def ask(directory: str) -> None:
    """Have all of it come."""
    with (
        suppress(FileNotFoundError, ConnectionRefusedError),
        Fd(os.open(directory, _FLAGS)) as fd,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as end,
    ):
        end.connect(f"/proc/self/fd/{fd}/{NAME}")
