"""Which blob lies where: a cache on the machine that writes, made from the packs and made anew at will.

    <cache>/<store id>.known        SQLite, 0600

A wrong answer would become a snapshot with wrong pages, so none is believed: each row carries a digest of
what it says. What does not fit counts as not known, and costs space, never a byte.
"""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress

from blake3 import blake3

from ocimig import log
from ocimig.migrate.store import head
from ocimig.migrate.store.contents import Contents
from ocimig.migrate.store.errors import FileMissing, FileShort, StoreDamaged
from ocimig.migrate.store.packs import Packs

_KEY = 16  # bytes of a digest that find its row
_AT_ONCE = 500  # SQLite takes 999 parameters everywhere
_TABLES = """
create table if not exists packs (name text primary key, number integer not null) without rowid;
create table if not exists blobs (key blob primary key, pack integer not null, entry integer not null,
    sum integer not null) without rowid;
"""
Place = tuple[int, int]


class Known:
    """The blobs of one store. One process at a time writes; several may have it open."""

    def __init__(self, path: str) -> None:
        """Begins empty where there is nothing, or nothing that can be used."""
        self._path = path
        self._base = _open(path)
        self.empty = self._base.execute("select 1 from blobs limit 1").fetchone() is None

    def agree(self, packs: Packs) -> None:
        """Know exactly the packs that there are. A damaged pack is as one that is not there."""
        there = {name: number for number in packs.numbers() for name in packs.names(number)}
        here = dict(self._base.execute("select name, number from packs"))
        gone = [(name, number) for name, number in here.items() if name not in there]
        if gone:
            log.debug(f"{len(gone)} packs went away")
            self._base.executemany(
                "delete from packs where name = ?", [(name,) for name, _ in gone]
            )
            self._base.executemany(
                "delete from blobs where pack = ?", [(number,) for _, number in gone]
            )
            again = {number for _, number in gone}
            here = {name: number for name, number in here.items() if number not in again}
        for name, number in there.items():
            if name not in here:
                try:
                    self.add(name, number, packs.contents(number))
                except (StoreDamaged, FileMissing, FileShort) as error:
                    log.warning(f"{error}: nothing in it is used again")
        self._base.commit()

    def add(self, name: str, number: int, contents: Contents) -> None:
        """A pack that is durable now."""
        rows = sorted(_row(digest, number, entry) for entry, digest in contents.numbered())
        self._base.executemany("insert or replace into blobs values (?, ?, ?, ?)", rows)
        self._base.execute("insert or replace into packs values (?, ?)", (name, _signed(number)))
        self._base.commit()
        self.empty = self.empty and not rows

    def find(self, digests: Sequence[bytes]) -> dict[bytes, Place]:
        """Where the blobs with these digests lie, of those that are known."""
        found: dict[bytes, Place] = {}
        if self.empty:
            return found
        for at in range(0, len(digests), _AT_ONCE):
            some = {digest[:_KEY]: digest for digest in digests[at : at + _AT_ONCE]}
            marks = ",".join("?" * len(some))
            rows = self._base.execute(
                f"select key, pack, entry, sum from blobs where key in ({marks})",  # noqa: S608 - marks only
                list(some),
            )
            for key, pack, entry, total in rows:
                digest, number = some[key], _unsigned(pack)
                if _sum(digest, number, entry) == total:
                    found[digest] = (number, entry)
        return found

    def close(self) -> None:
        """Give it back."""
        self._base.close()


def _open(path: str) -> sqlite3.Connection:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    for _ in range(2):
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            base = sqlite3.connect(path, timeout=30.0)
            base.execute("pragma journal_mode = wal")
            base.execute("pragma synchronous = off")  # a torn one is made anew
            base.execute("pragma cache_size = -65536")
            base.executescript(_TABLES)
            base.execute("select count(*) from packs").fetchone()
        except sqlite3.DatabaseError as error:
            log.warning(f"{path}: {error}: it is made anew")
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.unlink(path + suffix)
            continue
        return base
    raise FileShort(place=path, file="the list of known blobs")


def _row(digest: bytes, number: int, entry: int) -> tuple[bytes, int, int, int]:
    return digest[:_KEY], _signed(number), entry, _sum(digest, number, entry)


def _sum(digest: bytes, number: int, entry: int) -> int:
    said = blake3(digest + head.hexadecimal(number).encode() + entry.to_bytes(4, "little"))
    return int.from_bytes(said.digest(length=6), "little")


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _unsigned(number: int) -> int:
    return number + (1 << 64) if number < 0 else number
