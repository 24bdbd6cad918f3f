"""A store in a directory of this host. Knows names and bytes; docs/formats/store.md has the order of writes."""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock

from ocimig.errors import NoSpace
from ocimig.files import Fd, fsync_directory, write_all
from ocimig.migrate import failpoints
from ocimig.migrate.store import fit, locks, rooms
from ocimig.migrate.store.errors import (
    FileMissing,
    FileShort,
    NameTaken,
    NoStore,
    PlaceFailed,
    StoreExists,
)
from ocimig.migrate.store.place import KEYS, PACKS, QUARANTINE, ROOMS, SNAPSHOTS

# What is done before a file or a name is there, or gone, for good: one Step is told before each.
WRITE, SYNC, MAKE_DIRECTORY, RENAME, SYNC_DIRECTORY, UNLINK = (
    "write", "sync", "mkdir", "rename", "sync-directory", "unlink",
)  # fmt: skip
Step = Callable[[str, str], None]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # not to wait for the writer of a pipe
_BELOW = (KEYS, PACKS, SNAPSHOTS, QUARANTINE, locks.TMP, locks.HOLDERS)
_ONE_READ = 1 << 30  # read(2) gives no more than 2 GiB at once


class Failpoints:
    """The usual Step: the n-th of each kind in this process is a place of failpoints."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._lock = Lock()

    def __call__(self, act: str, room: str) -> None:
        """`act` is about to be done in `room`."""
        failpoints.here("store", self.point(act, room))

    def point(self, act: str, room: str) -> str:
        """The name of this one."""
        kind = f"{room or rooms.STORE}-{act}".upper()
        with self._lock:
            number = self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}-{number}:before"


class LocalPlace:
    """See place.Place. A link as the directory is followed once, here; none is followed below it."""

    def __init__(self, directory: str, *, words: str = "", step: Step | None = None) -> None:
        """Raises NoStore where there is no such directory, PlaceFailed where it cannot be opened.

        `step` is called before every durable step, with its name and its room, and may raise OSError.
        """
        self.words = words or directory
        self.step = step or Failpoints()
        self._synced: set[str] = set()  # directories of packs whose own names are durable
        try:
            opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NoStore(place=self.words, reason=words_of(error)) from None
        except OSError as error:
            raise PlaceFailed(place=self.words, reason=words_of(error)) from None
        self._root = Fd(opened)

    def names(self, room: str) -> list[str]:
        """See Place. What has no name of a store's file is left out."""
        if room not in ROOMS:
            raise ValueError(f"{room!r} is no room of a store")
        with self._told():
            try:
                found = self._files(self._root.number, room or ".")
                if room == PACKS:
                    with Fd(os.open(PACKS, _DIRECTORY, dir_fd=self._root.number)) as packs:
                        spread = [name for name in os.listdir(packs) if rooms.is_spread(name)]
                        found = [
                            name
                            for directory in spread
                            for name in self._files(packs, directory)
                            if name.startswith(directory)
                        ]
            except FileNotFoundError:
                return []
        return [name for name in found if rooms.is_name(room, name)]

    def size(self, room: str, name: str) -> int:
        """See Place."""
        with self._reading(room, name) as fd:
            return os.fstat(fd).st_size

    def read(self, room: str, name: str, offset: int = 0, size: int = -1) -> bytes:
        """See Place."""
        with self._reading(room, name) as fd:
            there = os.fstat(fd).st_size
            wanted = there - offset if size < 0 else size
            if wanted < 0 or offset + wanted > there:
                raise FileShort(place=self.words, file=rooms.shown(room, name))
            data = os.pread(fd, min(wanted, _ONE_READ), offset)
            if len(data) == wanted:
                return data
            parts = [data]
            while missing := wanted - sum(map(len, parts)):
                data = os.pread(fd, min(missing, _ONE_READ), offset + wanted - missing)
                if not data:
                    raise FileShort(place=self.words, file=rooms.shown(room, name))
                parts.append(data)
            return b"".join(parts)

    def make(self, room: str) -> "LocalMaking":
        """See Place."""
        if room not in ROOMS:
            raise ValueError(f"{room!r} is no room of a store")
        return LocalMaking(self, room)

    def remove(self, room: str, name: str) -> None:
        """See Place. Writes nothing but the directory; also where the name is gone: it may be so for now only."""
        rooms.check(room, name)
        with self._told(), suppress(FileNotFoundError), self._directory(room, name) as directory:
            self.step(UNLINK, room)
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            self.step(SYNC_DIRECTORY, room)
            os.fsync(directory)

    def has_twin(self, room: str, name: str) -> bool:
        """Whether another file is there whose name has the same number (all up to the dash)."""
        rooms.check(room, name)
        with self._told():
            try:
                with self._directory(room, name) as directory:
                    there = os.listdir(directory)
            except FileNotFoundError:
                return False
        number = name.partition("-")[0]
        return any(each != name and each.partition("-")[0] == number for each in there)

    def quarantine(self, room: str, name: str) -> None:
        """See Place. Raises FileMissing. What lies there already under this name is the same file."""
        rooms.check(room, name)
        with (
            self._told(rooms.shown(room, name)),
            self._directory(room, name) as directory,
            self._making(QUARANTINE) as away,
        ):
            self.step(RENAME, QUARANTINE)
            os.rename(name, name, src_dir_fd=directory, dst_dir_fd=away)
            # first there, then gone: a power cut in between leaves two names, not none
            self.step(SYNC_DIRECTORY, QUARANTINE)
            os.fsync(away)
            self.step(SYNC_DIRECTORY, room)
            os.fsync(directory)

    @contextmanager
    def lock(self, *, exclusive: bool, purpose: str) -> Iterator[None]:
        """See Place. Held until the block or the process ends, whatever ends it."""
        with self._told():
            entered = locks.held(
                self._root.number, self.words,
                exclusive=exclusive, purpose=purpose, alone=self._sweep,
            )  # fmt: skip
            entered.__enter__()
        try:
            yield
        finally:
            entered.__exit__(None, None, None)

    def holders(self) -> list[str]:
        """See Place."""
        with self._told():
            return locks.holders(self._root.number)

    def free(self) -> int:
        """See Place."""
        with self._told():
            there = os.fstatvfs(self._root.number)
            return there.f_bavail * there.f_frsize

    def close(self) -> None:
        """See Place. Can be called twice."""
        self._root.close()

    # ---- below

    @contextmanager
    def _told(self, file: str = "") -> Iterator[None]:
        """Errors of the kernel in the words of Place; a missing file is `file`, where that is given."""
        try:
            yield
        except FileNotFoundError:
            if not file:
                raise PlaceFailed(place=self.words, reason="a part of it is gone") from None
            raise FileMissing(place=self.words, file=file) from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(path=self.words) from None
            reason = f"{file}: {words_of(error)}" if file else words_of(error)
            raise PlaceFailed(place=self.words, reason=reason) from error

    @contextmanager
    def _directory(self, room: str, name: str) -> Iterator[int]:
        """The directory that a file of this name lies in."""
        with Fd(os.open(room or ".", _DIRECTORY, dir_fd=self._root.number)) as directory:
            if room != PACKS:
                yield directory
                return
            with Fd(os.open(name[:2], _DIRECTORY, dir_fd=directory)) as spread:
                yield spread

    @contextmanager
    def _making(self, room: str, name: str = "") -> Iterator[int]:
        """As _directory(), which is made, for good, where it is not there."""
        if room:
            self._make_directory(self._root.number, room, room)
        if room == PACKS and name[:2] not in self._synced:
            with Fd(os.open(PACKS, _DIRECTORY, dir_fd=self._root.number)) as packs:
                self._make_directory(packs, name[:2], room)
                # also where it was there: who made it may not have come to this yet
                self.step(SYNC_DIRECTORY, room)
                os.fsync(packs)
            self._synced.add(name[:2])
        with self._directory(room, name) as directory:
            yield directory

    def _make_directory(self, directory: int, name: str, room: str) -> None:
        if _is_directory(directory, name):
            return
        self.step(MAKE_DIRECTORY, room)
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=directory)
        self.step(SYNC_DIRECTORY, room)
        os.fsync(directory)

    @contextmanager
    def _reading(self, room: str, name: str) -> Iterator[int]:
        rooms.check(room, name)
        with (
            self._told(rooms.shown(room, name)),
            self._directory(room, name) as directory,
            Fd(os.open(name, os.O_RDONLY | _FILE, dir_fd=directory)) as fd,
        ):
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "it is no file")
            yield fd

    def _files(self, directory: int, name: str) -> list[str]:
        with Fd(os.open(name, _DIRECTORY, dir_fd=directory)) as fd, os.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]

    def _sweep(self) -> None:
        """Nobody else is here: what is in the making was left by a crash. A snapshot whose making failed must
        not come back with a power cut, after what it needs was removed: it is gone for good first."""
        with suppress(FileNotFoundError), self._directory(SNAPSHOTS, "") as directory:
            os.fsync(directory)
        with suppress(FileNotFoundError):
            for name in self._files(self._root.number, locks.TMP):
                with Fd(os.open(locks.TMP, _DIRECTORY, dir_fd=self._root.number)) as tmp:
                    self.step(UNLINK, locks.TMP)
                    os.unlink(name, dir_fd=tmp)


