"""The receiving side of a tree. Whatever comes, it writes below its directory and nowhere else."""

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import Any

from ocimig import files
from ocimig.errors import NoSpace, OcimigError
from ocimig.migrate.errors import (
    BrokenFrame,
    DirectoryNotEmpty,
    FarFailure,
    HostileEntry,
    LinkLost,
    TreeFailed,
)
from ocimig.migrate.rootfs import paths, records
from ocimig.migrate.rootfs.metadata import apply
from ocimig.migrate.rootfs.paths import Directories, open_regular, split
from ocimig.migrate.rootfs.records import Record
from ocimig.migrate.wire import Frame, Wire
from ocimig.runtime.linux.files import syncfs

_NODES = {
    records.CHARACTER: stat.S_IFCHR,
    records.BLOCK: stat.S_IFBLK,
    records.FIFO: stat.S_IFIFO,
    records.SOCKET: stat.S_IFSOCK,
}
_ESCAPES = (errno.ELOOP, errno.EXDEV)


@dataclass(slots=True)
class Received:
    """What came in one pass."""

    entries: int = 0
    removed: int = 0
    content: int = 0
    notes: list[str] = field(default_factory=list)  # attributes that could not be kept

    def facts(self) -> dict[str, Any]:
        """For the sender."""
        return {
            "entries": self.entries,
            "removed": self.removed,
            "content": self.content,
            "notes": self.notes[:100],
        }


def receive(
    wire: Wire,
    directory: str,
    *,
    fresh: bool = True,
    sync: bool = True,
    timeout: float | None = records.SILENCE,
) -> Received:
    """Take what one send() sends. Raises what went wrong, after telling the sender.

    A `fresh` directory must be empty or not there yet, and is as it was when this fails. Otherwise
    what is there is brought up to date, and a failure leaves it in between.
    """
    try:
        receiver = Receiver(directory, fresh=fresh, sync=sync)
    except OcimigError as error:
        wire.send_error(error)
        _drain(wire, timeout)
        raise
    with receiver:
        try:
            while not receiver.handle(wire.receive(timeout)):
                pass
        except (FarFailure, LinkLost):  # the sender knows, or cannot be told
            receiver.discard()
            raise
        except OcimigError as error:
            receiver.discard()
            wire.send_error(error)
            _drain(wire, timeout)
            raise
        wire.send(records.DONE, receiver.received.facts(), timeout=timeout)
        return receiver.received


def _drain(wire: Wire, timeout: float | None) -> None:
    """Throw away what was under way when the sender heard of our trouble."""
    try:
        while wire.receive(timeout).kind != records.END:
            pass
    except OcimigError:
        return


