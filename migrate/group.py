"""The commit of containers that move together: one write-once word on the destination. Never asks the source.

    <root>/.migrations/.group-<group>/    0700
        journal      FORMED, then GO or ABORTED: what every member's agent goes by (docs/formats/journal.md)
        lock         held while one of them decides

Whoever comes first decides for all. GO is written only while every member is prepared and somebody
lives who holds it, so an agent that was killed before turns all of them back.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ocimig import files
from ocimig.migrate import interrupts, journal
from ocimig.migrate.errors import BrokenFrame, JournalBroken
from ocimig.migrate.journal import Journal
from ocimig.runtime.linux import proc
from ocimig.runtime.store import Store

FORMED, GO, ABORTED = "FORMED", "GO", "ABORTED"
_PREFIX = ".group-"


class Register:
    """The word of one group on this host."""

    __slots__ = ("group", "home", "store")

    def __init__(self, store: Store, group: str) -> None:
        self.store = store
        self.group = journal.check_migration(group)
        self.home = os.path.join(journal.directory(store), _PREFIX + group)

    def form(self, members: Sequence[str]) -> None:
        """Open it for these migrations; the first member's agent writes, the others must mean the same."""
        for each in members:
            journal.check_migration(each)
        os.makedirs(self.home, mode=0o700, exist_ok=True)
        with self._lock():
            register = self._load()
            if register is None:
                register = self._create()
                register.write(
                    FORMED, version=journal.VERSION, side="group", group=self.group,
                    members=list(members),
                )  # fmt: skip
                for path in (self.home, os.path.dirname(self.home)):
                    files.fsync_directory(path)
            elif register.facts["members"] != list(members):
                raise JournalBroken(path=register.path, reason="it was formed by other members")

    def decide(
        self, word: str, *, by: str = "", ready: Callable[[Store, Sequence[str]], str] | None = None
    ) -> str:
        """GO or ABORTED: what was decided, or from now on is. `ready` says in words what stands against GO."""
        if not os.path.isdir(self.home):
            return ABORTED
        with self._lock():
            register = self._load()
            if register is None:
                return ABORTED  # nobody can have been let go by it
            if not register.ended:
                against = (ready or unprepared)(self.store, self.members) if word == GO else ""
                register.write(ABORTED if against else word, by=by, reason=against)
            return register.phase

    @property
    def word(self) -> str:
        """GO, ABORTED, FORMED while it is open, "" when there is no such group."""
        register = self._load()
        return register.phase if register is not None else ""

    @property
    def members(self) -> list[str]:
        """The migrations that belong together."""
        register = self._load()
        return [str(each) for each in register.facts["members"]] if register is not None else []

    def _lock(self) -> files.Lock:
        return files.Lock(os.path.join(self.home, "lock"))

    def _load(self) -> Journal | None:
        try:
            register = journal.load(os.path.join(self.home, "journal"))
        except FileNotFoundError:
            return None
        return register if register.records else None  # else who made it died before its first word

    def _create(self) -> Journal:
        path = os.path.join(self.home, "journal")
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(path, flags, 0o600))
        return Journal(path, "group")


def facts(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What the journal of one of several says besides: the agents of the others look whether we live."""
    if not wanted.get("group"):
        return {}
    if wanted["migration"] not in wanted["members"]:
        raise BrokenFrame(host="the source", reason="a migration that is no member of its group")
    ours = proc.stat(os.getpid())
    start_time = ours.start_time if ours is not None else 0
    return {"group": str(wanted["group"]), "agent": os.getpid(), "agent_start": start_time}


def form(store: Store, entry: Journal, wanted: Mapping[str, Any]) -> None:
    """Open the register that this journal goes by, if it is one of several."""
    if group := entry.facts.get("group"):
        prune(store)
        Register(store, group).form([str(each) for each in wanted["members"]])


def decide(store: Store, entry: Journal, word: str) -> str:
    """The word for a destination's journal: that of its group; its own when it moves alone."""
    group = entry.facts.get("group")
    return Register(store, group).decide(word, by=entry.migration) if group else word


def let_go(store: Store, entry: Journal, against: str = "", /, **facts: Any) -> bool:
    """Write down the word that a prepared journal goes by, and `facts` with a GO: whether it is GO.

    `against` is what its own agent has against it. A `go` for another one of the group is one for this
    too, and one that is still under way for this must find the word, not a container.
    """
    interrupts.deafen()  # whoever wants to stop us comes too late: half a release would be the worst end
    word = decide(store, entry, ABORTED if against else GO)
    if word == GO:
        entry.write(GO, **facts)
    else:
        entry.write(ABORTED, reason=against or "what moves with it was not let go")
    return word == GO


def unprepared(store: Store, members: Sequence[str]) -> str:
    """What stands against letting all of them go, in words: a member that is not prepared, or held by nobody."""
    for each in members:
        entry = journal.find(store, each)
        if entry is None or entry.phase != "PREPARED":
            return f"{each} is {entry.phase if entry else 'unknown'} there"
        facts = entry.facts
        agent = _process(facts.get("agent"), facts.get("agent_start"))
        if agent is None or agent.ending:
            return f"the agent of {facts.get('id')} ended"
        restored = _process(facts.get("pid"), facts.get("start_time"))
        if facts.get("start_time") and (restored is None or restored.ended):
            return f"what was restored of {facts.get('id')} ended"
    return ""


def _process(pid: object, start_time: object) -> proc.ProcStat | None:
    """The process of that number, if it is still the one that began then."""
    stat = proc.stat(pid) if isinstance(pid, int) else None
    return stat if stat is not None and stat.start_time == start_time else None


def prune(store: Store) -> None:
    """Forget groups none of whose members has anything left to do here."""
    try:
        names = os.listdir(journal.directory(store))
    except FileNotFoundError:
        return
    for name in names:
        # a container may be called group-x: then its lock, a file, begins like this too
        if name.startswith(_PREFIX) and os.path.isdir(os.path.join(journal.directory(store), name)):
            with suppress(JournalBroken):  # a damaged one is for a person
                _prune(store, Register(store, name.removeprefix(_PREFIX)))


def _prune(store: Store, register: Register) -> None:
    found = [journal.find(store, each) for each in register.members]
    # without members it is being made just now
    if found and all(entry is None or entry.ended for entry in found):
        files.remove_tree(register.home)
