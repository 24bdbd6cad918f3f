"""What the descriptors of a container's processes lead to, as far as CRIU cannot save it. Reads only.

`blockers` says what this is for.
"""

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from ocimig import files
from ocimig.migrate import watched
from ocimig.migrate.descriptors import GHOST_LIMIT
from ocimig.migrate.mountinfo import Mount
from ocimig.runtime.linux import unix_diag

Thing = dict[str, Any]

# criu/files.c dump_one_file: every other anonymous inode is refused, so this is what may be there.
SAVED_ANONYMOUS = ("[eventfd]", "[eventpoll]", "inotify", "[fanotify]", "[signalfd]", "[timerfd]", "[pidfd]")  # fmt: skip
ANONYMOUS = {
    "[io_uring]": "io_uring",
    "[userfaultfd]": "userfaultfd",
    "[perf_event]": "perf event",
    "[fscontext]": "file system context",
    "[landlock-ruleset]": "landlock ruleset",
    "seccomp notify": "seccomp listener",
    "bpf-map": "bpf map",
    "bpf-prog": "bpf",
    "bpf_link": "bpf",
    "bpf-link": "bpf",
    "kvm-": "virtual machine",
}
# The kernel's names of protocols (system.sockprotoname) that criu/sockets.c and sk-inet.c take.
SAVED_SOCKETS = {"UNIX", "UNIX-STREAM", "TCP", "TCPv6", "UDP", "UDPv6", "UDP-Lite", "UDPLITEv6", "PING",
                 "PINGv6", "RAW", "RAWv6", "PACKET", "NETLINK"}  # fmt: skip
SAVED_DEVICES = {1, 4, 5, *range(136, 144), 188, 204, 229}  # memory and terminals, by major number
DEVICES = {(10, 229): "fuse", (10, 232): "virtual machine", (10, 200): "tun"}
GRAPHICS = {195, 226, 236, 237, 511}
PIDFD_THREAD = os.O_EXCL
_SOCK_DGRAM = 2
_TABLES = {"TCP": "tcp", "TCPv6": "tcp6"}
KERNELS_OWN = ("/dev/zero", "/SYSV", "/memfd:", "/[aio]", "/anon_hugepage", "/[")


