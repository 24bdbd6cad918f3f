"""One directory tree of a container into a store, at the instant at which the container stands still.

    capture = Capture(sink, path, room=private, known=known.load(...))
    capture.scan()             # while it runs: reads and stores what changed since the last snapshot
    capture.freeze(pids)       # it stands still: only what changed since scan() is looked at, and copied
    stored = capture.finish()  # it runs again: copies into the store, directories bottom-up
    capture.close()
    known.save(..., snapshot, capture.known())     # when the snapshot is in the store

The tree is under the control of whoever is in the container: names are opened below their directory, through
no link, and what is found must be the file that was looked at before. docs/adr/0030
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from ocimig import files
from ocimig.migrate.backup.hoard import SMALL, Hoard, Kept
from ocimig.migrate.backup.known import Known
from ocimig.migrate.backup.names import GONE, open_node
from ocimig.migrate.backup.patch import Marked, Marking
from ocimig.migrate.backup.telling import times_tell
from ocimig.migrate.errors import TreeFailed
from ocimig.migrate.rootfs import Index, Watch, opened, scan, shared_mappings
from ocimig.migrate.rootfs.again import look_again
from ocimig.migrate.rootfs.index import Entry, entry_of
from ocimig.migrate.rootfs.paths import Directories, split
from ocimig.migrate.store import stream, tree
from ocimig.migrate.store.blobs import Sink
from ocimig.migrate.store.tree import Node
from ocimig.runtime.linux.files import syncfs

_TRIES = 5  # a file that somebody outside the container writes to in the freeze
_Key = tuple[int, int]  # device and inode


class Scanned(NamedTuple):
    """What scan() did."""

    names: int  # that there are
    files: int  # that were read
    data: int  # bytes of them, holes not counted
    seconds: float


class Frozen(NamedTuple):
    """What freeze() did."""

    looked: int  # names
    taken: int  # names that are new or not what they were
    copied: int  # bytes
    seconds: float


class Captured(NamedTuple):
    """A tree in the store. `root` has no name; its runs and size are the root directory's stream."""

    root: Node
    names: int
    files: int  # that were read, in scan() or in the freeze
    data: int  # bytes of them
    directories: int  # whose streams were made anew
    seconds: float