class Receiver:
    """Takes the frames of one pass, one at a time."""

    def __init__(self, directory: str, *, fresh: bool = True, sync: bool = True) -> None:
        self.received = Received()
        self._path = directory
        self._fresh = fresh
        self._sync = sync
        self._made = False
        self._root = self._open_root()
        self._directories = Directories(self._root)
        self._finished: dict[str, Record] = {}  # directories: their times are set last
        self._file = -1
        self._record: Record | None = None  # the file whose bytes are coming

    def _open_root(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            if self._fresh:
                try:
                    os.mkdir(self._path, 0o700)
                    self._made = True
                except FileExistsError:
                    if os.listdir(self._path):
                        raise DirectoryNotEmpty(path=self._path) from None
            return os.open(self._path, flags)
        except OSError as error:
            raise self._failure("make", self._path, error) from None

    def handle(self, frame: Frame) -> bool:
        """Take one frame; True after the last one, when everything is on disk."""
        try:
            return self._handle(frame)
        except ValueError as error:
            raise BrokenFrame(host="the sender", reason=str(error)) from None
        except OSError as error:
            path = os.fsdecode(self._record.path) if self._record else ""
            raise self._failure("write", path, error) from None

    def _handle(self, frame: Frame) -> bool:
        if frame.kind == records.DATA:
            self._data(_number(frame, "offset"), frame.payload)
            return False
        if frame.kind == records.FILE_END:
            self._file_end(_number(frame, "size"))
            return False
        if self._file >= 0:
            raise ValueError(f"{frame.kind} came inside a file")
        if frame.kind == records.BEGIN:
            if frame.header.get("version") != 1:
                raise ValueError("a tree of another version")
        elif frame.kind == records.RECORDS:
            for record in records.unpack(frame.payload):
                self._record = record
                self._take(record)
            self._record = self._record if self._file >= 0 else None
        elif frame.kind == records.END:
            if frame.header.get("aborted"):
                raise LinkLost(host="the sender", reason="it gave up")
            self._finish()
            return True
        else:
            raise ValueError(f"{frame.kind!r} does not belong to a tree")
        return False

    # ---- one name

    def _take(self, record: Record) -> None:
        """Make, change or remove one name."""
        if self._file >= 0:
            raise ValueError("a record came inside a file")
        path = os.fsdecode(record.path)
        if not path and record.type == records.DIRECTORY:
            self._finished[""] = record
            self.received.entries += 1
            return
        wrong = paths.fault(record.path)
        if wrong:
            raise HostileEntry(path=path, reason=wrong)
        try:
            self._act(record, path)
        except FileNotFoundError:
            raise HostileEntry(path=path, reason="its directory or target was not sent") from None
        except FileExistsError:
            raise HostileEntry(path=path, reason="it is there already") from None
        except OSError as error:
            if error.errno in _ESCAPES or isinstance(error, NotADirectoryError):
                raise HostileEntry(path=path, reason="it is, or leads through, a link") from None
            raise

    def _act(self, record: Record, path: str) -> None:
        parent, name = split(path)
        directory = self._directories.open(parent)
        if record.type == records.REMOVAL:
            self._directories.forget()
            paths.remove(self._directories.open(parent), name)
            self.received.removed += 1
            return
        self.received.entries += 1
        if record.type == records.REGULAR:
            self._regular(record, directory, name)
        elif record.type == records.DIRECTORY:
            if not record.flags & records.UPDATE:
                os.mkdir(name, 0o700, dir_fd=directory)
            self._finished[path] = record
        elif record.type == records.HARD_LINK:
            self._link(record, directory, name)
        elif record.type == records.SYMLINK:
            if not record.target or b"\0" in record.target:
                raise HostileEntry(path=path, reason="its target cannot be one")
            os.symlink(record.target, name, dir_fd=directory)
            self._note(apply(record, directory, name))
        else:
            device = os.makedev(record.major, record.minor)
            os.mknod(name, _NODES[record.type] | 0o600, device, dir_fd=directory)
            self._note(apply(record, directory, name))

    def _link(self, record: Record, directory: int, name: str) -> None:
        target = os.fsdecode(record.target)
        wrong = paths.fault(record.target)
        if wrong:
            raise HostileEntry(path=os.fsdecode(record.path), reason=f"its target: {wrong}")
        parent, old = split(target)
        source = self._directories.open(parent)
        os.link(old, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

    def _regular(self, record: Record, directory: int, name: str) -> None:
        if record.flags & records.UPDATE:
            fd = open_regular(directory, name, os.O_WRONLY | os.O_TRUNC)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=directory)
        if record.flags & records.STREAMED:
            self._file = fd
            return
        with files.Fd(fd):
            if len(record.data) != record.size:
                raise ValueError("a file is not as long as it says")
            files.write_all(fd, record.data)
            self.received.content += record.size
            self._note(apply(record, fd))

    # ---- the bytes of a large file

    def _data(self, offset: int, payload: bytes) -> None:
        record = self._record
        if self._file < 0 or record is None:
            raise ValueError("data came outside a file")
        if offset + len(payload) > record.size:
            raise ValueError("data came beyond the end of its file")
        view = memoryview(payload)
        while view:
            written = os.pwrite(self._file, view, offset)
            view = view[written:]
            offset += written
        self.received.content += len(payload)

    def _file_end(self, size: int) -> None:
        record = self._record
        if self._file < 0 or record is None:
            raise ValueError("the end of a file came outside a file")
        if size > record.size:
            raise ValueError("a file ends beyond its end")
        os.ftruncate(self._file, size)
        self._note(apply(record, self._file))
        os.close(self._file)
        self._file, self._record = -1, None

    # ---- the end

    def _finish(self) -> None:
        """Directories get what is theirs: later writes in them would have changed their times."""
        for path, record in reversed(self._finished.items()):
            self._record = record
            self._note(apply(record, self._directories.open(path)))
        self._record = None
        if self._sync:
            syncfs(self._root)

    def _note(self, notes: list[str]) -> None:
        self.received.notes += notes

    def discard(self) -> None:
        """Remove what a fresh directory got. What was there before stays."""
        self._close_file()
        self._directories.forget()
        if not self._fresh:
            return
        try:
            paths.empty(self._root, os.fstat(self._root).st_dev)
            if self._made:
                os.rmdir(self._path)
        except OSError as error:
            raise self._failure("remove", self._path, error) from None

    def close(self) -> None:
        """Let go of all descriptors."""
        self._close_file()
        self._directories.forget()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _failure(self, what: str, path: str, error: OSError) -> OcimigError:
        shown = os.path.join(self._path, path) if path else self._path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return NoSpace(path=shown)
        return TreeFailed(what=what, path=shown, reason=error.strerror or str(error))

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _number(frame: Frame, name: str) -> int:
    value = frame.header.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise ValueError(f"{name} of {frame.kind} is not a number that can be")
    return value