class LocalMaking:
    """See place.Making: a file in `tmp/` until commit()."""

    def __init__(self, place: LocalPlace, room: str) -> None:
        self._place = place
        self.room = room
        self._name = secrets.token_hex(8)
        self._whole = True  # no write has failed
        with place._told(), place._making(locks.TMP) as tmp:
            self._tmp = Fd(os.dup(tmp))
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE
                self._fd = Fd(os.open(self._name, flags, 0o600, dir_fd=tmp))
            except BaseException:
                self._tmp.close()
                raise

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See Making."""
        with self._place._told():
            try:
                self._place.step(WRITE, self.room)
                write_all(self._fd.number, memoryview(data).cast("B"))
            except BaseException:
                self._whole = False
                raise

    def commit(self, name: str) -> None:
        """See Making. When it fails the file is not there, or not for good: it has no name."""
        rooms.check(self.room, name)
        place, room = self._place, self.room
        if not self._whole:
            raise PlaceFailed(place=place.words, reason="a part of the file was not written")
        with place._told(), place._making(room, name) as directory:
            if _exists(directory, name):
                raise NameTaken(place=place.words, file=rooms.shown(room, name))
            self._whole = False  # what fsync(2) failed to write is not written by another one
            place.step(SYNC, room)
            os.fsync(self._fd.number)
            place.step(RENAME, room)
            os.rename(self._name, name, src_dir_fd=self._tmp.number, dst_dir_fd=directory)
            self._name = ""
            try:
                place.step(SYNC_DIRECTORY, room)
                os.fsync(directory)
            except BaseException:
                with suppress(OSError):
                    os.unlink(name, dir_fd=directory)
                raise

    def __enter__(self) -> "LocalMaking":
        return self

    def __exit__(self, *_: object) -> None:
        if self._name and self._tmp.number >= 0:
            with suppress(OSError):  # tmp/ is swept by who holds the store alone
                os.unlink(self._name, dir_fd=self._tmp.number)
        self._fd.close()
        self._tmp.close()


def create(directory: str, *, words: str = "", step: Step | None = None) -> LocalPlace:
    """Make the directory of a store, empty but for its rooms; one that is empty is taken.

    Who writes STORE into it holds it alone, as for everything that must not be done twice. Raises
    StoreExists where there is something, or the file system cannot keep a store; PlaceFailed.
    """
    words = words or directory
    try:
        os.mkdir(directory, 0o700)
        made = True
    except FileExistsError:
        made = False
    except OSError as error:
        raise PlaceFailed(place=words, reason=words_of(error)) from None
    try:
        place = LocalPlace(directory, words=words, step=step)
        try:
            with place._told():
                _check_empty(place)
                try:
                    fit.check(place._root.number)
                except ValueError as error:
                    raise StoreExists(place=words, reason=str(error)) from None
                os.fchmod(place._root.number, 0o700)
                for room in _BELOW:
                    place._make_directory(place._root.number, room, room)
                fsync_directory(os.path.join(directory, ".."))
        except BaseException:
            place.close()
            raise
    except BaseException:
        if made:
            with suppress(OSError):
                os.rmdir(directory)
        raise
    return place


def _check_empty(place: LocalPlace) -> None:
    """Raises StoreExists unless it is empty, or what a create() that was cut off left."""
    there = set(os.listdir(place._root.number))
    if rooms.STORE in there:
        raise StoreExists(place=place.words, reason="it is a store already")
    for name in sorted(there - {*_BELOW, locks.LOCK, "lost+found"}):
        raise StoreExists(place=place.words, reason=f"{name!r} is in it")
    for room in (KEYS, PACKS, SNAPSHOTS, QUARANTINE):
        if place.names(room):
            raise StoreExists(place=place.words, reason=f"it has {room}, but no {rooms.STORE}")


def words_of(error: OSError) -> str:
    """What the system says, beginning small."""
    reason = error.strerror or str(error)
    return reason[:1].lower() + reason[1:]


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_directory(directory: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
