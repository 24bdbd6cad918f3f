"""backup verify, forget, prune, repair, unlock: the care of a store."""

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ocimig import jsonio
from ocimig.cli.commands import stores
from ocimig.cli.commands.backup import chosen, moment, print_table
from ocimig.cli.verbs import Call, Misuse
from ocimig.migrate.report import size

if TYPE_CHECKING:
    from ocimig.migrate import retention
    from ocimig.migrate.store.prune import Plan, Pruned
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
    _show(call, verdict)
    return _PROBLEMS if verdict.problems else 0


def repair(call: Call) -> int:
    """Set aside what is damaged."""
    from ocimig.migrate.store import verify as room

    with stores.store(call) as store:
        with store.place.lock(exclusive=True, purpose="backup repair"):
            verdict = room.repair(store, lambda _: None)
    _show(call, verdict)
    for room_name, name in verdict.bad_files:
        print(f"set aside: {room_name}/{name}")
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
                },
                indent=2,
            )
        )
        return
    for problem in verdict.problems:
        print(problem)
    print(
        f"{verdict.snapshots} snapshots, {verdict.packs} packs, {verdict.read_packs} of them read "
        f"({size(verdict.read_bytes)}): {len(verdict.problems) or 'no'} problems"
    )


def forget(call: Call) -> int:
    """Remove snapshots by name or by policy."""
    from ocimig.migrate import retention

    policy = _policy(call)
    names = call.arguments[1:]
    if bool(names) == bool(policy):
        raise Misuse(
            "name snapshots, or what to keep by --keep-…, one of both", code=2, verb=call.verb
        )
    with stores.store(call) as store:
        if names:
            gone = [store.find(name) for name in names]
            decisions: list[retention.Decision] = []
        else:
            zone = datetime.now().astimezone().tzinfo
            assert zone is not None
            judged = [_Judged(each) for each in chosen(call, store)]
            decisions = retention.forget(judged, policy, zone=zone, now=time.time())
            ids = {each.id for decision in decisions for each in decision.removed()}
            gone = [each for each in chosen(call, store) if each.id in ids]
        if not call.flag("dry-run"):
            for each in gone:
                store.forget(each.id)
        _show_decisions(call, decisions, [each.id for each in gone])
        if call.flag("prune") and not call.flag("dry-run"):
            return _prune(call, store)
    return 0


class _Judged:
    """A snapshot as retention sees it: the host is one of its labels."""

    def __init__(self, snapshot: Any) -> None:
        self.id: str = snapshot.id
        self.container: str = snapshot.container
        self.time: float = snapshot.time
        self.tags: tuple[str, ...] = snapshot.tags
        self.labels: dict[str, str] = {**snapshot.labels, "host": snapshot.host}


def _show_decisions(
    call: Call, decisions: "list[retention.Decision]", gone: list[str]
) -> None:
    verb = "would be removed" if call.flag("dry-run") else "removed"
    if call.text("format", "table") == "json":
        kept = [
            {"id": each.snapshot.id, "keep": each.keep, "reasons": list(each.reasons)}
            for decision in decisions
            for each in decision.verdicts
        ]
        print(jsonio.dumps({"removed": gone, "decisions": kept}, indent=2))
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


def _policy(call: Call) -> "retention.Policy":
    from ocimig.migrate.retention import Policy, Span

    counts = {}
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
    return Policy(**counts, within=within, tags=tags)


def prune(call: Call) -> int:
    """Remove what no snapshot needs."""
    with stores.store(call) as store:
        return _prune(call, store)


def _prune(call: Call, store: "Store") -> int:
    from ocimig.migrate.store import prune as room

    most = _part(call, "max-unused", call.text("max-unused") or "30%") if call.verb.name.endswith("prune") else room.MOST_UNUSED
    with store.place.lock(exclusive=True, purpose="backup prune"):
        store.packs.refresh()
        wanted, marks = room.survey(store, most_unused=most)
        if call.flag("dry-run"):
            _show_plan(call, wanted)
            return 0
        done = room.perform(store, wanted, marks, lambda _: None)
    _show_pruned(call, done)
    return 3 if done.problems else 0


def _show_plan(call: Call, wanted: "Plan") -> None:
    if call.text("format", "table") == "json":
        document = {"remove": len(wanted.remove), "shrink": len(wanted.shrink), "freed_bytes": wanted.freed}
        print(jsonio.dumps(document, indent=2))
        return
    print(
        f"{len(wanted.remove)} packs would be removed, {len(wanted.shrink)} written anew without what "
        f"nobody needs: about {size(wanted.freed)}"
    )


def _show_pruned(call: Call, done: "Pruned") -> None:
    if call.text("format", "table") == "json":
        document = {"removed": done.removed, "shrunk": done.shrunk, "freed_bytes": done.freed,
                    "problems": done.problems}  # fmt: skip
        print(jsonio.dumps(document, indent=2))
        return
    print(f"{done.removed} packs removed, {done.shrunk} written anew: {size(done.freed)} freed")
    for problem in done.problems:
        print(problem)


def unlock(call: Call) -> int:
    """Who holds a store."""
    with stores.place(call, call.arguments[0]) as place:
        held = place.holders()
    for words in held:
        print(words)
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
        raise Misuse(f'invalid value "{text}" for --{name}: a part such as 5%', code=2, verb=call.verb)
    return part
