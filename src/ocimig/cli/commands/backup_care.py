"""backup verify, forget, prune, repair, unlock: the care of a store."""

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ocimig import jsonio
from ocimig.cli import context
from ocimig.cli.commands import stores
from ocimig.cli.commands.backup import chosen, moment, print_table
from ocimig.cli.shown import shown
from ocimig.cli.verbs import Call, Misuse
from ocimig.migrate.report import size

if TYPE_CHECKING:
    from ocimig.migrate import retention
    from ocimig.migrate.store.store import Store
    from ocimig.migrate.store.verify import Verdict

_PROBLEMS = 1


def verify(call: Call) -> int:
    """Is the store what was written?"""
    from ocimig.migrate.store import verify as room

    part = _part(call, "read-data", call.maybe("read-data", "100%") or "0%")
    with stores.store(call) as store:
        with store.place.lock(exclusive=False, purpose="backup verify"):
            verdict = room.verify(store, read_data=part, tell=lambda _: None)
            for name in call.many("restore"):
                _rehearse(call, store, name, verdict)
    _show(call, verdict)
    return _PROBLEMS if verdict.problems else 0


def _rehearse(call: Call, store: "Store", name: str, verdict: "Verdict") -> None:
    from ocimig.migrate.backup import rehearsal

    snapshot = store.find(name)
    wrong, pages = rehearsal.rehearse(context.store(call), store, snapshot)
    if wrong:
        verdict.problems.append(f"snapshot {snapshot.id} cannot be restored: {wrong}")
        verdict.lost[snapshot.id] = wrong
    elif call.text("format", "table") == "table":
        print(f"snapshot {snapshot.id} was restored and thrown away, {pages} pages compared")


def repair(call: Call) -> int:
    """Set aside what is damaged."""
    from ocimig.migrate.store import verify as room

    with stores.store(call) as store:
        with store.place.lock(exclusive=True, purpose="backup repair"):
            verdict = room.repair(store, lambda _: None)
    _show(call, verdict)
    if call.text("format", "table") == "json":
        return 0
    for room_name, name in verdict.bad_files:
        print(shown(f"set aside: {room_name}/{name}"))
    for number in sorted(verdict.bad_packs):
        print(f"set aside: what is damaged of pack {number:016x}")
    for id in sorted(verdict.lost):
        print(f"set aside: snapshot {id}, which needs it")
    return 0


def _show(call: Call, verdict: "Verdict") -> None:
    if call.text("format", "table") == "json":
        print(
            jsonio.dumps(
                {
                    "snapshots": verdict.snapshots,
                    "packs": verdict.packs,
                    "read_packs": verdict.read_packs,
                    "read_bytes": verdict.read_bytes,
                    "problems": verdict.problems,
                    "lost": verdict.lost,
                    "bad_files": [f"{room}/{name}" for room, name in verdict.bad_files],
                    "bad_packs": sorted(f"{number:016x}" for number in verdict.bad_packs),
                },
                indent=2,
            )
        )
        return
    for problem in verdict.problems:
        print(shown(problem))
    print(
        f"{verdict.snapshots} snapshots, {verdict.packs} packs, {verdict.read_packs} of them read "
        f"({size(verdict.read_bytes)}): {len(verdict.problems) or 'no'} problems"
    )


def forget(call: Call) -> int:
    """Remove snapshots by name or by policy."""
    from ocimig.migrate import retention
    from ocimig.migrate.backup.repository import Kept
    from ocimig.migrate.store.prune import MOST_UNUSED

    policy = _policy(call)
    names = call.arguments[1:]
    if bool(names) == bool(policy):
        raise Misuse(
            "name snapshots, or what to keep by --keep-…, one of both", code=2, verb=call.verb
        )
    with stores.store(call) as store:
        if names:
            there = store.names()  # one that is damaged cannot be read, but has its name
            exact = (name if name in there else store.find(name).id for name in names)
            gone = list(dict.fromkeys(exact))
            decisions: list[retention.Decision] = []
        else:
            zone = datetime.now().astimezone().tzinfo
            assert zone is not None
            judged = [Kept(each) for each in chosen(call, store)]
            decisions = retention.forget(judged, policy, zone=zone, now=time.time())
            ids = {each.id for decision in decisions for each in decision.removed()}
            gone = [each.id for each in judged if each.id in ids]
        if not call.flag("dry-run"):
            for id in gone:
                store.forget(id)
        pruned: tuple[int, dict[str, Any], list[str]] | None = None
        if call.flag("prune") and not call.flag("dry-run"):
            pruned = _prune(store, most_unused=MOST_UNUSED)
    _show_forgotten(call, decisions, gone, pruned)
    return pruned[0] if pruned else 0