class Capture:
    """One tree on its way into one snapshot."""

    def __init__(
        self,
        sink: Sink,
        path: str,
        *,
        room: str,
        known: Mapping[str, Known] | None = None,
        skip: Collection[str] = (),
    ) -> None:
        """`room` is a private directory for copies; `skip` are relative paths that are left out.

        Raises TreeFailed where the tree cannot be opened."""
        self._sink = sink
        self._path = path
        self._skip = skip
        try:
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._failed("", error) from None
        self._known = known if known and times_tell(self._root) else {}
        self._watch = Watch.start(self._root)
        self._hoard = Hoard(room)
        self._index = Index()
        self._suspects: frozenset[int] = frozenset()
        self._mapped: frozenset[int] = frozenset()
        self._lines: dict[str, bytes] = {}
        self._taken: dict[str, tuple[Node, _Key, Kept | None]] = {}
        self._dirty: set[str] = set()  # directories whose streams are not what they were
        self._stored: dict[_Key, tuple[Entry, stream.Stored]] = {}  # files with several names
        self._marked: dict[_Key, Marked] = {}  # large files that the scan read
        self._twins: dict[_Key, tuple[Entry, Kept]] = {}  # files with several names, in the freeze
        self._files = 0
        self._data = 0

    @property
    def blind(self) -> str:
        """Why the freeze has to look at every name; empty when it has not."""
        return self._watch.blind

    def close(self) -> None:
        """Let go of the tree and of all copies. May be called at any time, more than once."""
        self._watch.close()
        self._hoard.close()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __enter__(self) -> "Capture":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- while the container runs

    def scan(self, mapped: Callable[[], Iterable[int]] = tuple) -> Scanned:
        """Store whatever is not known. Raises TreeFailed, and what the sink does.

        Dirty pages are written out first: a write through a mapping shows in the times of a file only
        when its page was clean. What is written by one after that may show nowhere: `mapped` says which
        inodes processes that run have mapped, and the freeze takes those again.
        """
        begun = time.monotonic()
        try:
            syncfs(self._root)
            index = self._index = scan(self._root, skip=self._skip, watch=self._watch)
        except OSError as error:
            raise self._failed("", error) from None
        # Asked between the look and the reading: a mapping whose writes neither shows is there throughout.
        self._mapped = frozenset(mapped())
        new = []
        for path, entry in index.entries.items():
            before = self._known.get(path)
            if before is not None and before.entry.same(entry):
                self._lines[path] = before.line
            else:
                new.append(path)
        for path in self._known.keys() - index.entries.keys():
            self._dirty.add(split(path)[0])
        directories = Directories(self._root)
        try:
            for path in new:
                self._store(directories, path)
        finally:
            directories.forget()
        self._watch.know(index)
        seconds = time.monotonic() - begun
        return Scanned(len(index.entries), self._files, self._data, seconds)

    def listen(self) -> None:
        """Take in what the kernel has to tell of changes: called now and then, it is not left to the freeze."""
        self._watch.drain()

    def _store(self, directories: Directories, path: str) -> None:
        """Read one name into the store; what changes meanwhile is taken again in the freeze."""
        if path not in self._index.entries:  # it went with its directory
            return
        try:
            fd, entry, node = open_node(directories, path, self._index.entries[path])
            with files.Fd(fd):
                if node.type == tree.FILE:
                    entry, stored = self._content(fd, entry)
                    node = node._replace(size=stored.size, runs=stored.runs)
        except OSError as error:
            if error.errno not in GONE or not path:
                raise self._failed(path, error) from None
            self._vanished(path)
            return
        self._touch(path, entry)
        self._index.entries[path] = entry
        self._lines[path] = tree.encode(node)

    def _content(self, fd: int, entry: Entry) -> tuple[Entry, stream.Stored]:
        """A file's stream, and the facts that go with it: young ones where it changed from name to name."""
        key = entry.device, entry.inode
        if twin := self._stored.get(key):
            return entry._replace(young=not twin[0].same(entry)), twin[1]
        if entry.size > SMALL:
            marking = Marking(self._sink)
            stored = stream.put_file(marking, fd, entry.size)
            self._marked[key] = Marked(stored.runs, stored.size, bytes(marking.digests))
        else:
            stored = stream.put_file(self._sink, fd, entry.size)
        self._count(stored)
        if entry.links > 1:
            self._stored[key] = entry, stored
        return entry, stored

    def _touch(self, path: str, entry: Entry) -> None:
        """Streams that a new or changed name makes other ones."""
        if path:
            self._dirty.add(split(path)[0])
        if stat.S_ISDIR(entry.mode):
            self._dirty.add(path)

    def _drop(self, path: str) -> None:
        """A name is no more."""
        self._lines.pop(path, None)
        self._taken.pop(path, None)
        self._dirty.discard(path)
        self._dirty.add(split(path)[0])

    def _vanished(self, path: str) -> None:
        """A name, and all below it, is gone since it was looked at; the freeze sees what came instead."""
        entries = self._index.entries
        gone = entries.pop(path)
        if stat.S_ISDIR(gone.mode):
            for below in [each for each in entries if each.startswith(path + "/")]:
                del entries[below]
                self._drop(below)
        self._drop(path)

    def _count(self, stored: stream.Stored) -> None:
        self._files += 1
        self._data += stored.data

    # ---- while it stands still

    def freeze(self, pids: Iterable[int] = ()) -> Frozen:
        """Copy whatever is not as scan() found it. `pids` are the container's processes, which stand still.

        Raises TreeFailed, NoSpace.
        """
        begun = time.monotonic()
        pids = list(pids)
        self._suspects = suspects = shared_mappings(pids) | self._mapped
        self._stored.clear()
        try:
            old, looked = self._look_again(suspects | opened(pids))
        except OSError as error:
            raise self._failed("", error) from None
        directories = Directories(self._root)
        try:
            for path in looked:
                was, now = old.get(path), self._index.entries.get(path)
                if now is None:
                    self._drop(path)
                elif was is None or not was.same(now) or now.inode in suspects:
                    self._take(directories, path, now)
        finally:
            directories.forget()
        seconds = time.monotonic() - begun
        return Frozen(len(looked), len(self._taken), self._hoard.copied, seconds)

    def _look_again(self, doubtful: Collection[int]) -> tuple[dict[str, Entry], Collection[str]]:
        """Bring the index up to date; what it said before of the names that were looked at, and those names."""
        if self._watch.drain():
            before, names = look_again(
                self._root, self._index, self._watch, doubtful, (), self._skip
            )
            return before.entries, names
        old = self._index.entries
        self._index = scan(self._root, skip=self._skip)
        return old, [*self._index.entries, *(old.keys() - self._index.entries.keys())]

    def _take(self, directories: Directories, path: str, entry: Entry) -> None:
        """Copy one name. Somebody outside the container may still change it: then once more."""
        for _ in range(_TRIES):
            try:
                if self._took(directories, path, entry):
                    return
            except OSError as error:
                if error.errno not in GONE or not path:
                    raise self._failed(path, error) from None
            directories.forget()
            there = self._there(directories, path)
            if there is None:
                self._vanished(path)
                return
            if stat.S_ISDIR(there.mode) != stat.S_ISDIR(entry.mode):
                break
            entry = there
        busy = OSError(errno.EBUSY, "somebody changes it while the container stands still")
        raise self._failed(path, busy)

    def _there(self, directories: Directories, path: str) -> Entry | None:
        """What has this name now."""
        parent, name = split(path)
        try:
            fd = directories.open(parent)
            return entry_of(os.stat(name or ".", dir_fd=fd, follow_symlinks=False), time.time_ns())
        except OSError as error:
            if error.errno in GONE:
                return None
            raise self._failed(path, error) from None

    def _took(self, directories: Directories, path: str, entry: Entry) -> bool:
        """Whether it could be copied whole."""
        fd, entry, node = open_node(directories, path, entry)
        kept: Kept | None = None
        key = entry.device, entry.inode
        with files.Fd(fd):
            if node.type == tree.FILE:
                twin = self._twins.get(key)
                if twin is None or not twin[0].same(entry):
                    kept = self._hoard.take(fd, entry.size, self._marked.get(key))
                    twin = entry._replace(young=False), kept
                    if not twin[0].same(entry_of(os.fstat(fd), 0)):
                        return False
                if entry.links > 1:
                    self._twins[key] = twin
                kept = twin[1]
        self._touch(path, entry)
        self._index.entries[path] = entry
        self._taken[path] = node, key, kept
        return True

    # ---- when it runs again

    def finish(self) -> Captured:
        """Store what the freeze copied, and every directory that is not as it was. Raises what the sink does."""
        begun = time.monotonic()
        stored: dict[_Key, stream.Stored] = {}
        for path, (node, key, kept) in self._taken.items():
            if kept is not None:
                found = stored.get(key)
                if found is None:
                    try:
                        found = stored[key] = self._hoard.store(self._sink, kept)
                    except OSError as error:
                        raise self._failed(path, error) from None
                    self._count(found)
                node = node._replace(size=found.size, runs=found.runs)
            self._lines[path] = tree.encode(node)
        self._taken.clear()
        self._hoard.close()
        made = self._directories()
        root = tree.decode(self._lines[""], root=True)
        names = len(self._index.entries)
        seconds = time.monotonic() - begun
        return Captured(root, names, self._files, self._data, made, seconds)

    def _directories(self) -> int:
        """Streams of the directories that are not as they were, the deepest first; how many those are."""
        entries = self._index.entries
        walked: set[str] = set()
        for path in list(self._dirty):
            while path and path not in walked:
                walked.add(path)
                path = split(path)[0]
                self._dirty.add(path)
        below: dict[str, list[tuple[bytes, str]]] = {
            path: [] for path in self._dirty if path in entries and stat.S_ISDIR(entries[path].mode)
        }
        for path in entries:
            parent, name = split(path)
            if path and (group := below.get(parent)) is not None:
                group.append((os.fsencode(name), path))
        for path in sorted(below, key=_depth, reverse=True):
            lines = b"".join(self._lines[name] for _, name in sorted(below[path]))
            runs = stream.put_bytes(self._sink, lines)
            node = tree.decode(self._lines[path], root=not path)
            self._lines[path] = tree.encode(node._replace(size=len(lines), runs=runs))
        self._dirty.clear()
        return len(below)

    def known(self) -> dict[str, Known]:
        """What the next snapshot need not read again, after finish(): see known.save()."""
        return {
            path: Known(entry, self._lines[path])
            for path, entry in self._index.entries.items()
            if not entry.young and entry.inode not in self._suspects
        }

    def _failed(self, path: str, error: OSError) -> TreeFailed:
        if not path and isinstance(error.filename, str):
            path = error.filename
        where = os.path.join(self._path, path) if path else self._path
        return TreeFailed(what="read", path=where, reason=error.strerror or str(error))


def _depth(path: str) -> int:
    return path.count("/") + 1 if path else 0
