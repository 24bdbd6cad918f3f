"""Who owns the container, and when: the one table a migration cannot disagree with. Never acts.

`PHASES` is what a person reads (docs/migration.md is made from it). `SOURCE`, `DESTINATION` and `GROUP`
are the records a journal may hold and what may follow each; `settle` is what two last records mean.
"""

from dataclasses import dataclass

HERE, THERE = "here", "there"


@dataclass(frozen=True, slots=True)
class Phase:
    """One row: what each side does, whose the container is, what a failure means."""

    name: str
    here: str
    there: str
    owner: str
    failure: str


PREFLIGHT = Phase("PREFLIGHT", "running", "–", HERE, "refused: nothing was changed")
PRECOPY = Phase("PRECOPY", "running", "receiving", HERE, "rolled back: it still runs here")
FREEZE = Phase(
    "FREEZE", "frozen, dumped", "receiving the rest", HERE, "rolled back: thawed, it runs here"
)
PREPARED = Phase(
    "PREPARED", "frozen", "built, held, not running", HERE, "rolled back: thawed, it runs here"
)
COMMIT = Phase(
    "COMMIT", 'journal: "theirs"', "–", THERE, "from here on this side may never run it again"
)
RUNNING = Phase(
    "RUNNING", "killed, deleted", "released, running", THERE,
    "it runs there; left over here: <list>",
)  # fmt: skip
PHASES = (PREFLIGHT, PRECOPY, FREEZE, PREPARED, COMMIT, RUNNING)

# record in the source's journal -> the records that may follow. COMMIT-INTENT is the point of no
# return: only the destination's word, or a person's, gets past it.
SOURCE: dict[str, tuple[str, ...]] = {
    "": ("STARTED",),
    "STARTED": ("PRECOPY", "ABORTED"),
    "PRECOPY": ("FREEZE", "ABORTED"),
    "FREEZE": ("PREPARED", "ABORTED"),
    "PREPARED": ("COMMIT-INTENT", "ABORTED"),
    "COMMIT-INTENT": ("ACKED", "ABORTED"),
    "ACKED": ("DONE",),
    "DONE": (),
    "ABORTED": (),
}
# record in the destination's journal -> the records that may follow
DESTINATION: dict[str, tuple[str, ...]] = {
    "": ("RESERVED",),
    "RESERVED": ("SHIPPED", "ABORTED"),
    "SHIPPED": ("PREPARED", "ABORTED"),
    "PREPARED": ("GO", "ABORTED"),
    "GO": (
        "RUNNING",
        "FAILED",
        "LOST",
    ),  # LOST: it ran before its memory was there, and cannot go on
    "RUNNING": (),
    "ABORTED": (),
    "FAILED": (),
    "LOST": (),
}
# word in the register of a group on the destination (group.py)
GROUP: dict[str, tuple[str, ...]] = {
    "": ("FORMED",),
    "FORMED": ("GO", "ABORTED"),
    "GO": (),
    "ABORTED": (),
}
TABLES = {"source": SOURCE, "destination": DESTINATION, "group": GROUP}

PHASE_OF = {
    "": PREFLIGHT,
    "STARTED": PREFLIGHT,
    "PRECOPY": PRECOPY,
    "FREEZE": FREEZE,
    "PREPARED": PREPARED,
    "COMMIT-INTENT": COMMIT,
    "ACKED": RUNNING,
    "DONE": RUNNING,
}

OURS, THEIRS, WAIT, HELD = "ours", "theirs", "wait", "held"
UNKNOWN = "UNKNOWN"  # the destination has no such journal
LOST = "LOST"  # in a destination's journal: neither host runs it, and only a person may start the old one


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the source has to do, and why in words."""

    verdict: str
    reason: str


def may_follow(side: str, last: str, record: str) -> bool:
    """Whether a journal of that side may go from one record to the other."""
    return record in TABLES[side].get(last, ())


def ended(side: str, record: str) -> bool:
    """Whether nothing may follow: the side has nothing left to do."""
    return record in TABLES[side] and not TABLES[side][record]


def committed(record: str) -> bool:
    """Whether the source has given the container away, as far as it alone can tell."""
    return record in ("COMMIT-INTENT", "ACKED", "DONE")


def settle(here: str, there: str | None) -> Settlement:
    """What the source's last record and the destination's mean together.

    `there` is None while the destination does not answer, UNKNOWN when it has no such journal.
    """
    if here in ("ACKED", "DONE"):
        return Settlement(THEIRS, "the destination confirmed that it runs there")
    if not committed(here):
        return Settlement(OURS, "it was never given away")
    if there is None:
        return Settlement(HELD, "the destination does not answer")
    if there == "RUNNING":
        return Settlement(THEIRS, "the destination runs it")
    if there in ("ABORTED", "FAILED"):
        return Settlement(OURS, f"the destination gave it back: {there}")
    if there == LOST:
        return Settlement(
            HELD,
            "it ran there and was ended, because the rest of its memory can come no more; "
            "here it is as it was when it was frozen",
        )
    if there == UNKNOWN:
        return Settlement(
            HELD, "the destination has no record of it: it may have run there before it was lost"
        )
    return Settlement(WAIT, f"the destination has not decided yet: {there}")


def table(*, heading: str = "|") -> str:
    """The phase table in Markdown, as docs/migration.md shows it."""
    rows = [("phase", "here", "there", "owner", "on failure the person reads")]
    rows.append(("---",) * 5)
    rows += [(f"`{row.name}`", row.here, row.there, row.owner, row.failure) for row in PHASES]
    return "\n".join(f"{heading} " + " | ".join(row) + " |" for row in rows)
