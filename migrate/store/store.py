"""One store: what it is, its snapshots, and who writes into it or reads from it. docs/formats/store.md.

store = Store.open(place, secret, cache="/var/cache/ocimig")
with place.lock(exclusive=False, purpose="backup of web"):
    writer = store.writer()
    …
    store.add(snapshot)
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ocimig import log
from ocimig.errors import OcimigError
from ocimig.migrate.store import head, keys, seal
from ocimig.migrate.store import snapshot as snapshots
from ocimig.migrate.store.errors import (
    AddOnly,
    AmbiguousSnapshot,
    FileMissing,
    NoStore,
    NoSuchSnapshot,
    StoreDamaged,
    StoreExists,
    StoreTooNew,
    WrongKey,
)
from ocimig.migrate.store.head import Head
from ocimig.migrate.store.known import Known
from ocimig.migrate.store.packs import Packs
from ocimig.migrate.store.place import PACKS, SNAPSHOTS, TOP, Place
from ocimig.migrate.store.snapshot import Snapshot
from ocimig.migrate.store.writer import Writer

if TYPE_CHECKING:
    from ocimig.migrate.store.seal import Sealer
    from ocimig.migrate.store.secret import Secret

VERSION = 1
ABOUT = "STORE"
_LARGEST_ABOUT = 1 << 16


class Store:
    """A store that was opened. Close the place it lies in when done."""

    def __init__(
        self, place: Place, id: str, sealer: "Sealer", digest_key: bytes, cache: str
    ) -> None:
        self.place = place
        self.id = id
        self.seals = sealer
        self.digest_key = digest_key
        self.cache = os.path.join(cache, id)
        self._packs: Packs | None = None

    @classmethod
    def init(cls, place: Place, secret: "Secret | None", *, sealed: str, cache: str) -> "Store":
        """Make one in a place where nothing is. `sealed` is one of seal.NONE, AES, CHACHA; `secret` opens
        it from now on. Raises StoreExists, WrongKey, StoreLocked."""
        with _alone(place):
            if ABOUT in place.names(TOP) or place.names(PACKS) or place.names(SNAPSHOTS):
                raise StoreExists(place=place.words, reason="there is a store")
            id = os.urandom(16).hex()
            about: dict[str, Any] = {"version": VERSION, "id": id, "sealed": sealed}
            if sealed == seal.NONE:
                about["digest_key"] = os.urandom(32).hex()
            elif secret is None:
                raise WrongKey(place=place.words, reason="nothing was given to seal it with")
            else:
                keys.add(place, id, keys.new_master(), secret, comment="init")
            about["check"] = _check(about)
            with place.make(TOP) as making:
                making.write((json.dumps(about, sort_keys=True) + "\n").encode())
                making.commit(ABOUT)
        return cls.open(place, secret, cache=cache)

    @classmethod
    def open(cls, place: Place, secret: "Secret | None", *, cache: str) -> "Store":
        """Raises NoStore, StoreTooNew, StoreDamaged, WrongKey."""
        about = read_about(place)
        try:
            sealer, digest_key = keys.sealer_of(
                place, str(about["id"]), str(about["sealed"]), secret
            )
        except ValueError as error:
            raise StoreDamaged(place=place.words, file=ABOUT, reason=str(error)) from None
        if digest_key is None:
            digest_key = bytes.fromhex(str(about["digest_key"]))
        return cls(place, str(about["id"]), sealer, digest_key, cache)

    @property
    def packs(self) -> Packs:
        """Its packs, as they were when this was asked first."""
        if self._packs is None:
            self._packs = Packs(self.place, self.seals)
        return self._packs

    def writer(self) -> Writer:
        """For one snapshot, under the lock. Close it, and its list of known blobs with it."""
        if self._packs is not None:
            self._packs.refresh()  # what others removed before the lock was ours must not be built upon
        known = Known(os.path.join(self.cache, "known"))
        known.agree(self.packs)
        return Writer(self.place, self.seals, self.packs, known, self.digest_key)

    # ---- snapshots

    def names(self) -> dict[str, str]:
        """The file of each snapshot, by its id."""
        found = {}
        for name in self.place.names(SNAPSHOTS):
            if parsed := head.parse(name, "snapshot"):
                found[head.hexadecimal(parsed[0])] = name
        return found

    def read(self, name: str) -> Snapshot:
        """The snapshot in a file. Raises StoreDamaged, FileMissing."""
        try:
            return snapshots.read(self.place.read(SNAPSHOTS, name), name, self.seals)
        except ValueError as error:
            file = f"{SNAPSHOTS}/{name}"
            raise StoreDamaged(place=self.place.words, file=file, reason=str(error)) from None

    def snapshots(self) -> Iterator[Snapshot]:
        """All that can be read, oldest first; a damaged one is a warning, others do not need it."""
        found = []
        for id, name in self.names().items():
            try:
                found.append(self.read(name))
            except FileMissing:  # forgotten by somebody else in this moment
                continue
            except StoreDamaged as error:
                words = self.place.words
                log.warning(f"{error}; if it is to go: ocimig backup forget {words} {id}")
            except OcimigError as error:
                log.warning(str(error))
        yield from sorted(found, key=lambda each: (each.time, each.id))

    def find(self, text: str, container: str = "") -> Snapshot:
        """By the begin of its id, or "latest" (of a container, or of all).

        Raises NoSuchSnapshot, AmbiguousSnapshot, StoreDamaged."""
        if text == "latest":
            latest = None
            for each in self.snapshots():
                if container in ("", each.container):
                    latest = each
            if latest is None:
                raise NoSuchSnapshot(place=self.place.words, id=f"{text} {container}".strip())
            return latest
        names = self.names()
        fitting = [id for id in names if id.startswith(text)] if text else []
        if not fitting:
            raise NoSuchSnapshot(place=self.place.words, id=text)
        if len(fitting) > 1:
            raise AmbiguousSnapshot(place=self.place.words, id=text, count=len(fitting))
        return self.read(names[fitting[0]])

    def add(self, snapshot: Snapshot) -> None:
        """It exists when this returns. Everything that it names is durable already."""
        start = Head(int(snapshot.id, 16), os.urandom(16), self.seals.sealed)
        data = snapshots.write(snapshot, start, self.seals)
        with self.place.make(SNAPSHOTS) as making:
            making.write(data)
            making.commit(head.name(start.number, head.digest_of(data), "snapshot"))

    def damaged(self, file: str, reason: str) -> StoreDamaged:
        """The error about a file of this store."""
        return StoreDamaged(place=self.place.words, file=file, reason=reason)

    def forget(self, id: str) -> None:
        """It exists no more; what only it needed goes with prune()."""
        name = self.names().get(id)
        if name is None:
            raise NoSuchSnapshot(place=self.place.words, id=id)
        self.place.remove(SNAPSHOTS, name)


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Two who make a store at once must not both believe that theirs is the one."""
    with ExitStack() as held:
        try:
            held.enter_context(place.lock(exclusive=True, purpose="init"))
        except AddOnly:  # who may only add to the other host may still make the store there
            held.enter_context(place.lock(exclusive=False, purpose="init"))
        yield


