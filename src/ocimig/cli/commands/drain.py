"""drain, and migrate --together: several containers to other hosts."""

import sys
from typing import TYPE_CHECKING

from ocimig import jsonio
from ocimig.cli import context
from ocimig.cli.commands import migrate
from ocimig.cli.verbs import Call, Misuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocimig.migrate.outcomes import Outcome
    from ocimig.migrate.transport import Target


def drain(call: Call) -> int:
    """Move them, a line each as it ends on standard error, then a table or JSON."""
    from ocimig.migrate import drain as room
    from ocimig.migrate import outcomes

    targets = _targets(call)
    parallel = call.number("parallel", 1)
    if parallel < 1:
        raise _misuse(call, "--parallel must be at least 1")
    wanted = outcomes.DrainOptions(
        migrate=migrate.options(call),
        parallel=parallel,
        dry_run=call.flag("dry-run"),
        keep_going=call.flag("keep-going"),
    )
    ended = room.drain(context.store(call), targets, wanted, _teller(call))
    return _show(call, ended)


def together(call: Call) -> int:
    """Move the containers that were named to one host, all or none."""
    from ocimig.migrate import together as room

    *ids, host = call.arguments
    if len(ids) < 2:
        raise _misuse(call, "--together takes two containers or more, then the host")
    if len(set(ids)) < len(ids):
        raise _misuse(call, "a container is named twice")
    for name in ("report", "progress"):
        if call.given(name):
            raise _misuse(call, f"--{name} shows one migration: it does not go with --together")
    if call.flag("post-copy"):
        raise _misuse(
            call, "--post-copy could lose one of them alone: it does not go with --together"
        )
    ended = room.together(
        context.store(call), ids, migrate.target(call, host), migrate.options(call), _teller(call)
    )
    return _show(call, ended)


def _show(call: Call, ended: "list[Outcome]") -> int:
    from ocimig.migrate import outcomes

    if call.flag("json"):
        print(jsonio.dumps([each.to_dict() for each in ended], indent=2))
    elif ended:
        print("\n".join(outcomes.table(ended)))
    else:
        print("no container runs here")
    return outcomes.worst(ended)


def _targets(call: Call) -> "list[Target]":
    names = [name for name in call.text("to").split(",") if name]
    if not names:
        raise _misuse(call, "name the hosts to move to: --to HOST[,HOST...]")
    found = [migrate.target(call, name) for name in names]
    if len({each.host for each in found}) < len(found):
        raise _misuse(call, "--to names a host twice")
    return found


def _teller(call: Call) -> "Callable[[Outcome], None]":
    return _nobody if call.flag("json") else _tell


def _tell(outcome: "Outcome") -> None:
    where = f" ({outcome.host})" if outcome.host else ""
    words = [f"{outcome.id or 'drain'}: {outcome.outcome}{where}", outcome.reason, outcome.fix]
    print("; ".join(filter(None, words)), file=sys.stderr, flush=True)


def _nobody(outcome: "Outcome") -> None:
    """Programs read the end."""


def _misuse(call: Call, reason: str) -> Misuse:
    error = Misuse(reason, code=2, verb=call.verb)
    error.outer = call.outer
    return error
