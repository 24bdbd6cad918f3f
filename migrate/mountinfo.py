"""/proc/PID/mountinfo as values, and where on the host a mount of a container comes from. Reads only."""

import os
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo. `device` is "major:minor"; `root` is the part of the file system shown."""

    id: int
    parent: int
    device: str
    root: str
    target: str
    options: tuple[str, ...]
    tags: tuple[str, ...]
    fstype: str
    source: str
    super_options: tuple[str, ...]

    @property
    def slave(self) -> bool:
        """Whether mounts made elsewhere appear here."""
        return any(tag.startswith("master:") for tag in self.tags)


def read(pid: int | str = "self") -> list[Mount]:
    """The mounts as the process sees them, in the kernel's order: parents before children."""
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        return parse(file.read())


def parse(data: bytes) -> list[Mount]:
    """The lines of a mountinfo file."""
    return [_line(line) for line in data.split(b"\n") if line]


def _line(line: bytes) -> Mount:
    left, _, right = line.partition(b" - ")
    number, parent, device, root, target, options, *tags = left.split(b" ")
    fstype, source, super_options = right.split(b" ", 2)
    return Mount(
        int(number),
        int(parent),
        device.decode(),
        _text(root),
        _text(target),
        tuple(options.decode().split(",")),
        tuple(tag.decode() for tag in tags),
        fstype.decode(),
        _text(source),
        tuple(os.fsdecode(super_options).split(",")),
    )


def _text(field: bytes) -> str:
    if b"\\" in field:
        for code, byte in (
            (b"\\040", b" "),
            (b"\\011", b"\t"),
            (b"\\012", b"\n"),
            (b"\\134", b"\\"),
        ):
            field = field.replace(code, byte)
    return os.fsdecode(field)


def below(path: str, directory: str) -> str | None:
    """The rest of `path` below `directory` ("" for itself), None when it is not there."""
    if directory == "/":
        return path.lstrip("/")
    if path == directory:
        return ""
    return path[len(directory) + 1 :] if path.startswith(directory + "/") else None


def host_path(mount: Mount, host: Iterable[Mount]) -> str:
    """Where the same files are on the host, "" when nothing there shows them.

    The last of several wins: it is the one on top.
    """
    found = ""
    for other in host:
        if other.device != mount.device:
            continue
        rest = below(mount.root, other.root)
        if rest is not None:
            found = os.path.join(other.target, rest) if rest else other.target
    return found
