"""Which names of a tree may have changed since they were last sent, told by the kernel. Reads no file.

    watch = Watch.start(root)                                  # before the first pass
    index, _ = send(wire, root, watch=watch)
    index, _ = send(wire, root, previous=index, watch=watch)   # looks at what changed only
    watch.close()

fanotify tells of every write(2), every name and every attribute, on the whole file system, by the handle of
the directory, the name in it, and the handle of the file, which says its inode: a file is found by any name
it has or had for a moment. Of two things it tells nothing, and they are looked at in any case: writes
through a shared mapping (`suspects` of send()), and writes by io_submit(2) into files that are still open
(`opened`). docs/adr/0019.
"""

import os
import stat
from collections.abc import Collection, Iterable

from ocimig import files
from ocimig.migrate.rootfs.index import Entry, Index
from ocimig.runtime.linux import fanotify
from ocimig.runtime.linux.files import statfs_type

# Where a directory keeps its handle for life and nobody writes behind the kernel's back: not overlayfs
# (another handle after copying up, before Linux 6.6 none), not a network's file system, not FUSE.
_KNOWN = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0xF2F52010: "f2fs",
}
_FLAGS = (
    fanotify.FAN_CLOEXEC
    | fanotify.FAN_NONBLOCK
    | fanotify.FAN_UNLIMITED_QUEUE
    | fanotify.FAN_REPORT_DFID_NAME_TARGET
)
_NAMES = fanotify.FAN_CREATE | fanotify.FAN_DELETE | fanotify.FAN_MOVED_FROM | fanotify.FAN_MOVED_TO
_MASK = (
    _NAMES
    | fanotify.FAN_MODIFY
    | fanotify.FAN_CLOSE_WRITE
    | fanotify.FAN_ATTRIB
    | fanotify.FAN_ONDIR
)
_NEW_DIRECTORY = fanotify.FAN_CREATE | fanotify.FAN_MOVED_TO


