"""A store on another host: the same place, asked over a wire. Never believes what the far side says of lengths.

A connection that breaks is PlaceFailed, from then on always; over there it leaves nothing but files in
the making, and no lock.
"""

import os
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from ocimig.errors import NoSpace, OcimigError
from ocimig.migrate.beat import Beat
from ocimig.migrate.errors import BrokenFrame, FarFailure, InvalidTarget, LinkLost
from ocimig.migrate.failpoints import patience
from ocimig.migrate.noise import shortened
from ocimig.migrate.store import rooms
from ocimig.migrate.store.errors import (
    AddOnly,
    FileMissing,
    FileShort,
    NameTaken,
    NoStore,
    PlaceFailed,
    StoreExists,
    StoreLocked,
)
from ocimig.migrate.store.place import ROOMS
from ocimig.migrate.store.serve import BEAT, DONE, FAILED, PIECE, PIECE_BYTES
from ocimig.migrate.transport import Connection, Target
from ocimig.migrate.wire import Frame, Wire

SCHEME = "ssh://"
PATIENCE = 120.0  # seconds without any word from the far side, or without it taking any byte
LARGEST = 1 << 30  # bytes of what is read whole
MOST_NAMES = 1 << 26  # bytes of all names of a room

_LONGEST = 2000  # characters of what the far side says of itself


@dataclass(frozen=True, slots=True)
class Address:
    """ssh://[user@]host[:port]/path, taken apart."""

    target: Target
    path: str
    words: str


def is_far(text: str) -> bool:
    """Whether this names a store on another host."""
    return text.startswith(SCHEME)


def parse(
    text: str, *, port: int = 0, identity: str = "", known_hosts: str = "", accept_new: bool = False
) -> Address:
    """An address, with what options say of how to reach it. Raises InvalidTarget."""
    host, slash, path = text.removeprefix(SCHEME).partition("/")
    path = os.path.normpath(f"/{path.lstrip('/')}")
    if not is_far(text) or not slash or path == "/" or not path.isprintable():
        raise InvalidTarget(target=text, reason="a store is ssh://HOST/DIRECTORY")
    target = Target.parse(
        host, port=port, identity=identity, known_hosts=known_hosts, accept_new=accept_new
    )
    return Address(target, path, f"{SCHEME}{host}{path}")


def argv(remote_command: str, environment: Mapping[str, str]) -> list[str]:
    """The command that becomes the far side. An SSH key with a forced command runs that one instead."""
    command = remote_command or environment.get("OCIMIG_REMOTE_COMMAND", "") or "ocimig"
    return [*shlex.split(command), "serve-store"]


def reach(
    connection: Connection,
    command: Sequence[str],
    path: str,
    *,
    words: str = "",
    create: bool = False,
) -> "FarPlace":
    """Start `command` over there and open, or make, the store at `path`. The place owns the connection.

    Raises NoStore, StoreExists, PlaceFailed, and what says that nothing of ours answers (AgentMissing,
    NotOurProtocol, WireVersion).
    """
    words = words or f"{SCHEME}{connection.host}{path}"
    try:
        wire = Wire(connection.open(command), program=command[0])
        wire.greet(patience(PATIENCE))
        place = FarPlace(connection, wire, words)
    except BaseException:
        connection.close()
        raise
    try:
        place.ask("open", {"path": path, "create": create})
    except BaseException:
        place.close()
        raise
    return place


