"""The sending side of a tree. Never follows a link, never opens a device, never changes a thing here."""

import errno
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

from ocimig import files
from ocimig.errors import OcimigError
from ocimig.migrate.errors import FarFailure, LinkLost, TreeFailed
from ocimig.migrate.rootfs import records
from ocimig.migrate.rootfs.again import look_again
from ocimig.migrate.rootfs.index import Entry, Index, scan
from ocimig.migrate.rootfs.paths import Directories, open_regular, split
from ocimig.migrate.rootfs.plan import Plan, key, plan
from ocimig.migrate.rootfs.records import Attributes, Record
from ocimig.migrate.rootfs.watch import Watch
from ocimig.migrate.wire import Wire
from ocimig.runtime.linux.files import syncfs

SMALL = 128 << 10  # files up to here travel inside their record
BATCH = 512 << 10  # bytes of records a frame gathers
PIECE = 1 << 20  # bytes of a large file a frame carries
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
_TYPES = {
    stat.S_IFDIR: records.DIRECTORY,
    stat.S_IFLNK: records.SYMLINK,
    stat.S_IFCHR: records.CHARACTER,
    stat.S_IFBLK: records.BLOCK,
    stat.S_IFIFO: records.FIFO,
    stat.S_IFSOCK: records.SOCKET,
}


@dataclass(slots=True)
class Sent:
    """What one send() did."""

    scanned: int = 0  # names that were looked at
    entries: int = 0
    removed: int = 0
    content: int = 0  # bytes of files, holes not counted
    vanished: int = 0  # names that were gone, or something else, when their turn came
    scan_seconds: float = 0.0
    seconds: float = 0.0


def send(
    wire: Wire,
    root: str | int,
    *,
    previous: Index | None = None,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    one_filesystem: bool = True,
    suspects: Collection[int] = (),
    opened: Collection[int] = (),
    mapped: Callable[[], Collection[int]] | None = None,
    watch: Watch | None = None,
    settle: bool = True,
    timeout: float | None = records.SILENCE,
) -> tuple[Index, Sent]:
    """Make the other side's directory like `root`, as far as it is not what `previous` says.

    The index that comes back is what the other side has now: give it to the next call, which may
    change it. A `watch` that was started before the first call makes the later ones look only at what
    changed; of what it does not see, `suspects` (inodes) are sent again and `opened` looked at. `mapped`
    says which inodes processes that run have mapped: what they write by that after we read shows nowhere,
    so the next call sends again what is mapped no more. With `settle`, a first pass writes out dirty
    pages before it looks, so that a later write through a memory mapping shows in the times of its file.
    The receiver must be in receive(). `timeout` is how long it may take none of our data, and how long
    it may be silent at the end.
    """
    written = previous.mapped if previous is not None else frozenset()
    fd = os.dup(root) if isinstance(root, int) else _open_root(root)
    with files.Fd(fd):
        looked: list[str] | None = None
        # a first pass may write out, and look at, very much; the later ones are made in a freeze
        with wire.beating() if previous is None else nullcontext():
            if settle and previous is None:
                syncfs(fd)
            begun = time.monotonic()
            if watch is not None and previous is not None and one_filesystem and watch.drain():
                now = previous
                before, looked = look_again(
                    fd, now, watch, {*suspects, *opened, *written}, only, skip
                )
            else:
                now = scan(fd, only=only, skip=skip, one_filesystem=one_filesystem, watch=watch)
                before = previous or Index()
        seconds = time.monotonic() - begun
        # Asked between the look and the reading: a mapping whose writes neither shows is there throughout.
        still = frozenset(mapped()) if mapped is not None else frozenset()
        todo = plan(before, now, {*suspects, *(written - still)}, looked)
        sender = _Sender(wire, fd, before, now, todo, timeout)
        sender.run()
    if watch is not None:
        watch.know(now) if looked is None else watch.update(before, now, looked)
    now.mapped = still
    sent = sender.sent
    sent.scanned = len(now.entries) if looked is None else len(looked)
    sent.scan_seconds = seconds
    sent.seconds = time.monotonic() - begun
    return now, sent