class Watch:
    """One tree under watch. `blind` says why it sees nothing: then every pass looks at everything."""

    def __init__(self, fd: int, blind: str = "") -> None:
        self.blind = blind
        self.changed: set[str] = set()  # names that the next look is for
        self.looking: set[str] = set()  # names of the look under way
        self.deep: set[str] = set()  # directories that came: everything below them is new
        self._fd = fd
        self._whole = True  # nothing but a look at everything will do
        self._overflowed = False
        self._places: dict[bytes, str] = {}  # handle of a directory -> its path
        self._single: dict[int, str] = {}  # inode -> its only name
        self._linked: dict[int, set[str]] = {}  # inode with several names -> those in the tree

    @staticmethod
    def start(root: "str | int") -> "Watch":
        """Watch the file system that a directory is on; where that cannot be, `blind` says why."""
        fd = os.dup(root) if isinstance(root, int) else os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        with files.Fd(fd):
            kind = statfs_type(fd)
            if kind not in _KNOWN:
                return Watch(-1, f"a file system of type {kind:#x} does not tell all that changes")
            if backing := _loop_file(os.path.realpath(f"/proc/self/fd/{fd}")):
                return Watch(-1, f"a loop device writes to {backing} without a word")
            group = -1
            try:
                group = fanotify.fanotify_init(_FLAGS)
                add = fanotify.FAN_MARK_ADD | fanotify.FAN_MARK_FILESYSTEM
                fanotify.fanotify_mark(group, add, _MASK, fd)
                inode = fanotify.inode_of(fanotify.name_to_handle_at(fd))
            except OSError as error:
                if group >= 0:
                    os.close(group)
                return Watch(-1, f"fanotify: {error.strerror}")
            if inode != os.fstat(fd).st_ino:
                os.close(group)
                return Watch(-1, f"the handles of {_KNOWN[kind]} are of another kind here")
            return Watch(group)

    def close(self) -> None:
        """Watch no more; nothing of it is left in the kernel."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self.blind = "it is closed"

    # ---- called while a tree is looked at

    def enter(self, directory: int, path: str) -> None:
        """Know a directory, which is open, by its handle from now on."""
        if self.blind:
            return
        try:
            self._places[fanotify.name_to_handle_at(directory)] = path
        except OSError as error:
            self._give_up(error)

    def drain(self) -> bool:
        """Take in what the kernel has to tell; False when only a look at everything will do.

        May be called at any time, to keep short what waits in the kernel.
        """
        if self.blind:
            return False
        try:
            for mask, directory, name, target in fanotify.events(self._fd):
                place = self._places.get(directory)
                if place is not None:
                    self._heed(mask, place, name)
                if target:
                    self._find(fanotify.inode_of(target))
                if mask & fanotify.FAN_Q_OVERFLOW:
                    self._overflowed = True
        except OSError as error:
            self._give_up(error)
        return not (self._whole or self._overflowed or self.blind)

    def _give_up(self, error: OSError) -> None:
        self.close()
        self.blind = f"fanotify: {error.strerror}"

    def _heed(self, mask: int, place: str, name: bytes) -> None:
        if name in (b".", b""):
            self.changed.add(place)
            return
        path = f"{place}/{os.fsdecode(name)}" if place else os.fsdecode(name)
        self.changed.add(path)
        if mask & _NAMES:
            self.changed.add(place)
            if mask & fanotify.FAN_ONDIR and mask & _NEW_DIRECTORY:
                self.deep.add(path)

    def _find(self, inode: int) -> None:
        """A file was told of, maybe by another name than it has in the tree."""
        if (name := self._single.get(inode)) is not None:
            self.changed.add(name)
        elif (names := self._linked.get(inode)) is not None:
            self.changed |= names

    def begin(self) -> set[str]:
        """A look begins: the names that it is for. What comes from now on is for the next one."""
        self.looking |= self.changed
        self.changed = set()
        return self.looking

    def forget(self) -> None:
        """A look at everything begins: what was known and what was told are out of date."""
        self._places.clear()
        self.drain()
        self.changed.clear()
        self.looking.clear()
        self.deep.clear()
        self._whole, self._overflowed = True, False

    def names(self, inodes: Collection[int]) -> set[str]:
        """The names in the tree of these inodes."""
        found = {self._single[inode] for inode in inodes if inode in self._single}
        for inode in inodes:
            found |= self._linked.get(inode, set())
        return found

    # ---- called when the other side has it

    def know(self, index: Index) -> None:
        """Every name of the tree was sent."""
        self._single.clear()
        self._linked.clear()
        self.looking.clear()
        self._whole = False
        if self.blind:
            return
        for path, entry in index.entries.items():
            self._add(path, entry)

    def update(self, before: Index, now: Index, looked: Iterable[str]) -> None:
        """Those names were looked at and what changed was sent."""
        self.looking.clear()
        self.deep.clear()
        for path in looked:
            if (entry := before.entries.get(path)) is not None:
                self._remove(path, entry)
        for path in looked:
            if (entry := now.entries.get(path)) is not None:
                self._add(path, entry)

    def _add(self, path: str, entry: Entry) -> None:
        if entry.young:  # it may have changed unseen within the tick of the look
            self.changed.add(path)
        if stat.S_ISDIR(entry.mode):
            return
        if entry.links == 1:
            self._single[entry.inode] = path
            return
        self._linked.setdefault(entry.inode, set()).add(path)

    def _remove(self, path: str, entry: Entry) -> None:
        if self._single.get(entry.inode) == path:
            del self._single[entry.inode]
        if (names := self._linked.get(entry.inode)) is not None:
            names.discard(path)
            if not names:
                del self._linked[entry.inode]


def _loop_file(root: str) -> str:
    """A file of the tree that a loop device is made of; "" when there is none."""
    try:
        devices = [name for name in os.listdir("/sys/block") if name.startswith("loop")]
    except FileNotFoundError:
        return ""
    for name in devices:
        try:
            backing = os.fsdecode(files.read(f"/sys/block/{name}/loop/backing_file").strip())
        except OSError:  # it is not in use
            continue
        if backing.startswith(root + "/"):
            return backing
    return ""