class Opened:
    """What the processes have open, looked at once each. `blind` are the file systems without handles."""

    def __init__(self, init: int, blind: set[int], overlay: bool = False) -> None:
        self.init = init
        self.blind = blind
        self.locked = _locked_inodes()
        self.overlay = overlay  # there stat(2) may tell another inode than /proc/locks
        self.watches: list[tuple[watched.Key, Thing]] = []
        self.sockets: dict[int, tuple[int, int]] = {}  # inode -> process, descriptor
        self.unix: set[int] = set()
        self.protocols: set[str] = set()
        self.held_namespaces: list[Thing] = []
        self.gone_directories: set[str] = set()
        self.gone_files: list[Thing] = []
        self.seen: set[tuple[Any, ...]] = set()

    def descriptors(self, pid: int) -> Iterator[Thing]:
        """Those of one process; sockets are kept until `ends`."""
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            return
        for number in numbers:
            link = f"/proc/{pid}/fd/{number}"
            try:
                name = os.readlink(link)
                there = os.stat(link)
                yield from self._descriptor(pid, int(number), name, there)
            except OSError:
                continue  # closed just now

    def _descriptor(self, pid: int, fd: int, name: str, there: os.stat_result) -> Iterator[Thing]:
        thing: Thing = {"pid": pid, "fd": fd, "name": name}
        kind = stat.S_IFMT(there.st_mode)
        if kind == stat.S_IFSOCK:
            yield from self._socket(thing, there)
        elif kind == stat.S_IFIFO:
            if name.startswith("pipe:") and _flags(pid, fd) & os.O_DIRECT:
                yield from self._once({"kind": "packet pipe", **thing}, there)
        elif name.startswith("anon_inode:"):
            yield from self._object(thing, there)
        elif name.startswith("/secretmem"):
            yield {"kind": "secret memory", **thing}
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            if kind == stat.S_IFBLK or os.major(there.st_rdev) not in SAVED_DEVICES:
                yield from self._once({"kind": of_device(there), **thing}, there)
        elif kind == stat.S_IFDIR:
            if name.endswith(" (deleted)"):
                self.gone_directories.add(name.removesuffix(" (deleted)"))
        elif kind == stat.S_IFREG:
            yield from self._file(thing, there)

    def _object(self, thing: Thing, there: os.stat_result) -> Iterator[Thing]:
        shown = thing["name"].removeprefix("anon_inode:")
        if shown in ("inotify", "[fanotify]"):
            for key in watched.marks(_info(thing["pid"], thing["fd"])):
                if key[0] in self.blind:
                    self.watches.append((key, {"kind": "inotify", **thing}))
        elif shown == "[pidfd]":
            if _flags(thing["pid"], thing["fd"]) & PIDFD_THREAD:
                yield {"kind": "thread pidfd", **thing}
        elif shown not in SAVED_ANONYMOUS:
            # all of them share one inode, so that they can be told apart only by where they are
            yield {"kind": anonymous(thing["name"]) or "kernel object", **thing}

    def _file(self, thing: Thing, there: os.stat_result) -> Iterator[Thing]:
        name = thing["name"]
        if name.startswith(
            ("net:[", "mnt:[", "pid:[", "user:[", "uts:[", "ipc:[", "cgroup:[", "time:[")
        ):
            self.held_namespaces.append({"kind": "foreign namespace", **thing})
            return
        locked = there.st_ino in self.locked or (self.overlay and self.locked)
        if locked and b"\nlock:" in _info(thing["pid"], thing["fd"]):
            yield from self._once({"kind": "file lock", **thing}, there)
        if name.endswith(" (deleted)") and not name.startswith(KERNELS_OWN):
            if there.st_nlink == 0:
                self.gone_files.append(thing)
            if self.new((there.st_dev, there.st_ino)):
                yield from self.without_name(thing, there)

    def without_name(self, thing: Thing, there: os.stat_result) -> Iterator[Thing]:
        """CRIU keeps what has no name any more in its images, up to a size; else it wants a new name."""
        if there.st_nlink:
            yield {"kind": "renamed file", **thing}
        elif there.st_blocks * 512 > GHOST_LIMIT:
            yield {"kind": "deleted file", "size": there.st_blocks * 512, **thing}

    # -- sockets

    def _socket(self, thing: Thing, there: os.stat_result) -> Iterator[Thing]:
        if not thing["name"].startswith("socket:"):
            yield {"kind": "socket file", **thing}  # opened by its path, with O_PATH
            return
        if there.st_ino in self.sockets:
            return
        self.sockets[there.st_ino] = thing["pid"], thing["fd"]
        name = os.getxattr(f"/proc/{thing['pid']}/fd/{thing['fd']}", "system.sockprotoname")
        protocol = name.rstrip(b"\0").decode(errors="replace")
        self.protocols.add(protocol)
        if protocol.startswith("UNIX"):
            self.unix.add(there.st_ino)
        elif protocol not in SAVED_SOCKETS:
            yield {"kind": "socket", "protocol": protocol, **thing}

    def ends(self, networks: Iterable[int]) -> Iterator[Thing]:
        """Sockets whose other end is outside, or in which something waits that would be lost."""
        if self.unix:
            yield from self._outside([each for pid in networks for each in _unix_sockets(pid)])
        yield from self._queues()

    def _outside(self, sockets: list[unix_diag.UnixSocket]) -> Iterator[Thing]:
        known = {each.inode: each for each in sockets}
        waiting = {inode for each in sockets if each.inode in self.unix for inode in each.waiting}
        for inode in sorted(self.unix):
            pid, fd = self.sockets[inode]
            thing: Thing = {"pid": pid, "fd": fd, "name": f"socket:[{inode}]"}
            there = known.get(inode)
            if there is None:
                yield {"kind": "foreign socket", **thing}
            elif there.peer and there.peer not in self.unix and there.peer not in waiting:
                same = there.type == _SOCK_DGRAM and there.peer in known
                yield {"kind": "unix datagrams" if same else "unix socket", **thing}

    def _queues(self) -> Iterator[Thing]:
        for name in _TABLES.keys() & self.protocols:
            for words in _lines(f"/proc/{self.init}/net/{_TABLES[name]}"):
                # a listening socket shows how many wait to be accepted where others show bytes
                if words[3] == "0A" and int(words[4].partition(":")[2], 16):
                    yield from self._queue("waiting connections", int(words[9]))
        for words in (
            _lines(f"/proc/{self.init}/net/netlink") if "NETLINK" in self.protocols else ()
        ):
            if int(words[4]):
                yield from self._queue("queued messages", int(words[9]))

    def _queue(self, kind: str, inode: int) -> Iterator[Thing]:
        if inode in self.sockets:
            pid, fd = self.sockets[inode]
            yield {"kind": kind, "pid": pid, "fd": fd, "name": f"socket:[{inode}]"}

    def lost_watches(self, mounts: Sequence[Mount]) -> Iterator[Thing]:
        """What is watched without a handle and cannot be found by name either."""
        named = watched.find(self.init, {key for key, _ in self.watches}, mounts)
        for key, thing in self.watches:
            if key not in named and self.new(("watch", thing["pid"], thing["fd"])):
                yield thing

    def left(self, namespaces: Collection[str]) -> Iterator[Thing]:
        """What can be said only when every process was looked at."""
        for thing in self.held_namespaces:
            if thing["name"] not in namespaces:
                yield thing
        for thing in self.gone_files:
            if os.path.dirname(thing["name"]) in self.gone_directories:
                yield {"kind": "file in a deleted directory", **thing}

    def new(self, key: tuple[Any, ...]) -> bool:
        """Whether this was not seen before."""
        if key in self.seen:
            return False
        self.seen.add(key)
        return True

    def _once(self, thing: Thing, there: os.stat_result) -> Iterator[Thing]:
        if self.new((thing["kind"], there.st_dev, there.st_ino)):
            yield thing