def _show_forgotten(
    call: Call,
    decisions: "list[retention.Decision]",
    gone: list[str],
    pruned: tuple[int, dict[str, Any], list[str]] | None,
) -> None:
    verb = "would be removed" if call.flag("dry-run") else "removed"
    if call.text("format", "table") == "json":
        kept = [
            {"id": each.snapshot.id, "keep": each.keep, "reasons": list(each.reasons)}
            for decision in decisions
            for each in decision.verdicts
        ]
        document: dict[str, Any] = {"removed": gone, "decisions": kept}
        if pruned:
            document["pruned"] = pruned[1]
        print(jsonio.dumps(document, indent=2))
        return
    for decision in decisions:
        rows = [(f"{decision.container} on {decision.host}", "TIME", "WHAT", "WHY")]
        rows += [
            (
                each.snapshot.id, moment(each.snapshot.time), "kept" if each.keep else verb,
                "; ".join(each.reasons),
            )
            for each in decision.verdicts
        ]  # fmt: skip
        print_table(rows)
    if not decisions:
        for id in gone:
            print(f"{id} {verb}")
    for line in pruned[2] if pruned else ():
        print(shown(line))


def _policy(call: Call) -> "retention.Policy":
    from ocimig.migrate.retention import Policy, Span

    counts: dict[str, int] = {}
    for name in ("last", "hourly", "daily", "weekly", "monthly", "yearly"):
        text = call.text(f"keep-{name}") or "0"
        if text != "-1" and not (text.isascii() and text.isdigit() and len(text) < 10):
            raise Misuse(f'invalid value "{text}" for --keep-{name}', code=2, verb=call.verb)
        counts[name] = int(text)
    try:
        within = Span.parse(call.text("keep-within"))
    except ValueError as error:
        raise Misuse(str(error), code=2, verb=call.verb) from None
    tags = tuple(tuple(each.split(",")) for each in call.many("keep-tag"))
    return Policy(
        last=counts["last"],
        hourly=counts["hourly"],
        daily=counts["daily"],
        weekly=counts["weekly"],
        monthly=counts["monthly"],
        yearly=counts["yearly"],
        within=within,
        tags=tags,
    )


def prune(call: Call) -> int:
    """Remove what no snapshot needs."""
    with stores.store(call) as store:
        most = _part(call, "max-unused", call.text("max-unused") or "30%")
        code, document, lines = _prune(store, most_unused=most, dry_run=call.flag("dry-run"))
    if call.text("format", "table") == "json":
        print(jsonio.dumps(document, indent=2))
    else:
        print("\n".join(map(shown, lines)))
    return code


def _prune(
    store: "Store", *, most_unused: float, dry_run: bool = False
) -> tuple[int, dict[str, Any], list[str]]:
    """The exit code, and what was done for programs and for people."""
    from ocimig.migrate.store import prune as room

    with store.place.lock(exclusive=True, purpose="backup prune"):
        store.packs.refresh()
        wanted, marks = room.survey(store, most_unused=most_unused)
        if dry_run:
            would = {
                "remove": len(wanted.remove),
                "shrink": len(wanted.shrink),
                "freed_bytes": wanted.freed,
            }
            line = (
                f"{len(wanted.remove)} packs would be removed, {len(wanted.shrink)} written anew "
                f"without what nobody needs: about {size(wanted.freed)}"
            )
            return 0, would, [line]
        done = room.perform(store, wanted, marks, lambda _: None)
    document = {
        "removed": done.removed,
        "shrunk": done.shrunk,
        "freed_bytes": done.freed,
        "problems": done.problems,
    }
    line = f"{done.removed} packs removed, {done.shrunk} written anew: {size(done.freed)} freed"
    return 3 if done.problems else 0, document, [line, *done.problems]


def unlock(call: Call) -> int:
    """Who holds a store."""
    with stores.place(call, call.arguments[0]) as place:
        held = place.holders()
    for words in held:
        print(shown(words))
    if not held:
        print(f"nobody holds {call.arguments[0]}")
    return 0


def _part(call: Call, name: str, text: str) -> float:
    number = text.removesuffix("%")
    try:
        part = float(number) / 100
    except ValueError:
        part = -1.0
    if not (text.endswith("%") and 0 <= part <= 1):
        raise Misuse(
            f'invalid value "{text}" for --{name}: a part such as 5%', code=2, verb=call.verb
        )
    return part
