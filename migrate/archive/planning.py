"""What unpacking an archive would do, decided before any of it is done. Reads, never writes.

The archive is read once from its first byte to its last, and every member is checked and hashed. What
does it (`extract`, `apply`) reads it a second time, from the same descriptor, and takes nothing that is
not as it was planned.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from ocimig.migrate.archive.errors import ArchiveChanged, ArchiveRefused
from ocimig.migrate.archive.headers import Reader
from ocimig.migrate.archive.limits import JSON_BYTES, Limits, Rules
from ocimig.migrate.archive.members import (
    CHARACTER,
    DEVICE,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    SOCKET,
    SYMLINK,
    Member,
    legible,
)
from ocimig.migrate.archive.packing import Unpacked
from ocimig.migrate.rootfs import paths

WHITEOUT, OPAQUE = b".wh.", b".wh..wh..opq"
_ATTRIBUTES = (b"user.", b"security.capability", b"system.posix_acl_")
_NEVER = (b"user.overlay.",)
_SETID = 0o6000


@dataclass(frozen=True, slots=True)
class Step:
    """One member and what is done with it: "make", "remove" (a whiteout), or "empty" (an opaque
    directory). `digest` is the SHA-256 of its data, "" when it has none."""

    member: Member
    act: str = "make"
    digest: str = ""

    def describe(self) -> str:
        """One line."""
        member = self.member
        if self.act != "make":
            return f"{self.act} {member.shown}"
        words = [f"make {member.type} {member.shown}"]
        if member.type == FILE:
            words.append(f"{member.size} bytes")
        if member.target:
            words.append(f"-> {legible(member.target.decode('utf-8', 'backslashreplace'))}")
        if member.type in (CHARACTER, DEVICE):
            words.append(f"{member.major}:{member.minor}")
        if member.mode & _SETID:
            words.append(f"mode {member.mode:04o}")
        if any(name == b"security.capability" for name, _ in member.attributes):
            words.append("with capabilities")
        return ", ".join(words)


@dataclass(slots=True)
class Plan:
    """Everything that will be done, in order; `documents` are the members that were asked for."""

    shown: str
    rules: Rules
    steps: list[Step] = field(default_factory=list)
    documents: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what is left out
    size: int = 0

    def describe(self) -> Iterator[str]:
        """One line a step."""
        for step in self.steps:
            yield step.describe()
        for note in self.notes:
            yield f"leave out {note}"

    def step(self, path: str) -> Step | None:
        """The step that makes a path."""
        wanted = path.encode()
        return next((step for step in self.steps if step.member.path == wanted), None)


def plan(fd: int, rules: Rules, shown: str, *, keep: Collection[str] = ()) -> Plan:
    """Read an archive, compressed or not. `keep` names small members whose content is wanted.

    Raises ArchiveRefused, ArchiveBroken; `shown` is the archive's name in their words.
    """
    made = Plan(shown, rules)
    checks = _Checks(made)
    reader = Reader(Unpacked(fd, rules.limits, shown), rules.limits, shown)
    wanted = {name.encode() for name in keep}
    for member in reader.members():
        step = checks.step(member)
        if member.type == FILE:
            kept = bytearray() if member.path in wanted else None
            digest = _read(reader, member, kept, shown)
            step = replace(step, digest=digest)
            made.size += member.size
            if kept is not None:
                made.documents[member.path.decode()] = bytes(kept)
        made.steps.append(step)
    return made


def _read(reader: Reader, member: Member, kept: bytearray | None, shown: str) -> str:
    if kept is not None and (member.size > JSON_BYTES or member.sparse):
        raise ArchiveRefused(path=shown, reason=f"{member.shown} has {member.size} bytes")
    digest = Digest()
    for offset, data in reader.data():
        digest.add(offset, data)
        if kept is not None:
            kept += data
    return digest.end(member.size)


def plan_of(members: Iterable[Member], made: Plan) -> Iterator[Step]:
    """The steps of a plan again, each when its member is read a second time. Raises ArchiveChanged."""
    checks = _Checks(Plan(made.shown, made.rules))
    steps = iter(made.steps)
    for member in members:
        step = next(steps, None)
        if step is None or replace(checks.step(member), digest=step.digest) != step:
            raise ArchiveChanged(path=made.shown, reason=f"{member.shown} was not there before")
        yield step
    if next(steps, None) is not None:
        raise ArchiveChanged(path=made.shown, reason="members are missing")


class Digest:
    """SHA-256 of a file of which only the data is given. With holes it is one of the data and of where it
    lies: a hole of a terabyte costs nothing to write, and must cost nothing to hash."""

    def __init__(self) -> None:
        self._data = hashlib.sha256()
        self._holes = hashlib.sha256()
        self._at = 0
        self._whole = True

    def add(self, offset: int, data: bytes) -> None:
        """Data, in rising order."""
        self._skip(offset)
        self._data.update(data)
        self._at += len(data)

    def end(self, size: int) -> str:
        """The digest of a file of `size` bytes, in hexadecimal."""
        self._skip(size)
        if self._whole:
            return self._data.hexdigest()
        return hashlib.sha256(self._data.digest() + self._holes.digest()).hexdigest()

    def _skip(self, to: int) -> None:
        if self._at < to:
            self._holes.update(f"{self._at} {to}\n".encode())
            self._at, self._whole = to, False


class _Checks:
    """What was seen so far, and whether the next member goes with it."""

    def __init__(self, made: Plan) -> None:
        self._plan = made
        self._rules = made.rules
        self._limits: Limits = made.rules.limits
        self._seen: dict[bytes, str] = {}

    def step(self, member: Member) -> Step:
        self._check_path(member)
        if self._rules.whiteouts and (step := self._whiteout(member)) is not None:
            return step
        self._check_type(member)
        before = self._seen.get(member.path)
        if before is not None and (before, member.type) != (DIRECTORY, DIRECTORY):
            raise self._refusal(member, "it is there twice")
        self._seen[member.path] = member.type
        return Step(self._allowed(member))

    def _check_path(self, member: Member) -> None:
        if not member.path and member.type == DIRECTORY:
            return
        if wrong := paths.fault(member.path):
            raise self._refusal(member, wrong)
        if len(member.path) > self._limits.path or member.path.count(b"/") >= self._limits.depth:
            raise self._refusal(member, "its path is too long or too deep")
        parts = member.path.split(b"/")
        for number in range(1, len(parts)):
            above = self._seen.get(b"/".join(parts[:number]), DIRECTORY)
            if above != DIRECTORY:
                raise self._refusal(member, f"it lies below a {above}")

    def _check_type(self, member: Member) -> None:
        rules = self._rules
        known = rules.rootfs or (member.path, member.target) in rules.links
        if member.type == SYMLINK and not known:
            raise self._refusal(member, "a symbolic link has no place here")
        if member.type == SYMLINK and (not member.target or len(member.target) > 4095):
            raise self._refusal(member, "its target cannot be one")
        if member.sparse and not rules.rootfs:
            raise self._refusal(member, "a file with holes has no place here")
        if b"\0" in member.target:
            raise self._refusal(member, "there is a NUL in its target")
        linked = self._seen.get(_target(member))
        if member.type == HARD_LINK and linked in (None, DIRECTORY):
            raise self._refusal(member, "it links to what was not unpacked before it")
        if member.type in (FIFO, SOCKET) and not rules.rootfs:
            raise self._refusal(member, f"a {member.type} has no place here")
        if member.type in (CHARACTER, DEVICE) and not (rules.rootfs and rules.devices):
            raise self._refusal(member, f"it is a {member.type}; allow devices to have it made")

    def _whiteout(self, member: Member) -> Step | None:
        directory, _, name = member.path.rpartition(b"/")
        if name == OPAQUE:
            return Step(replace(member, path=directory, type=DIRECTORY), "empty")
        if name.startswith(WHITEOUT):
            gone = name.removeprefix(WHITEOUT)
            path = directory + b"/" + gone if directory else gone
            if gone in (b"", b".", b"..") or member.size:
                raise self._refusal(member, "it is a whiteout of nothing")
            return Step(replace(member, path=path, type=FILE), "remove")
        if member.type == CHARACTER and not member.major and not member.minor:
            return Step(member, "remove")
        return None

    def _allowed(self, member: Member) -> Member:
        """The member without what it may not have."""
        if member.type == HARD_LINK:
            return replace(member, target=_target(member))
        if not self._rules.rootfs:
            mode = 0o700 if member.type == DIRECTORY else 0o600
            return replace(member, mode=mode, uid=0, gid=0, attributes=())
        kept = tuple(
            (name, value)
            for name, value in member.attributes
            if name.startswith(_ATTRIBUTES) and not name.startswith(_NEVER)
        )
        self._plan.notes += [
            f"{legible(name.decode('utf-8', 'backslashreplace'))} of {member.shown}"
            for name, _ in member.attributes
            if (name, _) not in kept
        ][: max(0, 100 - len(self._plan.notes))]
        return replace(member, attributes=kept)

    def _refusal(self, member: Member, reason: str) -> ArchiveRefused:
        return ArchiveRefused(path=self._plan.shown, reason=f"{member.shown}: {reason}")


def _target(member: Member) -> bytes:
    return member.target.removeprefix(b"./").rstrip(b"/")
