"""Descriptors of a container that lead out of it: log files, the host's /dev/null, pipes. Reads only,
but for `open_again`.

A process that was started with a plain file of the host as its output holds a file that no mount of the
container shows; CRIU alone refuses it ("Can't lookup mount"). It is declared external and opened again
by name at restore. Pipes and sockets whose other end is outside are taken from the restorer's own
standard streams.
"""

import errno
import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ocimig.files import Fd
from ocimig.migrate.errors import FileGone
from ocimig.runtime.linux import proc

GHOST_LIMIT = (
    64 << 20
)  # bytes of a deleted file; CRIU's own megabyte refuses every deleted log file

_KEEP = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_SYNC | os.O_DSYNC
# Links of /proc/PID/fd that CRIU handles by themselves although their mount is in no mountinfo.
_NO_PATH = ("pipe:", "socket:", "anon_inode:", "/memfd:", "/SYSV", "/anon_hugepage", "mnt:", "net:",
            "pid:", "user:", "uts:", "ipc:", "cgroup:", "time:")  # fmt: skip
_DELETED = " (deleted)"  # what the kernel adds to the name of a file that has none any more
_KINDS = {stat.S_IFREG, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFIFO}
_NEVER = {
    "anon_inode:[io_uring]": "an io_uring",
    "anon_inode:[userfaultfd]": "a userfaultfd",
    "anon_inode:[perf_event]": "a performance counter",
    "anon_inode:bpf-prog": "a BPF program",
    "anon_inode:seccomp notify": "a seccomp listener",
    "anon_inode:kvm": "a virtual machine",
    "/secretmem": "secret memory",
}


@dataclass(frozen=True, slots=True)
class HostFile:
    """An open file that belongs to the host. `key` is CRIU's name of it."""

    key: str
    path: str
    flags: int
    position: int
    mode: int
    streams: tuple[int, ...] = ()  # which standard streams of the first process it was
    several: bool = False  # a plain file that was opened more than once, at different positions

    def handed(self) -> str:
        """The name under which CRIU takes our descriptor for it.

        CRIU compares names without their first letter first, and what it finds so it uses as it is: it
        need not be opened again by a mapped root who may not, nor have the size it had. Only a file
        with several positions is opened again, once for each.
        """
        return self.key if self.several else self.key[1:]

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "HostFile":
        """Ignores what it does not know."""
        known = {item.name for item in fields(cls)}
        kept = {name: inner for name, inner in value.items() if name in known}
        return cls(**{**kept, "streams": tuple(kept.get("streams", ()))})


def host_files(
    pids: Iterable[int], mounts: Collection[int], given: Sequence[str]
) -> list[HostFile]:
    """The files of the host that these processes hold open; `mounts` are the ids of the container's.

    `given` are the standard streams the first process was started with. It may hold them elsewhere for
    a moment: a shell keeps its output at descriptor 10 while a command's output is redirected.
    """
    found: dict[str, HostFile] = {}
    for pid in pids:
        for number in _numbers(pid):
            file = _host_file(pid, number, mounts)
            if file is None:
                continue
            file = replace(file, streams=_streams_of(file.path, given))
            known = found.get(file.key)
            found[file.key] = file if known is None else _merged(known, file)
    return list(found.values())


def _streams_of(path: str, given: Sequence[str]) -> tuple[int, ...]:
    """Which of the standard streams lead there; a file may have lost its name since."""
    names = (path, path.removesuffix(_DELETED))
    return tuple(number for number, name in enumerate(given[:3]) if name in names)


def _merged(one: HostFile, other: HostFile) -> HostFile:
    """Two descriptors of one file: one that can do what both can."""
    differ = (one.flags, one.position) != (other.flags, other.position)
    flags = one.flags
    if flags & os.O_ACCMODE != other.flags & os.O_ACCMODE:
        flags = flags & ~os.O_ACCMODE | os.O_RDWR
    return replace(
        one,
        flags=flags,
        several=one.several or (differ and stat.S_ISREG(one.mode)),
    )


def _numbers(pid: int) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        return []


