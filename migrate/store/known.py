"""Which blob lies where: a cache on the machine that writes, made from the packs and made anew at will.

    <cache>/<store id>/known        SQLite, 0600

A wrong answer would become a snapshot with wrong pages, so none is believed: each row carries a digest of
what it says and of the name of the very file that it speaks of, and a file counts only when it was there
when the packs were looked at. What does not fit is not known, and costs space, never a byte.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress

from blake3 import blake3

from ocimig import log
from ocimig.migrate.store.contents import Contents
from ocimig.migrate.store.errors import FileMissing, FileShort, StoreDamaged
from ocimig.migrate.store.packs import Packs

_KEY = 16  # bytes of a digest that find its row
_SUM = 6  # bytes of the digest of what a row says
_AT_ONCE = 500  # SQLite takes 999 parameters everywhere
_TABLES = """
create table if not exists packs (name text primary key, number integer not null) without rowid;
create table if not exists blobs (key blob primary key, pack integer not null, entry integer not null,
    sum integer not null) without rowid;
"""
# of a damaged file even the words of the error may be none
_BROKEN = (sqlite3.Error, UnicodeDecodeError)
Place = tuple[int, int]


class Known:
    """The blobs of one store. One process at a time writes; several may have it open."""

    def __init__(self, path: str) -> None:
        """Begins empty where there is nothing, or nothing that can be used."""
        self._path = path
        self._names: dict[int, str] = {}  # the file of each pack that is believed to be there
        self._base = _open(path)
        self.empty = self._base.execute("select 1 from blobs limit 1").fetchone() is None

    def agree(self, packs: Packs) -> None:
        """Know exactly the packs that there are. A damaged pack is as one that is not there."""
        try:
            self._agree(packs)
        except _BROKEN as error:
            self._begin_anew(error)
            self._agree(packs)

    def _agree(self, packs: Packs) -> None:
        there = dict(_files(packs))
        here = {name for (name,) in self._base.execute("select name from packs")}
        if gone := here - there.keys():
            log.debug(f"{len(gone)} packs went away")
            self._base.executemany("delete from packs where name = ?", [(name,) for name in gone])
            # what was compacted is among them: its rows come back below, under the new name
            self._base.execute("delete from blobs where pack not in (select number from packs)")
        self._names = {number: name for name, number in there.items() if name in here}
        for name, number in there.items():
            if name not in here:
                try:
                    self._add(name, number, packs.contents(number))
                except (StoreDamaged, FileMissing, FileShort) as error:
                    log.warning(f"{error}: nothing in it is used again")
        self._base.commit()

    def add(self, name: str, number: int, contents: Contents) -> None:
        """A pack that is durable now."""
        try:
            self._add(name, number, contents)
        except _BROKEN as error:
            self._begin_anew(error)

    def _add(self, name: str, number: int, contents: Contents) -> None:
        rows = _rows(contents, name, number)
        self._base.executemany("insert or replace into blobs values (?, ?, ?, ?)", rows)
        self._base.execute("insert or replace into packs values (?, ?)", (name, _signed(number)))
        self._base.commit()
        self._names[number] = name
        self.empty = self.empty and not rows

    def find(self, digests: Sequence[bytes]) -> dict[bytes, Place]:
        """Where the blobs with these digests lie, of those that are known."""
        found: dict[bytes, Place] = {}
        if self.empty:
            return found
        try:
            for at in range(0, len(digests), _AT_ONCE):
                self._find(digests[at : at + _AT_ONCE], found)
        except _BROKEN as error:
            self._begin_anew(error)
        return found

    def _find(self, digests: Sequence[bytes], found: dict[bytes, Place]) -> None:
        some = {digest[:_KEY]: digest for digest in digests}
        marks = ",".join("?" * len(some))
        rows = self._base.execute(
            f"select key, pack, entry, sum from blobs where key in ({marks})",  # noqa: S608 - marks only
            list(some),
        )
        for key, pack, entry, total in rows:
            # SQLite gives back what is in the file, whatever the type of the column is
            if not isinstance(pack, int) or not isinstance(entry, int) or not 0 <= entry < 1 << 32:
                continue
            digest, number = some.get(key), _unsigned(pack)
            name = self._names.get(number)
            if digest is not None and name is not None and _sum(digest, name, entry) == total:
                found[digest] = (number, entry)

    def _begin_anew(self, error: Exception) -> None:
        """Whatever fails here must not keep a container from being saved."""
        log.warning(f"{self._path}: {error}: it is made anew")
        self._base.close()
        self._names.clear()
        _remove(self._path)
        self._base = _open(self._path)
        self.empty = True

    def close(self) -> None:
        """Give it back."""
        self._base.close()


def _files(packs: Packs) -> Iterator[tuple[str, int]]:
    """The file that each pack is read from, and its number; of a pack with two, the better one."""
    for number in packs.numbers():
        names = packs.names(number)
        try:
            yield (packs.name(number) if len(names) > 1 else names[0]), number
        except (StoreDamaged, FileMissing, FileShort) as error:
            log.warning(f"{error}: nothing in it is used again")


def _open(path: str) -> sqlite3.Connection:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    for _ in range(2):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        base = sqlite3.connect(path, timeout=30.0)
        try:
            base.execute("pragma journal_mode = wal")
            base.execute("pragma synchronous = off")  # a torn one is made anew
            base.execute("pragma cache_size = -65536")
            base.executescript(_TABLES)
            base.execute("select name, number from packs limit 1").fetchone()
            base.execute("select key, pack, entry, sum from blobs limit 1").fetchone()
        except _BROKEN as error:
            log.warning(f"{path}: {error}: it is made anew")
            base.close()
            _remove(path)
            continue
        return base
    raise FileShort(place=path, file="the list of known blobs")


def _remove(path: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)


def _rows(contents: Contents, name: str, number: int) -> list[tuple[bytes, int, int, int]]:
    """Of all blobs of a pack, in the order in which they are quickest to add."""
    pack, file = _signed(number), name.encode()
    # one expression, no call for each row: a GiB has 262,144 of them
    rows = [
        (
            digest[:_KEY],
            pack,
            entry,
            int.from_bytes(
                blake3(digest + file + entry.to_bytes(4, "little")).digest(length=_SUM), "little"
            ),
        )
        for entry, digest in contents.numbered()
    ]
    rows.sort()
    return rows


def _sum(digest: bytes, name: str, entry: int) -> int:
    said = blake3(digest + name.encode() + entry.to_bytes(4, "little"))
    return int.from_bytes(said.digest(length=_SUM), "little")


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _unsigned(number: int) -> int:
    return number + (1 << 64) if number < 0 else number