def read_about(place: Place) -> Mapping[str, Any]:
    """What STORE says. Raises NoStore, StoreTooNew, StoreDamaged."""
    try:
        if place.size(TOP, ABOUT) > _LARGEST_ABOUT:
            raise ValueError("it is too long")
        about = json.loads(place.read(TOP, ABOUT))
        if not isinstance(about, dict):
            raise ValueError("it is no object")  # noqa: TRY004 - as any other damage
        found = dict(about)
        if found.pop("check", None) != _check(found):
            raise ValueError("it was changed")
        if about.get("version") != VERSION:
            raise StoreTooNew(place=place.words, version=about.get("version"), known=VERSION)
        if len(bytes.fromhex(str(about["id"]))) != 16:
            raise ValueError("its id is none")
        if about["sealed"] == seal.NONE and len(bytes.fromhex(str(about["digest_key"]))) != 32:
            raise ValueError("its digest key is none")
    except FileMissing:
        raise NoStore(place=place.words, reason="there is no file STORE") from None
    except (ValueError, KeyError) as error:
        raise StoreDamaged(place=place.words, file=ABOUT, reason=str(error)) from None
    return about


def _check(about: Mapping[str, Any]) -> str:
    said = json.dumps(about, separators=(",", ":"), sort_keys=True).encode()
    return head.digest_of(said).hex()
