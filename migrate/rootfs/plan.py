"""What to send, given what the other side has. Pure."""

import stat
from collections.abc import Collection
from dataclasses import dataclass, field

from ocimig.migrate.rootfs.index import Entry, Index
from ocimig.migrate.rootfs.paths import split

Key = tuple[int, int]


@dataclass(slots=True)
class Plan:
    """Removals first, then names in the order they are sent; `homes` are files that can be linked to."""

    removals: list[str] = field(default_factory=list)
    creations: list[str] = field(default_factory=list)
    updates: set[str] = field(default_factory=set)  # of `creations`: they exist there already
    homes: dict[Key, str] = field(default_factory=dict)

    def describe(self) -> str:
        """One line for a person."""
        new = len(self.creations) - len(self.updates)
        return f"{new} new, {len(self.updates)} changed, {len(self.removals)} to remove"


def key(entry: Entry) -> Key:
    """What two names of one file have in common."""
    return entry.device, entry.inode


def plan(
    previous: Index,
    now: Index,
    suspects: Collection[int] = (),
    looked: Collection[str] | None = None,
) -> Plan:
    """Compare two looks at a tree. `suspects` are inodes whose times do not tell the truth.

    `looked` are the only names that can differ, directories first; all names of a file are among
    them, or none.
    """
    made = Plan()
    gone = _removals(previous, now, made)
    for path in now.entries if looked is None else looked:
        entry = now.entries.get(path)
        if entry is None:
            continue
        before = previous.entries.get(path)
        if before is None or path in gone:
            made.creations.append(path)
        elif not before.same(entry) or (suspects and entry.inode in suspects):
            made.creations.append(path)
            made.updates.add(path)
    _touched(now, made)
    return made


def _touched(now: Index, made: Plan) -> None:
    """Add directories whose times our own removals and creations change over there."""
    known = set(made.creations)
    for path in [*made.removals, *made.creations]:
        if path in made.updates or not path:
            continue
        parent = split(path)[0]
        if parent in now.entries and parent not in known:
            known.add(parent)
            made.creations.append(parent)
            made.updates.add(parent)


def _removals(previous: Index, now: Index, made: Plan) -> set[str]:
    """Fill in removals and homes; the names that are not there, or not as they are, any more."""
    gone: set[str] = set()
    canonical: dict[Key, str] = {}
    for path, before in previous.entries.items():
        if path and split(path)[0] in gone:  # goes with its directory
            gone.add(path)
            continue
        entry = now.entries.get(path)
        if entry is not None and _stays(before, entry):
            if entry.links < 2 or stat.S_ISDIR(entry.mode):
                continue
            # one file here, but is it one file there? names seen at different moments may not be
            name = previous.links.get(path, path)
            if canonical.setdefault(key(entry), name) == name:
                made.homes.setdefault(key(entry), path)
                continue
        gone.add(path)
        made.removals.append(path)
    return gone


def _stays(before: Entry, now: Entry) -> bool:
    """Whether what is there can become what is here without being made anew."""
    if stat.S_IFMT(before.mode) != stat.S_IFMT(now.mode):
        return False
    if stat.S_ISDIR(now.mode):
        return True
    if stat.S_ISREG(now.mode):
        return key(before) == key(now)
    return before.same(now)  # links, devices, pipes and sockets are made anew: nothing to save
