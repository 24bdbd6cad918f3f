"""Is the store what was written? Problems in words, each with its file and the snapshots that it costs."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import ceil

from blake3 import blake3

from ocimig.errors import OcimigError
from ocimig.migrate.store import head, keys
from ocimig.migrate.store.marking import Marks
from ocimig.migrate.store.place import KEYS, PACKS, SNAPSHOTS
from ocimig.migrate.store.prune import rewrite
from ocimig.migrate.store.snapshot import Snapshot
from ocimig.migrate.store.store import Store, read_about

_PIECE = 4 << 20


@dataclass(slots=True)
class Verdict:
    """What was looked at, and what is wrong."""

    snapshots: int = 0
    packs: int = 0
    read_packs: int = 0
    read_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)  # snapshots that cannot be restored, and why
    bad_packs: set[int] = field(default_factory=set)
    bad_files: list[tuple[str, str]] = field(default_factory=list)  # (room, name)


def verify(store: Store, *, read_data: float, tell: Callable[[str], None]) -> Verdict:
    """Check every file's structure and every reference; `read_data` (0 to 1) is the part of the packs that
    is read whole and compared with its digests, chosen anew each time."""
    verdict = Verdict()
    store.packs.refresh()
    _keys(store, verdict)
    good = list(_packs(store, verdict, read_data, tell))
    tell(f"{len(good)} packs looked at")
    for name in store.names().values():
        verdict.snapshots += 1
        _snapshot(store, name, verdict)
    return verdict


def _keys(store: Store, verdict: Verdict) -> None:
    try:
        read_about(store.place)
    except OcimigError as error:
        verdict.problems.append(str(error))
    for name in store.place.names(KEYS):
        if name.endswith(keys.SUFFIX):
            try:
                keys.decode(name, store.place.read(KEYS, name))
            except (OcimigError, ValueError) as error:
                verdict.problems.append(f"{store.place.words}: {KEYS}/{name}: {error}")
                verdict.bad_files.append((KEYS, name))


def _packs(
    store: Store, verdict: Verdict, read_data: float, tell: Callable[[str], None]
) -> Iterator[int]:
    numbers = sorted(store.packs.numbers())
    wanted = set(
        numbers if read_data >= 1 else random.sample(numbers, ceil(read_data * len(numbers)))
    )
    for done, number in enumerate(numbers):
        verdict.packs += 1
        wrong: list[str] = []
        for name in store.packs.names(number):
            try:
                store.packs.load(name)
                if number in wanted:
                    wrong += _read(store, number, name, verdict)
            except OcimigError as error:
                wrong.append(str(error))
        if wrong:
            verdict.problems += wrong
            verdict.bad_packs.add(number)
        else:
            yield number
        if number in wanted:
            tell(f"{done + 1} of {len(numbers)} packs, {verdict.read_bytes >> 20} MiB read")


def _read(store: Store, number: int, name: str, verdict: Verdict) -> list[str]:
    """The whole file against its name, then every blob against its digest."""
    whole = blake3()
    size, at = store.place.size(PACKS, name), 0
    while at < size:
        data = store.place.read(PACKS, name, at, min(_PIECE, size - at))
        whole.update(data)
        at += len(data)
    verdict.read_bytes += size
    verdict.read_packs += 1
    parsed = head.parse(name, "pack")
    wrong = []
    if parsed is None or whole.digest(length=16).hex() != parsed[1]:
        wrong.append(f"{store.place.words}: {PACKS}/{name} is not what was written")
    _, bad = store.packs.sound(number, store.digest_key)
    return wrong + bad


def _snapshot(store: Store, name: str, verdict: Verdict) -> None:
    try:
        snapshot = store.read(name)
    except OcimigError as error:
        verdict.problems.append(str(error))
        verdict.bad_files.append((SNAPSHOTS, name))
        return
    marks = Marks(store.packs)
    try:
        marks.add(snapshot)
    except (OcimigError, ValueError) as error:
        verdict.problems.append(f"snapshot {snapshot.id}: {error}")
        verdict.lost[snapshot.id] = str(error)
        return
    for number in marks.packs() & verdict.bad_packs:
        if reason := _missing(store, number, marks):
            verdict.lost[snapshot.id] = reason
            verdict.problems.append(f"snapshot {snapshot.id} needs what is damaged: {reason}")
            return


def rehearse(store: Store, snapshot: Snapshot) -> str:
    """Read and compare all that a restore of it would read: why it would fail, or nothing."""
    store.packs.refresh()
    marks = Marks(store.packs)
    try:
        marks.add(snapshot)
    except (OcimigError, ValueError) as error:
        return str(error)
    for number in sorted(marks.packs()):
        if reason := _missing(store, number, marks):
            return reason
    return ""


def _missing(store: Store, number: int, marks: Marks) -> str:
    """Why a snapshot cannot do with what is left of a pack; empty when it can."""
    try:
        good, wrong = store.packs.sound(number, store.digest_key)
    except OcimigError as error:
        return str(error)
    used = marks.used(number)
    if any(wanted and not sound for wanted, sound in zip(used, good, strict=True)):
        return wrong[0] if wrong else f"pack {number:016x}"
    return ""


def repair(store: Store, tell: Callable[[str], None]) -> Verdict:
    """Set aside what is damaged; the caller holds the store alone. Nothing is invented: of a damaged pack
    what can still be read stays, and snapshots that need the rest are set aside too."""
    verdict = verify(store, read_data=1.0, tell=tell)
    for number in sorted(verdict.bad_packs):
        names = store.packs.names(number)
        try:
            good, _ = store.packs.sound(number, store.digest_key)
            if any(good):
                rewrite(store, number, good, keep=True)
        except OcimigError as error:
            tell(f"nothing of pack {number:016x} can be read: {error}")
        for name in names:
            store.place.quarantine(PACKS, name)
    for room, name in verdict.bad_files:
        store.place.quarantine(room, name)
    there = store.names()
    for id in verdict.lost:
        if id in there:
            store.place.quarantine(SNAPSHOTS, there[id])
    store.packs.refresh()
    return verdict
