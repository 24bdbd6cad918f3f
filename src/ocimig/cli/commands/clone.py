"""clone: copies of one checkpoint or snapshot, each for itself."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ocimig import jsonio, log
from ocimig.cli import context
from ocimig.cli.commands import stores
from ocimig.cli.shown import shown
from ocimig.cli.verbs import Call
from ocimig.errors import OcimigError, Usage
from ocimig.migrate import network

if TYPE_CHECKING:
    from ocimig.migrate.clone.make import Source

_PARTLY = 3
Networks = Sequence["network.NetworkConfig | None"]


def clone(call: Call) -> int:
    """Start copies, one after the other; one that fails does not keep the others from it."""
    from ocimig.migrate.clone import make

    if len(call.arguments) == 2:
        return _of_snapshot(call)
    _only_with(call, "container", "files", words="a snapshot")
    source = make.find(call.arguments[0], call.text("bundle"))
    names, joined = _wanted(call, source.manifest.id, source.network)
    for id in make.writers(context.store(call), source):
        log.warning(
            f"{id} runs on {source.root}, over which the copies lie: what it changes there from now on "
            "they may see, or not"
        )
    return _start(call, source, names, joined)


def _of_snapshot(call: Call) -> int:
    """The store is closed before the first copy is started: each has a process that stays."""
    from ocimig.migrate.backup.restore import saved_network
    from ocimig.migrate.clone import ground

    _only_with(call, "bundle", words="a checkpoint")
    home = _absolute(call.text("files")) or ground.HOME
    with ExitStack() as kept:
        with stores.store(call) as store, store.place.lock(exclusive=False, purpose="clone"):
            snapshot = store.find(call.arguments[1], call.text("container"))
            names, joined = _wanted(call, snapshot.container, saved_network(snapshot))
            containers = context.store(call)
            place = kept.enter_context(ground.ground(home, containers, snapshot.container, names))
            source = ground.take_out(store, snapshot, place)
        return _start(call, source, names, joined)


def _only_with(call: Call, *options: str, words: str) -> None:
    for option in options:
        if call.given(option):
            raise Usage(reason=f"--{option} is for copies of {words}", verb="clone")


def _wanted(call: Call, container: str, saved: dict[str, Any] | None) -> tuple[list[str], Networks]:
    """What the copies are called, and the network of each."""
    from ocimig.migrate.clone import plan

    try:
        if call.given("count") and not call.number("count"):
            raise ValueError("no copies at all")
        names = plan.names(container, call.many("name"), call.number("count"))
        return names, _networks(call, saved, len(names))
    except ValueError as error:
        raise Usage(reason=str(error), verb="clone") from None


def _networks(call: Call, saved: dict[str, Any] | None, count: int) -> Networks:
    """A source that had a network says nothing about addresses that are free."""
    from ocimig.migrate.clone import plan

    wanted = call.text("net")
    if wanted and wanted != "none":
        return plan.networks(network.parse(wanted), count)
    if not wanted and saved is not None:
        raise ValueError(
            f"it had the address {saved['address']} on {saved['bridge']}, its copies "
            "need others: --net bridge=NAME,address=IP/LEN, or --net none"
        )
    return [None] * count


def _start(call: Call, source: "Source", names: Sequence[str], joined: Networks) -> int:
    from ocimig.migrate.clone import make, merge

    merged, hint = merge.decide(call.text("merge", merge.AUTO))
    if hint:
        log.warning(hint)
    options = make.CloneOptions(
        output=_absolute(call.text("output")),
        work_path=_absolute(call.text("work-path")),
        whole=call.flag("whole"),
        fill=call.flag("fill"),
        systemd_cgroup=context.systemd_cgroup(call),
        merge=merged,
    )
    table = call.text("format", "table") == "table"
    documents: list[dict[str, Any]] = []
    failed: list[int] = []
    for name, config in zip(names, joined, strict=True):
        try:
            pid = make.clone(context.store(call), source, name, options, config)
        except (OcimigError, OSError) as error:
            failed.append(error.code if isinstance(error, OcimigError) else 1)
            log.error(f"{name}: {error}")
            if isinstance(error, OcimigError) and error.advice:
                log.error(f"{name}: {error.advice}")
            documents.append({"id": name, "error": str(error), "code": failed[-1]})
            continue
        address = config.address if config is not None else ""
        documents.append({"id": name, "pid": pid, "address": address})
        if table:
            # At once: when we are stopped it is seen which run.
            print(shown(f"{name} runs, pid {pid}{', ' if address else ''}{address}"), flush=True)
    if not table:
        print(jsonio.dumps(documents, indent=2))
    if not failed:
        return 0
    return failed[0] if len(failed) == len(names) else _PARTLY


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""
