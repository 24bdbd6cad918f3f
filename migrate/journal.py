"""What survives a crash of a migration: one file of JSON lines on each side. Never decides.

    <root>/.migrations/<migration>/journal    0600, appended and fsynced, one object a line
                                   lock       held by the process that carries the migration out
    <root>/.migrations/.<id>.lock             held by the source while it migrates that container

docs/formats/journal.md describes the records.
"""

import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ocimig import files, jsonio
from ocimig.migrate import failpoints, phases
from ocimig.migrate.errors import Fenced, JournalBroken, MigrationBusy
from ocimig.runtime.store import Store, check_id

VERSION = 1
EMPTY = 3600.0  # seconds after which a journal without a record was never anybody's
KEPT = 50  # ended journals that stay for whoever wants to know what happened
_HEXADECIMAL = frozenset("0123456789abcdefTZ-")


def directory(store: Store) -> str:
    """Where the migrations of a state root are."""
    return os.path.join(store.root, ".migrations")


def new_id() -> str:
    """A name for a migration: sortable by time, not to be guessed, not naming the container."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + secrets.token_hex(6)


def check_migration(migration: str) -> str:
    """The name, if it may name a directory of ours; it may come from another host."""
    if not migration or len(migration) > 64 or not _HEXADECIMAL.issuperset(migration):
        raise JournalBroken(path=repr(migration[:80]), reason="that names no migration")
    return migration


@dataclass(slots=True)
class Journal:
    """The records of one migration on one side, oldest first. `facts` is all of them merged."""

    path: str
    side: str
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def migration(self) -> str:
        """The migration it belongs to."""
        return os.path.basename(os.path.dirname(self.path))

    @property
    def home(self) -> str:
        """The directory of the migration on this host."""
        return os.path.dirname(self.path)

    @property
    def phase(self) -> str:
        """The last record's name."""
        return str(self.records[-1]["record"]) if self.records else ""

    @property
    def facts(self) -> dict[str, Any]:
        """Everything the records say; later ones win."""
        merged: dict[str, Any] = {}
        for record in self.records:
            merged.update(record)
        return merged

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to do on this side."""
        return phases.ended(self.side, self.phase)

    def has(self, record: str) -> bool:
        """Whether it ever got there."""
        return any(entry["record"] == record for entry in self.records)

    def write(self, record: str, *, sync: bool = True, **facts: Any) -> None:
        """Append a record; once this returns, it survives a power cut.

        Without `sync` only the death of this process: for records inside the freeze whose loss
        means the same as the one before, and which the next that is synced makes durable too.
        """
        if not phases.may_follow(self.side, self.phase, record):
            reason = f"{record} cannot follow {self.phase or 'nothing'} on the {self.side}"
            raise JournalBroken(path=self.path, reason=reason)
        failpoints.here(self.side, f"{record}:before")
        entry = {"record": record, "time": time.time(), **facts}
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if _mend(fd) != len(self.records):
                reason = f"somebody else went on from {self.phase or 'nothing'}"
                raise JournalBroken(path=self.path, reason=reason)
            self._append(fd, entry, sync=sync)
        finally:
            os.close(fd)
        failpoints.here(self.side, f"{record}:after")

    def _append(self, fd: int, entry: dict[str, Any], *, sync: bool) -> None:
        """In the file and in here, or in neither, whether a disk or a signal comes between: nobody went by it."""
        known, size = len(self.records), os.fstat(fd).st_size
        try:
            files.write_all(fd, jsonio.dumps(entry).encode() + b"\n")
            if sync:
                os.fsync(fd)
            self.records.append(entry)
        except BaseException:
            del self.records[known:]
            with suppress(OSError):
                os.ftruncate(fd, size)
            raise

    def reload(self) -> None:
        """Read what is there by now: whoever has come to the lock decides by that, not by what it saw before."""
        self.records[:] = load(self.path).records

    def lock(self) -> files.Lock:
        """Held by whoever carries the migration out; entering raises BlockingIOError when taken."""
        return files.Lock(os.path.join(self.home, "lock"), wait=False)

    def remove(self) -> None:
        """Forget the migration."""
        files.remove_tree(self.home)

    def clear(self, *, keep: str = "") -> None:
        """Remove everything of the migration but its journal, and what else is to be kept."""
        for name in os.listdir(self.home):
            if name in ("journal", keep):
                continue
            path = os.path.join(self.home, name)
            if os.path.isdir(path) and not os.path.islink(path):
                files.remove_tree(path)
            else:
                os.unlink(path)


def _mend(fd: int) -> int:
    """Cut off a line that a crash left half written, so that the next one is its own; how many there are."""
    size = os.fstat(fd).st_size
    data = os.pread(fd, size, 0)
    whole = data.rfind(b"\n") + 1
    if whole != size:
        os.ftruncate(fd, whole)
    return data.count(b"\n")


def create(store: Store, migration: str, side: str, **facts: Any) -> Journal:
    """Begin a migration here: its directory, its journal and the first record, all durable."""
    home = os.path.join(directory(store), check_migration(migration))
    os.makedirs(directory(store), mode=0o700, exist_ok=True)
    os.mkdir(home, 0o700)
    journal = Journal(os.path.join(home, "journal"), side)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    os.close(os.open(journal.path, flags, 0o600))
    first = next(iter(phases.TABLES[side][""]))
    journal.write(first, version=VERSION, migration=migration, side=side, **facts)
    for path in (home, directory(store), store.root):
        files.fsync_directory(path)
    return journal


def load(path: str) -> Journal:
    """Read a journal. A last line without its end was never written, as far as anybody relied on it."""
    lines = files.read(path, limit=16 << 20).split(b"\n")[:-1]
    records = []
    for number, line in enumerate(lines, 1):
        try:
            entry = jsonio.loads(line)
        except ValueError as error:
            raise JournalBroken(path=path, reason=f"line {number}: {error}") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("record"), str):
            raise JournalBroken(path=path, reason=f"line {number} is not a record")
        records.append(entry)
    if not records:
        return Journal(path, "destination")
    side = str(records[0].get("side", ""))
    if side not in phases.TABLES or records[0].get("version") != VERSION:
        raise JournalBroken(path=path, reason="it was written by another version")
    if side != "group" and not isinstance(records[0].get("id"), str):
        raise JournalBroken(path=path, reason="line 1 names no container")
    return Journal(path, side, records)


def find(store: Store, migration: str) -> Journal | None:
    """The journal of a migration on this host."""
    try:
        return load(os.path.join(directory(store), check_migration(migration), "journal"))
    except FileNotFoundError:
        return None


def names(store: Store) -> list[str]:
    """The migrations of a state root, by the time in their names."""
    try:
        found = os.listdir(directory(store))
    except FileNotFoundError:
        return []
    return sorted(name for name in found if name[0] != ".")


def every(store: Store) -> list[Journal]:
    """All journals of a state root, in that order."""
    found = [find(store, name) for name in names(store)]
    return [journal for journal in found if journal is not None]


def of_container(store: Store, id: str) -> list[Journal]:
    """The journals of one container by epoch, oldest first: their names have the clocks of several hosts."""
    found = [journal for journal in every(store) if journal.facts.get("id") == id]
    return sorted(found, key=_epoch)


def _epoch(journal: Journal) -> int:
    return int(journal.facts.get("epoch", 0))


def _whereabouts(journals: list[Journal]) -> Journal | None:
    """Of one container's, oldest first, the last that says where it runs: it came here, or was given away."""
    for journal in reversed(journals):
        came = journal.side == "destination" and journal.phase == "RUNNING"
        if came or (journal.side == "source" and phases.committed(journal.phase)):
            return journal
    return None


