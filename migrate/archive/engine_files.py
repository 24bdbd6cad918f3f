"""Files that every engine binds into its containers, made anew in the bundle: what is in them is the
engine's own, and where they were is gone with it."""

import os

from ocimig import files
from ocimig.files import Fd
from ocimig.migrate.archive import applying, content, planning
from ocimig.migrate.archive.asks import ENGINE_MADE
from ocimig.migrate.archive.limits import Limits, Rules

DIRECTORY = "engine"
_HOSTS = b"127.0.0.1\tlocalhost\n::1\tlocalhost\n"


def make(bundle: str, target: str, hostname: str, archive: str, limits: Limits) -> str:
    """The path of a file or directory for the mount at `target`, one of ENGINE_MADE.

    `archive` is where the archive was unpacked: what was in /dev/shm comes from there. What is in the
    bundle already is taken as it is.
    """
    place = os.path.join(bundle, DIRECTORY)
    os.makedirs(place, mode=0o711, exist_ok=True)
    path = os.path.join(place, target.strip("/").replace("/", "-"))
    if os.path.lexists(path):
        return path
    if ENGINE_MADE[target] == "file":
        files.write_atomic(path, _content(target, hostname), 0o644, sync=False)
        return path
    os.mkdir(path, 0o755)
    if target == "/dev/shm":
        os.chmod(path, 0o1777)
        _fill(path, os.path.join(archive, content.SHM), limits)
    return path


def _content(target: str, hostname: str) -> bytes:
    if target == "/etc/hosts":
        return _HOSTS + (b"127.0.1.1\t" + hostname.encode() + b"\n" if hostname else b"")
    if target == "/etc/hostname":
        return hostname.encode() + b"\n"
    if target == "/etc/resolv.conf":
        try:
            return files.read(target, limit=1 << 20)
        except OSError:
            return b""
    return b""


def _fill(path: str, archive: str, limits: Limits) -> None:
    try:
        fd = os.open(archive, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with Fd(fd):
        plan = planning.plan(fd, Rules(limits, rootfs=True), content.SHM)
        applying.apply(path, fd, plan)
