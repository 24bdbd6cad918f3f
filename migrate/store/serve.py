"""The far side of a store: a place of this host for who is at the other end of a wire. Never speaks first.

docs/formats/store-wire.md is the table of what may be asked. All that comes is checked: this process may be
all that an SSH key lets its owner do here.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from ocimig.errors import Interrupted, NoSpace, OcimigError
from ocimig.files import Fd
from ocimig.migrate.beat import Beat
from ocimig.migrate.errors import BrokenFrame, LinkLost
from ocimig.migrate.failpoints import patience
from ocimig.migrate.store import local, rooms
from ocimig.migrate.store.errors import AddOnly, PlaceFailed
from ocimig.migrate.store.local import LocalMaking, LocalPlace
from ocimig.migrate.store.place import KEYS, PACKS, ROOMS, SNAPSHOTS
from ocimig.migrate.transport.stdio import StdioChannel
from ocimig.migrate.wire import Frame, Wire
from ocimig.runtime.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

DONE, PIECE, FAILED = "done", "piece", "failed"
PIECE_BYTES = 1 << 18  # in a minute, over any link that is worth the name
QUIET = 60.0  # seconds without a word after which the other end is dead, and its locks are free
BEAT = 5.0  # seconds between signs of life

_MOST_FILES = 64  # in the making, of one connection
_MOST_LOCKS = 16
_MOST = 1 << 63
_LONGEST_PATH = 4096

Handler = Callable[[Frame], None]


@dataclass(frozen=True, slots=True)
class Confined:
    """What one caller may do: stores below `root` only ("" is anywhere), or only add to them and read."""

    root: str = ""
    append_only: bool = False


class Server:
    """One conversation about one store."""

    def __init__(self, wire: Wire, confined: Confined, *, client: str = "") -> None:
        self._wire = wire
        self._confined = confined
        self._client = client
        self._opened: LocalPlace | None = None
        self._files: dict[int, LocalMaking | OcimigError] = {}
        self._locks: dict[int, AbstractContextManager[None]] = {}
        self._busy = False
        self._heard = False  # something since the last sign of life

    def run(self) -> None:
        """Answer until the other end says bye, breaks off or is silent for QUIET seconds.

        What it has in the making is dropped then, and its locks are free.
        """
        handlers: dict[str, Handler] = {
            "open": self._open,
            "names": self._names,
            "size": self._size,
            "read": self._read,
            "begin": self._begin,
            "write": self._write,
            "commit": self._commit,
            "drop": self._drop,
            "remove": self._remove,
            "quarantine": self._quarantine,
            "lock": self._lock,
            "unlock": self._unlock,
            "holders": self._holders,
            "free": self._free,
        }
        with ExitStack() as stack:
            stack.callback(self._wire.close)
            stack.callback(self._give_back)
            try:
                self._wire.greet()
                with Beat(self._sign, patience(BEAT)):
                    while self._step(handlers):
                        pass
            except LinkLost:
                return
            except BaseException as error:
                with suppress(LinkLost, OSError):
                    self._wire.send_error(error)
                if not isinstance(error, OcimigError):
                    raise

    def _step(self, handlers: dict[str, Handler]) -> bool:
        """Answer one frame; false at the end."""
        frame = self._wire.receive(patience(QUIET))
        self._heard = True
        if frame.kind == "bye":
            return False
        handler = handlers.get(frame.kind)
        if handler is None or (self._opened is None) != (frame.kind == "open"):
            raise self._broken(f"{frame.kind!r} is not due")
        self._busy = True
        try:
            handler(frame)
        except (BrokenFrame, LinkLost, Interrupted):
            raise
        except OcimigError as error:
            self._wire.send(FAILED, {"name": type(error).__name__, "reason": _reason(error)})
        finally:
            self._busy = False
        return True

    def _sign(self) -> None:
        """Only while the other end waits for an answer, or writes and will: else nobody would read it."""
        if self._busy or self._heard:
            self._heard = False
            self._wire.send("alive", timeout=patience(QUIET))

    def _give_back(self) -> None:
        for making in self._files.values():
            if isinstance(making, LocalMaking):
                making.__exit__(None, None, None)
        for lock in self._locks.values():
            lock.__exit__(None, None, None)
        if self._opened is not None:
            self._opened.close()

    def _done(self, header: dict[str, Any] | None = None, payload: bytes = b"") -> None:
        self._wire.send(DONE, header, payload, timeout=patience(QUIET))

    # ---- answers

    def _open(self, frame: Frame) -> None:
        path = frame.header.get("path")
        if not isinstance(path, str) or "\0" in path or len(path) > _LONGEST_PATH:
            raise self._broken("its path is none")
        make = frame.header.get("create") is True
        self._opened = opened(path, self._confined, create=make)
        self._done()

    def _names(self, frame: Frame) -> None:
        found = self._place.names(self._room(frame))
        *pieces, last = _gathered(found)
        for piece in pieces:
            self._wire.send(PIECE, None, piece, timeout=patience(QUIET))
        self._done(None, last)

    def _size(self, frame: Frame) -> None:
        self._done({"bytes": self._place.size(*self._file(frame))})

    def _read(self, frame: Frame) -> None:
        room, name = self._file(frame)
        offset = self._number(frame, "offset")
        if frame.header.get("size") == -1:
            size = max(0, self._place.size(room, name) - offset)
        else:
            size = self._number(frame, "size")
        while size > PIECE_BYTES:
            piece = self._place.read(room, name, offset, PIECE_BYTES)
            self._wire.send(PIECE, None, piece, timeout=patience(QUIET))
            offset, size = offset + PIECE_BYTES, size - PIECE_BYTES
        self._done(None, self._place.read(room, name, offset, size))

    def _begin(self, frame: Frame) -> None:
        room, number = self._room(frame), self._number(frame, "file")
        if number in self._files or len(self._files) >= _MOST_FILES:
            raise self._broken("too many files in the making")
        try:
            self._files[number] = self._place.make(room)
        except (NoSpace, PlaceFailed) as error:  # said when the answer is due: at commit
            self._files[number] = error

    def _write(self, frame: Frame) -> None:
        number = self._number(frame, "file")
        making = self._files.get(number)
        if making is None:
            raise self._broken("a file that was not begun")
        if isinstance(making, LocalMaking):
            try:
                making.write(frame.payload)
            except (NoSpace, PlaceFailed) as error:
                making.__exit__(None, None, None)  # a full disk gets its room back at once
                self._files[number] = error

    def _commit(self, frame: Frame) -> None:
        making = self._files.get(self._number(frame, "file"))
        if making is None:
            raise self._broken("a file that was not begun")
        if isinstance(making, OcimigError):
            raise making
        name = frame.header.get("name")
        if not isinstance(name, str) or not rooms.is_name(making.room, name):
            raise self._broken("that is no name of a file")
        if self._confined.append_only:
            self._check_adding(making.room, name)
        making.commit(name)
        self._done()

    def _drop(self, frame: Frame) -> None:
        """The end of a file in the making, with a commit before it or without."""
        making = self._files.pop(self._number(frame, "file"), None)
        if isinstance(making, LocalMaking):
            making.__exit__(None, None, None)

    def _remove(self, frame: Frame) -> None:
        self._more_than_adding("removed from")
        self._place.remove(*self._file(frame))
        self._done()

    def _quarantine(self, frame: Frame) -> None:
        self._more_than_adding("changed")
        self._place.quarantine(*self._file(frame))
        self._done()

    def _lock(self, frame: Frame) -> None:
        number = self._number(frame, "lock")
        if number in self._locks or len(self._locks) >= _MOST_LOCKS:
            raise self._broken("too many locks")
        exclusive = frame.header.get("exclusive") is not False
        if exclusive:
            self._more_than_adding("held alone")
        purpose = str(frame.header.get("purpose", ""))
        if self._client:
            purpose = f"{purpose[:80]} for {self._client}"
        lock = self._place.lock(exclusive=exclusive, purpose=purpose)
        lock.__enter__()
        self._locks[number] = lock
        self._done()

    def _unlock(self, frame: Frame) -> None:
        lock = self._locks.pop(self._number(frame, "lock"), None)
        if lock is not None:
            lock.__exit__(None, None, None)
        self._done()

    def _holders(self, frame: Frame) -> None:
        self._done({"holders": self._place.holders()})

    def _free(self, frame: Frame) -> None:
        self._done({"bytes": self._place.free()})

    # ---- what came, checked

    @property
    def _place(self) -> LocalPlace:
        assert self._opened is not None
        return self._opened

    def _more_than_adding(self, what: str) -> None:
        if self._confined.append_only:
            raise AddOnly(place=self._place.words, reason=what)

    def _check_adding(self, room: str, name: str) -> None:
        """What is added may not take the place of what is there, nor be in the way of those who need it."""
        if room == KEYS and self._place.names(KEYS):
            raise AddOnly(place=self._place.words, reason="given another key")
        # readers take the fuller one of two packs with one number
        if room in (PACKS, SNAPSHOTS) and self._place.has_twin(room, name):
            raise AddOnly(place=self._place.words, reason="given a second file of that number")

    def _room(self, frame: Frame) -> str:
        room = frame.header.get("room")
        if not isinstance(room, str) or room not in ROOMS:
            raise self._broken("that is no room of a store")
        return room

    def _file(self, frame: Frame) -> tuple[str, str]:
        room, name = self._room(frame), frame.header.get("name")
        if not isinstance(name, str) or not rooms.is_name(room, name):
            raise self._broken("that is no name of a file")
        return room, name

    def _number(self, frame: Frame, field: str) -> int:
        number = frame.header.get(field)
        if type(number) is not int or not 0 <= number < _MOST:
            raise self._broken(f"its {field} is no number")
        return number

    def _broken(self, reason: str) -> BrokenFrame:
        return BrokenFrame(host=self._wire.host, reason=reason)


def opened(path: str, confined: Confined, *, create: bool) -> LocalPlace:
    """The store at `path`, made where `create` says so. Raises NoStore, StoreExists, PlaceFailed."""
    if not os.path.isabs(path) or os.path.normpath(path) != path or path == "/":
        raise PlaceFailed(place=path, reason="that is no path of a directory")
    if not confined.root:
        return local.create(path) if create else LocalPlace(path)
    root = os.path.normpath(confined.root)
    below = os.path.relpath(path, root)
    if below == ".." or below.startswith("../"):
        raise PlaceFailed(place=path, reason="this SSH key is for another directory")
    try:
        with Fd(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as top:
            if create and below != ".":
                parent, name = os.path.split(below)
                with Fd(_beneath(top, parent or ".")) as directory, suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=directory)
            with Fd(_beneath(top, below)) as directory:
                # by its number: nobody can put a link in its place any more
                number = f"/proc/self/fd/{directory}"
                return (
                    local.create(number, words=path) if create else LocalPlace(number, words=path)
                )
    except OSError as error:
        raise PlaceFailed(place=path, reason=local.words_of(error)) from None


def serve(stdin: int, stdout: int, confined: Confined) -> None:
    """`ocimig serve-store`: stdout carries frames only; what anything else prints goes to stderr."""
    # The link's end is seen by reading it; a signal must not take us away in between.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, _terminated)
    channels = [os.dup(stdin), os.dup(stdout)]
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, stdin)
    os.dup2(2, stdout)
    os.close(null)
    client = os.environ.get("SSH_CONNECTION", "").partition(" ")[0]
    Server(Wire(StdioChannel(*channels)), confined, client=client).run()


def _terminated(number: int, _frame: object) -> None:
    raise Interrupted(state=f"the serving side got signal {number}")


def _beneath(directory: int, path: str) -> int:
    return openat2(
        directory, path, os.O_RDONLY | os.O_DIRECTORY, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
    )


def _gathered(names: list[str]) -> Iterator[bytes]:
    """Names, each with its newline, in pieces; one piece at least."""
    lines: list[str] = []
    size = 0
    for name in names:
        if size + len(name) + 1 > PIECE_BYTES:
            yield "".join(lines).encode()
            lines, size = [], 0
        lines.append(f"{name}\n")
        size += len(name) + 1
    yield "".join(lines).encode()


def _reason(error: OcimigError) -> str:
    """What of an error the other end cannot know."""
    for field in ("reason", "holders"):
        if field in error.fields:
            return str(error.fields[field])
    return str(error)
