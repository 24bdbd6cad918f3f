"""What no snapshot needs is removed, and packs that are mostly that are written anew. Under the lock alone.

plan(facts) -> Plan     pure: which packs go, which shrink, and why
perform(…)              in the order that keeps every snapshot whole at each moment
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from ocimig import log
from ocimig.errors import NoSpace, OcimigError
from ocimig.migrate.store.blobs import Run
from ocimig.migrate.store.marking import Marks
from ocimig.migrate.store.packing import Compressors, Pack
from ocimig.migrate.store.packs import Packs
from ocimig.migrate.store.place import PACKS
from ocimig.migrate.store.store import Store
from ocimig.migrate.store.writer import LEVEL, THREADS

MOST_UNUSED = 0.3  # of a pack's bytes that may lie in it for nobody


class Fact(NamedTuple):
    """One pack: bytes of its file, of all blobs in it, and of those that are needed."""

    number: int
    size: int
    raw: int
    used: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What prune would do. `freed` is in bytes, an estimate where packs shrink."""

    remove: tuple[Fact, ...] = ()
    shrink: tuple[Fact, ...] = ()
    freed: int = 0


@dataclass(slots=True)
class Pruned:
    """What it did."""

    removed: int = 0
    shrunk: int = 0
    freed: int = 0  # bytes
    problems: list[str] = field(default_factory=list)


def plan(facts: Iterable[Fact], *, most_unused: float = MOST_UNUSED) -> Plan:
    """Packs that nobody needs go; those with more unneeded bytes than that part of them shrink."""
    remove, shrink = [], []
    freed = 0
    for fact in facts:
        if not fact.used:
            remove.append(fact)
            freed += fact.size
        elif fact.raw - fact.used > most_unused * fact.raw:
            shrink.append(fact)
            freed += int(fact.size * (1 - fact.used / fact.raw))
    return Plan(tuple(remove), tuple(shrink), freed)


def survey(store: Store, *, most_unused: float = MOST_UNUSED) -> tuple[Plan, Marks]:
    """Look what is needed. Raises StoreDamaged, FileMissing: where that is not sure, nothing is removed."""
    store.packs.refresh()
    marks = Marks(store.packs)
    for name in store.names().values():
        snapshot = store.read(name)
        try:
            marks.add(snapshot)
        except ValueError as error:
            raise store.damaged(f"snapshot {snapshot.id}", str(error)) from None
    return plan(_facts(store, marks), most_unused=most_unused), marks


def _facts(store: Store, marks: Marks) -> Iterable[Fact]:
    needed = marks.packs()
    for number in sorted(store.packs.numbers()):
        size = sum(store.place.size(PACKS, name) for name in store.packs.names(number))
        if number not in needed:
            yield Fact(number, size, 1, 0)
            continue
        sizes = store.packs.contents(number).sizes
        used = sum(
            bytes_of for bytes_of, wanted in zip(sizes, marks.used(number), strict=True) if wanted
        )
        yield Fact(number, size, sum(sizes), used)


def perform(store: Store, wanted: Plan, marks: Marks, tell: Callable[[str], None]) -> Pruned:
    """Do it; the caller holds the store alone. What cannot be written anew stays, and is a problem."""
    done = Pruned()
    for fact in wanted.remove:
        for name in store.packs.names(fact.number):
            store.place.remove(PACKS, name)
        done.removed += 1
        done.freed += fact.size
        tell(f"pack {fact.number:016x} removed")
    for fact in wanted.shrink:
        try:
            done.freed += rewrite(store, fact.number, marks.used(fact.number))
        except NoSpace as error:
            done.problems.append(
                f"{len(wanted.shrink) - done.shrunk} packs stay as they are: {error}"
            )
            break
        except OcimigError as error:
            done.problems.append(str(error))
            continue
        done.shrunk += 1
        tell(f"pack {fact.number:016x} written anew")
    _remove_doubles(store)
    store.packs.refresh()
    return done


def rewrite(store: Store, number: int, wanted: Sequence[int], *, keep: bool = False) -> int:
    """Write a pack anew with these positions of it only, then remove what it was, unless `keep`: the bytes
    freed. Raises StoreDamaged, NoSpace, PlaceFailed: then it is as it was."""
    packs = store.packs
    contents, old = packs.contents(number), packs.names(number)
    before = sum(store.place.size(PACKS, name) for name in old)
    runs = _kept(contents.runs, wanted)
    with ThreadPoolExecutor(THREADS, "pack") as threads:
        made = Pack(store.place, store.seals, threads, Compressors(LEVEL), packs.successor(number))
        try:
            position = 0
            for blob in packs.blobs(Run(number, first, count) for first, count in runs):
                while not wanted[position]:
                    position += 1
                made.put(blob, contents.digest(position))
                position += 1
            name, _ = made.close(runs)
        except BaseException:
            made.abandon()
            raise
    for each in old:
        if each != name and not keep:
            store.place.remove(PACKS, each)
    return before - store.place.size(PACKS, name)


def _kept(runs: Sequence[tuple[int, int]], wanted: Sequence[int]) -> list[tuple[int, int]]:
    """(first entry, count) of the entries that stay."""
    found: list[tuple[int, int]] = []
    position = 0
    for first, count in runs:
        for entry in range(first, first + count):
            if wanted[position]:
                if found and found[-1][0] + found[-1][1] == entry:
                    found[-1] = found[-1][0], found[-1][1] + 1
                else:
                    found.append((entry, 1))
            position += 1
    return found


def _remove_doubles(store: Store) -> None:
    """Of two files of one pack, which a crash left, the smaller."""
    packs = Packs(store.place, store.seals)
    for number in packs.numbers():
        names = packs.names(number)
        if len(names) > 1:
            best = packs.name(number)
            for name in names:
                if name != best:
                    log.debug(f"{name} gives way to {best}")
                    store.place.remove(PACKS, name)
