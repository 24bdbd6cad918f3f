"""Puts a host right after a crash: nothing frozen, locked or half received that nobody works on.

What is in doubt stays held: only the other host's word, or a person's, decides that (`settle`).
"""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ocimig import log
from ocimig.errors import OcimigError
from ocimig.migrate import journal, phases, settling, words
from ocimig.migrate.destination import RealDestination
from ocimig.migrate.errors import (
    DestinationRuns,
    MigrationBusy,
    NoSuchMigration,
    SourceLeftovers,
)
from ocimig.migrate.hands import Source
from ocimig.migrate.journal import Journal
from ocimig.migrate.move import MigrateOptions
from ocimig.migrate.report import Report
from ocimig.migrate.settling import Connect
from ocimig.migrate.source import RealSource, lives_here
from ocimig.migrate.traces import discard_images
from ocimig.migrate.transport import Target, connect
from ocimig.runtime.store import Store


@dataclass(frozen=True, slots=True)
class Recovered:
    """One thing that was found: what it was, what was done or has to be."""

    subject: str
    text: str
    settled: bool = True
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "subject": self.subject,
            "text": self.text,
            "settled": self.settled,
            "fix": self.fix,
        }


def recover(store: Store, ids: tuple[str, ...] = ()) -> list[Recovered]:
    """Settle what can be settled from here alone, and name the rest: what fails for one fails for no other."""
    found: list[Recovered] = []
    doubtful: set[str] = set()
    for migration in journal.names(store):
        try:
            entry = journal.find(store, migration)
        except (OcimigError, OSError) as error:  # for a person; the others are settled all the same
            found.append(_failure(f"migration {migration}", error))
            continue
        if entry is None or not entry.records:
            continue  # whoever made it died before it did anything, or is about to begin
        id = str(entry.facts["id"])
        if ids and id not in ids:
            continue
        try:
            done = _journal(store, entry)
        except (OcimigError, OSError) as error:
            done = _failure(id, error)
        if done is not None:
            found.append(done)
            if not done.settled:
                doubtful.add(id)
    for id in store.ids():
        if id not in doubtful and (not ids or id in ids):
            found += _container(store, id)
    return found if ids else found + _grounds()


def _grounds() -> list[Recovered]:
    from ocimig.migrate.clone import ground  # and with it the rooms of the store

    text = "no copy stands on these files of a snapshot any more: removed"
    return [Recovered(place, text) for place in ground.sweep(ground.HOME)]


def _journal(store: Store, entry: Journal) -> Recovered | None:
    if entry.ended:
        _sweep(store, entry)
        return None
    return _source(store, entry) if entry.side == "source" else _destination(store, entry)


def _failure(subject: str, error: OcimigError | OSError) -> Recovered:
    known = error if isinstance(error, OcimigError) else words.of(error)
    return Recovered(subject, str(known), settled=False, fix=known.advice)


def _sweep(store: Store, entry: Journal) -> None:
    """Do what a process that was killed after its last record had still to do; nothing while one still works."""
    with suppress(OSError), entry.lock():
        if entry.side == "destination" and entry.phase == "RUNNING":
            RealDestination().adopt(store, entry)
        discard_images(entry)
        entry.clear(keep="criu")


def _source(store: Store, entry: Journal) -> Recovered | None:
    """None where it has come to its end meanwhile."""
    id, target = str(entry.facts["id"]), str(entry.facts.get("target"))
    try:
        with journal.claim_container(store, id), entry.lock():
            entry.reload()  # whoever held them until now may have gone on, to the commit
            if entry.ended:
                return None
            if not phases.committed(entry.phase):
                lives = settling.roll_back(entry, RealSource(), store)
                there = "it runs here" if lives else "its processes here had ended"
                return Recovered(id, f"a migration to {target} was rolled back: {there}")
    except BlockingIOError:
        return Recovered(id, f"a migration to {target} is under way", settled=False)
    except MigrationBusy as busy:
        if _at_work(entry):
            return Recovered(id, f"a migration to {target} is under way", settled=False)
        text = f"a migration to {target} was cut off: {busy}"
        return Recovered(id, text, settled=False, fix=busy.advice)
    if entry.phase == "COMMIT-INTENT":
        held = "it is held here" if lives_here(store, id) else "its processes here have ended"
        text = f"in doubt: {held}, {target} may run it"
    else:
        text = f"it runs on {target}, and something of it is left here"
    return Recovered(id, text, settled=False, fix=f"ocimig migrate --resume {id}")


def _at_work(entry: Journal) -> bool:
    """Whether its own process is still there, and not only another that follows the container's writes."""
    try:
        with entry.lock():
            return False
    except BlockingIOError:
        return True


def _destination(store: Store, entry: Journal) -> Recovered:
    id, source = str(entry.facts["id"]), str(entry.facts.get("source"))
    if not settling.settle_there(store, entry, RealDestination()):
        return Recovered(id, f"it is on its way here from {source}", settled=False)
    words = {
        "RUNNING": "it runs here",
        "ABORTED": f"it was never let go here: {source} keeps it",
        "FAILED": f"it ended here as it was let go: {source} keeps it",
        "LOST": f"it ran here and was ended without all of its memory: {source} holds it, for a person",
    }
    return Recovered(id, f"a migration from {source} was settled: {words[entry.phase]}")


