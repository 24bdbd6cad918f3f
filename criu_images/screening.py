"""CRIU's images from somewhere else, looked at before CRIU reads them as root. Reads only.

It finds what is no image, what is torn, and what the processes in it are: their capabilities, whether a
seccomp filter holds them, their parents. It is a defence and no sandbox: what CRIU does with an image that
passes is CRIU's own code.
"""

import os
import re
from dataclasses import dataclass, field

from ocimig.criu_images import binary, entries
from ocimig.criu_images.errors import BadImage

# Nothing but entries; others have data between them, or are no images but what a program wrote.
_FRAMED = re.compile(
    r"(core|mm|pagemap|fdinfo|fs|ids|mountpoints|utsns|timens|userns)-\d+\.img"
    r"|(pstree|files|seccomp|cgroup|reg-files|remap-fpath)\.img"
)
_CORE = re.compile(r"core-\d+\.img")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}\.img")
_MOST_ENTRIES = 10_000_000
_MOST_TASKS = 100_000
_FILTER = 2  # SECCOMP_MODE_FILTER


@dataclass(slots=True)
class Screened:
    """What was found: numbers of capabilities that any thread has or may get, threads without a filter."""

    tasks: int = 0
    capabilities: set[int] = field(default_factory=set)
    unfiltered: int = 0


def screen(directory: str, program: str) -> Screened:
    """Look at every image in a directory. Raises BadImage."""
    found = Screened()
    names = sorted(name for name in os.listdir(directory) if name.endswith(".img"))
    for name in names:
        path = os.path.join(directory, name)
        if not _NAME.fullmatch(name) or os.path.islink(path) or not os.path.isfile(path):
            raise BadImage(path=path, reason="it is no image of CRIU's")
        if _FRAMED.fullmatch(name):
            _framed(path)
        if _CORE.fullmatch(name):
            _credentials(path, program, found)
    _family(os.path.join(directory, "pstree.img"), program, found)
    return found


def _framed(path: str) -> None:
    """Magic, entries, the end: each entry whole."""
    for number, _ in enumerate(entries.read(path)):
        if number > _MOST_ENTRIES:
            raise BadImage(path=path, reason=f"it has more than {_MOST_ENTRIES} entries")


def _credentials(path: str, program: str, found: Screened) -> None:
    messages = binary.image_messages(program, "core_pb2")
    _, *read = entries.read(path)
    for data in read:
        entry = messages.core_entry()
        try:
            entry.ParseFromString(data)
        except ValueError as error:
            raise BadImage(path=path, reason=str(error)) from None
        if not entry.HasField("thread_core"):
            continue  # a zombie
        thread = entry.thread_core
        for words in (thread.creds.cap_inh, thread.creds.cap_prm, thread.creds.cap_eff,
                      thread.creds.cap_bnd, thread.creds.cap_amb):  # fmt: skip
            for index, word in enumerate(words):
                found.capabilities.update(32 * index + bit for bit in range(32) if word >> bit & 1)
        mode = thread.seccomp_mode if thread.HasField("seccomp_mode") else entry.tc.old_seccomp_mode
        found.unfiltered += mode != _FILTER


def _family(path: str, program: str, found: Screened) -> None:
    """Every process is there once, and its parents lead to the first."""
    messages = binary.image_messages(program, "pstree_pb2")
    parents: dict[int, int] = {}
    _, *read = entries.read(path)
    if not 0 < len(read) <= _MOST_TASKS:
        raise BadImage(path=path, reason=f"it has {len(read)} processes")
    for data in read:
        entry = messages.pstree_entry()
        try:
            entry.ParseFromString(data)
        except ValueError as error:
            raise BadImage(path=path, reason=str(error)) from None
        if entry.pid in parents or entry.pid <= 0:
            raise BadImage(path=path, reason=f"process {entry.pid} has no place in its tree")
        parents[entry.pid] = entry.ppid
    top = next(iter(parents))
    for pid in parents:
        seen = {pid}
        while pid != top:
            pid = parents[pid]
            if pid in seen or pid not in parents:
                raise BadImage(path=path, reason=f"process {pid} is nobody's child")
            seen.add(pid)
    found.tasks = len(parents)