class FarPlace:
    """See place.Place. Any thread may call; answers are waited for one at a time."""

    def __init__(self, connection: Connection, wire: Wire, words: str) -> None:
        """`wire` has greeted."""
        self.words = words
        self._connection = connection
        self._wire = wire
        self._asking = threading.Lock()
        self._numbers = count()
        self._broken = ""  # why nothing can be asked any more
        self._due = False  # an answer is on its way
        self._beat = Beat(lambda: wire.send("alive", timeout=patience(PATIENCE)), patience(BEAT))
        self._beat.__enter__()

    def names(self, room: str) -> list[str]:
        """See Place. A name that is none is not believed."""
        if room not in ROOMS:
            raise ValueError(f"{room!r} is no room of a store")
        _, data = self.ask("names", {"room": room}, limit=MOST_NAMES)
        *names, rest = data.decode("ascii", "replace").split("\n")
        if (
            rest
            or len(set(names)) != len(names)
            or not all(rooms.is_name(room, name) for name in names)
        ):
            raise self._lost(f"it has names in {room or 'the store'} that are none")
        return names

    def size(self, room: str, name: str) -> int:
        """See Place."""
        return self._count("size", room, name)

    def read(self, room: str, name: str, offset: int = 0, size: int = -1) -> bytes:
        """See Place. What is read whole has at most LARGEST bytes."""
        rooms.check(room, name)
        about = {"room": room, "name": name, "offset": offset, "size": size}
        _, data = self.ask("read", about, limit=LARGEST if size < 0 else size)
        if 0 <= size != len(data):
            raise self._lost(f"it sent {len(data)} bytes where {size} were asked for")
        return data

    def make(self, room: str) -> "FarMaking":
        """See Place."""
        if room not in ROOMS:
            raise ValueError(f"{room!r} is no room of a store")
        number = next(self._numbers)
        self.tell("begin", {"file": number, "room": room})
        return FarMaking(self, room, number)

    def remove(self, room: str, name: str) -> None:
        """See Place."""
        rooms.check(room, name)
        self.ask("remove", {"room": room, "name": name})

    def quarantine(self, room: str, name: str) -> None:
        """See Place."""
        rooms.check(room, name)
        self.ask("quarantine", {"room": room, "name": name})

    @contextmanager
    def lock(self, *, exclusive: bool, purpose: str) -> Iterator[None]:
        """See Place. The far side holds it for as long as the connection lives.

        When it ends there first, nothing more can be done under it: all goes over that connection.
        """
        number = next(self._numbers)
        self.ask("lock", {"lock": number, "exclusive": exclusive, "purpose": purpose})
        try:
            yield
        finally:
            with suppress(PlaceFailed):  # a broken connection holds nothing
                self.ask("unlock", {"lock": number})

    def holders(self) -> list[str]:
        """See Place."""
        header, _ = self.ask("holders")
        found = header.get("holders")
        if not isinstance(found, list):
            raise self._lost("it does not say who holds the store")
        return [_plain(each) for each in found]

    def free(self) -> int:
        """See Place."""
        return self._count("free")

    def close(self) -> None:
        """See Place. Can be called twice."""
        self._beat.__exit__(None, None, None)
        if not self._broken:
            with suppress(LinkLost, OSError):
                self._wire.send("bye", timeout=1.0)
            self._broken = "it was closed here"
        self._wire.close()
        self._connection.close()

    # ---- the conversation

    def tell(
        self,
        kind: str,
        header: dict[str, Any],
        payload: bytes | memoryview = b"",
        *,
        flush: bool = True,
    ) -> None:
        """Say what has no answer."""
        if self._broken:
            raise self._lost(self._broken)
        try:
            self._wire.send(kind, header, payload, flush=flush, timeout=patience(PATIENCE))
        except (LinkLost, OSError) as error:
            raise self._lost(str(error)) from None
        except BaseException:  # a signal: half a frame may be on its way
            self._lost("it was interrupted")
            raise

    def ask(
        self, kind: str, header: dict[str, Any] | None = None, *, limit: int = 0
    ) -> tuple[dict[str, Any], bytes]:
        """The answer: its header, and up to `limit` bytes of data. Raises what the far side says failed."""
        asked = header or {}
        with self._asking:
            if self._due:  # a signal came before it: the next one would not be ours
                self._lost("it was interrupted")
            self._due = True
            self.tell(kind, asked)
            try:
                return self._answer(asked, limit)
            except (LinkLost, BrokenFrame, FarFailure, OSError) as error:
                raise self._lost(str(error)) from None

    def _answer(self, asked: dict[str, Any], limit: int) -> tuple[dict[str, Any], bytes]:
        parts, size = [], 0
        while True:
            frame = self._wire.receive(patience(PATIENCE))
            self._due = frame.kind == PIECE
            if frame.kind == FAILED:
                raise self._failure(frame, asked)
            size += len(frame.payload)
            if frame.kind not in (DONE, PIECE) or size > limit:
                raise self._lost(f"its answer {frame.kind!r} is not what was asked for")
            if frame.kind == PIECE and not frame.payload:
                raise self._lost("it sends pieces without anything in them")
            parts.append(frame.payload)
            if frame.kind == DONE:
                return frame.header, parts[0] if len(parts) == 1 else b"".join(parts)

    def _failure(self, frame: Frame, asked: dict[str, Any]) -> OcimigError:
        name, reason = frame.header.get("name"), _plain(frame.header.get("reason"))
        file = rooms.shown(str(asked.get("room", "")), str(asked.get("name", "")))
        for kind in (FileMissing, FileShort, NameTaken):
            if name == kind.__name__ and file:
                return kind(place=self.words, file=file)
        for other in (NoStore, StoreExists, AddOnly):
            if name == other.__name__:
                return other(place=self.words, reason=reason)
        if name == NoSpace.__name__:
            return NoSpace(path=self.words)
        if name == StoreLocked.__name__:
            return StoreLocked(place=self.words, holders=reason)
        return PlaceFailed(place=self.words, reason=reason)

    def _count(self, kind: str, room: str = "", name: str = "") -> int:
        if kind == "size":
            rooms.check(room, name)
        header, _ = self.ask(kind, {"room": room, "name": name})
        number = header.get("bytes")
        if type(number) is not int or not 0 <= number < 1 << 63:
            raise self._lost(f"its {kind} is no number")
        return number

    def _lost(self, reason: str) -> PlaceFailed:
        """After this the conversation cannot be trusted to be where we think that it is."""
        self._broken = self._broken or reason
        return PlaceFailed(place=self.words, reason=reason)


class FarMaking:
    """See place.Making. What fails over there while it is written is said by commit()."""

    def __init__(self, place: FarPlace, room: str, number: int) -> None:
        self._place = place
        self._room = room
        self._number = number

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See Making. Does not wait for the far side."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), PIECE_BYTES):
            piece = view[start : start + PIECE_BYTES]
            self._place.tell("write", {"file": self._number}, piece, flush=False)

    def commit(self, name: str) -> None:
        """See Making."""
        rooms.check(self._room, name)
        self._place.ask("commit", {"file": self._number, "room": self._room, "name": name})

    def __enter__(self) -> "FarMaking":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(PlaceFailed):  # a broken connection has dropped it
            self._place.tell("drop", {"file": self._number})


def _plain(text: object) -> str:
    """Words of the far side, fit for one line of a terminal."""
    return "".join(c if c.isprintable() else "?" for c in shortened(str(text)[:_LONGEST]))