def _container(store: Store, id: str) -> list[Recovered]:
    """What a checkpoint left behind that was killed. What is held for a journal nobody can read stays so."""
    from ocimig.migrate import netlock, recover_lock

    try:
        with store.lock(id, wait=False):
            if netlock.left_behind(store.path(id)) is None:
                return []
            state = store.load(id)
            held = state.extra.get("held")
            by = journal.find(store, str(held)) if held else None
            if by is not None and phases.committed(by.phase):
                return []  # given away since we looked: --resume settles it
            done = recover_lock.recover(store, state)
            return [Recovered(id, words) for words in done]
    except BlockingIOError:
        return [Recovered(id, "another command is working on it", settled=False)]
    except FileNotFoundError:
        return []
    except (OcimigError, OSError) as error:
        return [_failure(id, error)]


# ---- --resume and --abort


def resume(
    store: Store,
    id: str,
    options: MigrateOptions,
    *,
    hands: Source | None = None,
    connecting: Connect | None = None,
) -> Report:
    """Settle the migration of a container that has no end yet, by what the destination says.

    Those that moved together with it are settled too, all by one word there; the notes say how.
    """
    ids = _group(store, id)
    done: dict[str, Report] = {}
    doubts: dict[str, OcimigError] = {}
    # what is assumed holds for all of them: first whoever answers is heard about each
    tries = [replace(options, assume_destination_dead=False)] if len(ids) > 1 else []
    for wishes in (*tries, options):
        for each in [each for each in ids if each not in done]:
            try:
                done[each] = _settle(store, each, wishes, hands, connecting)
                doubts.pop(each, None)
            except OcimigError as error:
                doubts[each] = error
    if doubts:
        raise doubts.get(id) or next(iter(doubts.values()))
    others = (f"{each}, which moved with it: {done[each].outcome}" for each in ids if each != id)
    return replace(done[id], notes=(*done[id].notes, *others))


def _group(store: Store, id: str) -> list[str]:
    """This one, and those of its group that have no end yet here."""
    entry = journal.unsettled(store, id)
    group = entry.facts.get("group") if entry is not None else ""
    others = [
        str(each.facts["id"])
        for each in journal.every(store)
        if group and each.facts.get("group") == group and each.side == "source" and not each.ended
    ]
    return [id, *(each for each in others if each != id)]


def _went(store: Store, entry: Journal) -> bool:
    """Whether one that moved together with it is known to run there: then so may this one."""
    group = entry.facts.get("group")
    return bool(group) and any(
        each.side == "source"
        and each.facts.get("group") == group
        and each.phase in ("ACKED", "DONE")
        for each in journal.every(store)
    )


def _settle(
    store: Store, id: str, options: MigrateOptions, hands: Source | None, connecting: Connect | None
) -> Report:
    with journal.claim_container(store, id):
        # as it is now: what was read before may have gone on, to the commit
        entry, source, argv, reach = _unsettled(store, id, hands, connecting)
        there = None
        if entry.phase == "COMMIT-INTENT":
            there = _decision(entry, reach, argv, options.doubt)
        verdict = phases.settle(entry.phase, there)
        undecided = verdict.verdict in (phases.HELD, phases.WAIT)
        if undecided and options.assume_destination_dead and not _went(store, entry):
            log.warning(
                f"container {id}: {entry.facts['target']} was assumed dead by whoever typed "
                f"--assume-destination-dead (migration {entry.migration}, its last word: {there})"
            )
            return _ours(store, entry, source, "resumed here, the destination assumed dead")
        if verdict.verdict == phases.OURS:
            return _ours(store, entry, source, "resumed here")
        if verdict.verdict == phases.THEIRS:
            return _theirs(store, entry, source)
        lives = lives_here(store, str(entry.facts["id"]))
        raise settling.in_doubt(entry, there, verdict.reason, lives=lives)


def _decision(entry: Journal, reach: Connect, argv: list[str], patience: float) -> str | None:
    """The destination's last record. One that answers and has not decided yet is asked again for a while."""
    until = time.monotonic() + patience
    while True:
        there = settling.ask(entry, reach, argv)
        undecided = phases.settle(entry.phase, there).verdict == phases.WAIT
        if not undecided or time.monotonic() > until:
            return there
        time.sleep(settling.ASK_AGAIN)


def abort(
    store: Store,
    id: str,
    options: MigrateOptions,
    *,
    hands: Source | None = None,
    connecting: Connect | None = None,
) -> Report:
    """Take the container back, if the destination has not let it go."""
    entry, _, argv, reach = _unsettled(store, id, hands, connecting)
    there = settling.ask(entry, reach, argv) if entry.phase == "COMMIT-INTENT" else None
    if phases.settle(entry.phase, there).verdict == phases.THEIRS:
        raise DestinationRuns(id=id, target=entry.facts["target"])
    return resume(store, id, options, hands=hands, connecting=connecting)


def _unsettled(
    store: Store, id: str, hands: Source | None, connecting: Connect | None
) -> tuple[Journal, Source, list[str], Connect]:
    entry = journal.unsettled(store, id)
    if entry is None:
        raise NoSuchMigration(id=id)
    target = Target(**entry.facts["reach"])
    transport = str(entry.facts["transport"])
    reach = connecting or (lambda: connect(target, transport=transport))
    return entry, hands or RealSource(), [str(word) for word in entry.facts["argv"]], reach


def _ours(store: Store, entry: Journal, hands: Source, outcome: str) -> Report:
    if not settling.roll_back(entry, hands, store, outcome):
        outcome = "taken back, but its processes here had ended"
    return Report(str(entry.facts["id"]), entry.migration, str(entry.facts["target"]), outcome)


def _theirs(store: Store, entry: Journal, hands: Source) -> Report:
    id, target = str(entry.facts["id"]), str(entry.facts["target"])
    if entry.phase == "COMMIT-INTENT":
        entry.write("ACKED")
    left = settling.clean_up(store, entry, hands)
    if left:
        raise SourceLeftovers(id=id, target=target, leftovers="; ".join(left))
    return Report(id, entry.migration, target, "moved")