def unsettled(store: Store, id: str) -> Journal | None:
    """The source's journal of a migration of this container that has no end yet."""
    for journal in reversed(of_container(store, id)):
        if journal.side == "source" and not journal.ended:
            return journal
    return None


def epoch(store: Store, id: str) -> int:
    """The highest epoch of a container that this host has seen."""
    return max((_epoch(journal) for journal in of_container(store, id)), default=0)


def check_fence(store: Store, id: str, *, epoch: int = 0) -> None:
    """Raise Fenced where this host gave the container away, or may have, and has not got it back.

    `epoch` is that of the copy that wants to run; a newer one than what was given away may.
    """
    check_id(id)
    last = _whereabouts(of_container(store, id))
    if last is None or last.side == "destination" or epoch > _epoch(last):
        return
    raise Fenced(
        id=id,
        target=last.facts.get("target", "another host"),
        migration=last.migration,
        journal=last.home,
    )


def claim_container(store: Store, id: str) -> files.Lock:
    """The right to follow a container's writes: who migrates, backs up or measures it has this first,
    for two would take each other's marks away. For a `with`; entering it raises MigrationBusy."""
    check_id(id)
    os.makedirs(directory(store), mode=0o700, exist_ok=True)
    return _ContainerClaim(os.path.join(directory(store), f".{id}.lock"), id)


class _ContainerClaim(files.Lock):
    __slots__ = ("id",)

    def __init__(self, path: str, id: str) -> None:
        super().__init__(path, wait=False)
        self.id = id

    def __enter__(self) -> "_ContainerClaim":
        try:
            super().__enter__()
        except BlockingIOError:
            raise MigrationBusy(id=self.id, journal=os.path.dirname(self.path)) from None
        return self

    def __exit__(self, *details: object) -> None:
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        super().__exit__(None, None, None)


def prune(store: Store, *, keep: int = KEPT) -> None:
    """Forget ended migrations, oldest first, beyond `keep`. Of each container the newest stays, which has the
    highest epoch, and the one that says where it runs: the fence goes by it."""
    journals = []
    for entry in every(store):
        if entry.records:
            journals.append(entry)
        elif time.time() - os.stat(entry.home).st_mtime > EMPTY:
            entry.remove()
    needed = set()
    for id in {journal.facts.get("id") for journal in journals}:
        of_it = sorted((each for each in journals if each.facts.get("id") == id), key=_epoch)
        last = _whereabouts(of_it) or of_it[-1]
        needed |= {of_it[-1].migration, last.migration}
    old = [journal for journal in journals if journal.ended and journal.migration not in needed]
    for journal in old[: max(0, len(old) - keep)]:
        journal.remove()
