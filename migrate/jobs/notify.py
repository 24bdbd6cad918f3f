"""sd_notify: tells systemd what a job is about. Without a NOTIFY_SOCKET nothing happens."""

import os
import socket


def notify(*lines: str) -> None:
    """Send lines as READY=1 or STATUS=…; who does not listen is no error of ours."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(5)  # a manager that does not read must not hold up a backup
            sock.sendto("\n".join(lines).encode(), address)
    except OSError:
        pass  # the status is a courtesy


def status(text: str, seconds: float) -> None:
    """Say what is being done, and that it may take so many seconds more."""
    line = " ".join(text.split())
    notify(f"STATUS={line}", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")