def _host_file(pid: int, number: int, mounts: Collection[int]) -> HostFile | None:
    link = f"/proc/{pid}/fd/{number}"
    try:
        path = os.readlink(link)
        if path.startswith(_NO_PATH) or not path.startswith("/"):
            return None
        info = fdinfo(pid, number)
        if info["mnt_id"] in mounts:
            return None
        there = os.stat(link)
    except (FileNotFoundError, ProcessLookupError):
        return None
    if stat.S_IFMT(there.st_mode) not in _KINDS:
        return None
    if stat.S_ISCHR(there.st_mode) and os.major(there.st_rdev) in {4, 5, 136, 137, 138, 139}:
        return None  # terminals have their own rules (--shell-job)
    key = f"file[{info['mnt_id']:x}:{there.st_ino:x}]"
    return HostFile(key, path, info["flags"], info["pos"], there.st_mode)


def unsupported(pids: Iterable[int]) -> list[str]:
    """Objects of these processes that CRIU has no way to save: "io_uring of worker (pid 12)"."""
    found = []
    for pid in pids:
        for number in _numbers(pid):
            try:
                link = os.readlink(f"/proc/{pid}/fd/{number}")
            except OSError:
                continue
            what = next((words for start, words in _NEVER.items() if link.startswith(start)), "")
            text = f"{what} of {_name(pid)} (pid {pid})"
            if what and text not in found:
                found.append(text)
    return found


def foreign_sockets(pid: int, given: Sequence[str]) -> list[int]:
    """Standard streams that are sockets of the host's network namespace: CRIU does not find them."""
    if os.path.samefile(f"/proc/{pid}/ns/net", "/proc/self/ns/net"):
        return []
    now = streams(pid)
    return [
        number
        for number, name in enumerate(given[:3])
        if name.startswith("socket:") and now[number] == name
    ]


def _name(pid: int) -> str:
    there = proc.stat(pid)
    return there.comm if there is not None else "?"


def fdinfo(pid: int, number: int) -> dict[str, int]:
    """pos, flags and mnt_id of a descriptor."""
    with Fd(os.open(f"/proc/{pid}/fdinfo/{number}", os.O_RDONLY | os.O_CLOEXEC)) as file:
        # fs/proc/fd.c writes these three first, whatever else a kind of descriptor adds
        words = os.read(file, 4096).split(None, 6)
    return {"pos": int(words[1]), "flags": int(words[3], 8), "mnt_id": int(words[5])}


def streams(pid: int) -> list[str]:
    """What descriptors 0 to 2 of a process are, as runc writes it to descriptors.json."""
    found = []
    for number in range(3):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except OSError:
            found.append("")
    return found


def open_again(file: HostFile, fallback: Sequence[int]) -> int:
    """The same file on this host, at the same position; the caller owns the descriptor.

    A file that is not there any more is made anew where its directory exists (a log that was rotated);
    else a standard stream of ours takes its place, where it was a standard stream.
    """
    name = file.path
    flags = file.flags & _KEEP | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
    try:
        if name.endswith(_DELETED):
            raise FileNotFoundError(errno.ENOENT, "it had no name any more", name)
        fd = _open_checked(name, flags, file.mode)
    except OSError as error:
        if file.streams and file.streams[0] < len(fallback):
            return os.dup(fallback[file.streams[0]])
        raise FileGone(path=name, reason=error.strerror or str(error)) from error
    if stat.S_ISREG(file.mode) and not file.flags & os.O_APPEND:
        os.lseek(fd, file.position, os.SEEK_SET)
    return fd


def _open_checked(name: str, flags: int, mode: int) -> int:
    if stat.S_ISREG(mode) and flags & os.O_ACCMODE != os.O_RDONLY:
        flags |= os.O_CREAT
    if stat.S_ISDIR(mode):
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    if stat.S_ISFIFO(mode):
        flags = flags & ~os.O_ACCMODE | os.O_RDWR  # a fifo without a reader would make us wait
    fd = os.open(name, flags, 0o600)
    if stat.S_IFMT(os.fstat(fd).st_mode) != stat.S_IFMT(mode):
        os.close(fd)
        raise OSError(0, "it is of another kind now", name)
    return fd