def _open_root(root: str) -> int:
    try:
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _failed("read the directory", root, error) from None


def _failed(what: str, path: str, error: OSError) -> TreeFailed:
    return TreeFailed(what=what, path=path, reason=error.strerror or str(error))


class _Sender:
    """One pass. Changes `now` so that it says what the other side has at the end."""

    def __init__(
        self, wire: Wire, root: int, before: Index, now: Index, todo: Plan, timeout: float | None
    ) -> None:
        self.sent = Sent()
        self._wire = wire
        self._before = before
        self._now = now
        self._plan = todo
        self._timeout = timeout
        self._directories = Directories(root)
        self._missing: set[str] = set()  # directories that the other side does not have
        self._batch: list[bytes] = []
        self._batched = 0
        self._buffer = memoryview(bytearray(PIECE))

    def run(self) -> None:
        """Everything, up to the other side's word that it is done; that side hears what goes wrong here."""
        try:
            self._run()
        except FarFailure:  # it waits for the end of what is under way
            self._wire.send(records.END, {"aborted": True}, timeout=self._timeout)
            raise
        except LinkLost:
            raise
        except OSError as error:
            failure = _failed("read", str(error.filename or "."), error)
            self._wire.send_error(failure)
            raise failure from None
        except OcimigError as error:
            self._wire.send_error(error)
            raise

    def _run(self) -> None:
        self._wire.send(records.BEGIN, {"version": 1}, timeout=self._timeout)
        try:
            self._all()
        finally:
            self._directories.forget()
        self._flush()
        self._wire.send(records.END, {"records": self.sent.entries}, timeout=self._timeout)
        self._wire.expect(records.DONE, timeout=self._timeout)

    def _all(self) -> None:
        for path in self._plan.removals:
            self._put(Record(records.REMOVAL, os.fsencode(path)))
            self.sent.removed += 1
        links = self._before.links
        self._now.links = {path: links[path] for path in links if path in self._now.entries}
        for path in self._plan.creations:
            self._now.links.pop(path, None)
            entry = self._now.entries[path]
            parent, name = split(path)
            try:
                if parent in self._missing:
                    raise FileNotFoundError(errno.ENOENT, "its directory is gone", path)
                self._one(path, entry, self._directories.open(parent), name)
            except OSError as error:
                if error.errno not in _GONE:
                    raise OSError(error.errno, error.strerror, path) from None
                self._not_there(path, entry)

    def _not_there(self, path: str, entry: Entry) -> None:
        """It vanished or became something else since the look: the next pass sees to it."""
        self.sent.vanished += 1
        if path in self._plan.updates:
            self._now.entries[path] = self._before.entries[path]._replace(young=True)
            return
        del self._now.entries[path]
        if stat.S_ISDIR(entry.mode):
            self._missing.add(path)

    def _one(self, path: str, entry: Entry, directory: int, name: str) -> None:
        """Send one name in whatever way it needs."""
        update = records.UPDATE if path in self._plan.updates else 0
        if entry.links > 1 and not stat.S_ISDIR(entry.mode):
            home = self._plan.homes.get(key(entry), path)
            if home != path:
                if not update:
                    self._put(Record(records.HARD_LINK, os.fsencode(path), 0, os.fsencode(home)))
                self._now.links[path] = self._now.links.get(home, home)
                return
        if stat.S_ISREG(entry.mode):
            self._regular(path, entry, directory, name, update)
        else:
            self._special(path, entry, directory, name, update)
        if entry.links > 1 and not stat.S_ISDIR(entry.mode):
            self._plan.homes[key(entry)] = path

    def _special(self, path: str, entry: Entry, directory: int, name: str, update: int) -> None:
        """Anything but a regular file."""
        record = _record(_TYPES[stat.S_IFMT(entry.mode)], path, entry, update)
        if stat.S_ISDIR(entry.mode):
            record.attributes = _attributes(self._directories.open(path))
        else:
            record.attributes = _attributes(f"/proc/self/fd/{directory}/{name}")
        if stat.S_ISLNK(entry.mode):
            record.target = os.fsencode(os.readlink(name, dir_fd=directory))
        record.major, record.minor = os.major(entry.rdev), os.minor(entry.rdev)
        self._put(record)

    def _regular(self, path: str, entry: Entry, directory: int, name: str, update: int) -> None:
        """A file with its content as it is now; a change while we read shows in the next pass."""
        with files.Fd(open_regular(directory, name, os.O_RDONLY)) as fd:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) != key(entry):
                raise FileNotFoundError(errno.ENOENT, "another file has its name", path)
            record = _record(records.REGULAR, path, entry, update)
            record.attributes = _attributes(fd)
            record.size = status.st_size
            sparse = status.st_blocks * 512 < status.st_size
            if status.st_size <= SMALL and not sparse:
                record.data = _read_small(fd, status.st_size)
                record.size = len(record.data)
                self.sent.content += record.size
                self._put(record)
                return
            record.flags |= records.STREAMED
            self._put(record)
            self._flush()
            self._stream(fd, status.st_size, sparse=sparse)

    def _stream(self, fd: int, size: int, *, sparse: bool) -> None:
        end = 0
        for start, stop in _extents(fd, size) if sparse else [(0, size)]:
            position = start
            while position < stop:
                count = os.preadv(fd, [self._buffer[: min(PIECE, stop - position)]], position)
                if not count:  # it became shorter
                    break
                piece = self._buffer[:count]
                self._wire.send(records.DATA, {"offset": position}, piece, timeout=self._timeout)
                self.sent.content += count
                position = end = position + count
                self._heed()
        final = max(end, min(size, os.fstat(fd).st_size))
        self._wire.send(records.FILE_END, {"size": final}, flush=False, timeout=self._timeout)

    def _put(self, record: Record) -> None:
        packed = record.pack()
        if self._batched + len(packed) > BATCH:
            self._flush()
        self._batch.append(packed)
        self._batched += len(packed)
        self.sent.entries += 1

    def _flush(self) -> None:
        if self._batch:
            payload = b"".join(self._batch)
            self._batch.clear()
            self._batched = 0
            self._wire.send(records.RECORDS, None, payload, timeout=self._timeout)
            self._heed()

    def _heed(self) -> None:
        """Hear at once when the other side cannot go on (a full disk)."""
        frame = self._wire.receive_now()
        if frame is not None:
            raise TreeFailed(what="send", path="the files", reason=f"{frame.kind} came too early")


def _record(type_: int, path: str, entry: Entry, flags: int) -> Record:
    return Record(
        type_,
        os.fsencode(path),
        flags,
        mode=stat.S_IMODE(entry.mode),
        uid=entry.uid,
        gid=entry.gid,
        mtime_ns=entry.mtime_ns,
        atime_ns=entry.atime_ns,
    )


def _read_small(fd: int, size: int) -> bytes:
    """As much of `size` bytes as there is."""
    data = os.read(fd, size)
    if len(data) < size:
        parts = [data]
        while part := os.read(fd, size - sum(map(len, parts))):
            parts.append(part)
        data = b"".join(parts)
    return data


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that hold data."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, position


def _attributes(of: int | str) -> Attributes:
    """Extended attributes as raw bytes: capabilities and ACLs are among them."""
    follow = isinstance(of, int)
    try:
        names = os.listxattr(of, follow_symlinks=follow)
        return [
            (os.fsencode(name), os.getxattr(of, name, follow_symlinks=follow)) for name in names
        ]
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):  # none here; or one went while we looked
            return []
        raise