def anonymous(name: str) -> str:
    """What an anonymous inode is: `anon_inode:[io_uring]` or `anon_inode:bpf-prog`."""
    shown = name.removeprefix("anon_inode:")
    return next((kind for start, kind in ANONYMOUS.items() if shown.startswith(start)), "")


def of_device(there: os.stat_result) -> str:
    """The kind of a device that CRIU does not know."""
    major, minor = os.major(there.st_rdev), os.minor(there.st_rdev)
    if stat.S_ISCHR(there.st_mode):
        if major in GRAPHICS:
            return "graphics card"
        return DEVICES.get((major, minor), "device")
    return "device"


def _info(pid: int, fd: int) -> bytes:
    return files.read(f"/proc/{pid}/fdinfo/{fd}")


def _flags(pid: int, fd: int) -> int:
    _, _, rest = _info(pid, fd).partition(b"flags:")
    return int(rest.split(None, 1)[0], 8)


def _lines(path: str) -> list[list[str]]:
    """The lines of a table of /proc/PID/net after its heading."""
    try:
        text = files.read(path)
    except OSError:
        return []
    rows = [line.split() for line in text.decode().splitlines()[1:]]
    return [row for row in rows if len(row) > 9]


def _unix_sockets(pid: int) -> list[unix_diag.UnixSocket]:
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return unix_diag.sockets(namespace)
    finally:
        os.close(namespace)


def _locked_inodes() -> set[int]:
    """The last number of `1: POSIX ADVISORY WRITE 123 fd:01:4711 0 EOF`."""
    found: set[int] = set()
    for line in files.read("/proc/locks").splitlines():
        found.update(
            int(word.rpartition(b":")[2]) for word in line.split() if word.count(b":") == 2
        )
    return found
