"""clone: copies of one checkpoint, each for itself."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ocimig import jsonio, log
from ocimig.cli import context
from ocimig.cli.verbs import Call
from ocimig.errors import OcimigError, Usage
from ocimig.migrate import network

if TYPE_CHECKING:
    from ocimig.migrate.clone.make import Source

_PARTLY = 3


def clone(call: Call) -> int:
    """Start copies, one after the other; one that fails does not keep the others from it."""
    from ocimig.migrate.clone import make, plan

    store = context.store(call)
    source = make.find(call.arguments[0], call.text("bundle"))
    try:
        if call.given("count") and not call.number("count"):
            raise ValueError("no copies at all")
        names = plan.names(source.manifest.id, call.many("name"), call.number("count"))
        joined = _networks(call, source, len(names))
    except ValueError as error:
        raise Usage(reason=str(error), verb="clone") from None
    for id in make.writers(store, source):
        log.warning(
            f"{id} runs on {source.root}, over which the copies lie: what it changes there from now on "
            "they may see, or not"
        )
    options = make.CloneOptions(
        output=_absolute(call.text("output")),
        work_path=_absolute(call.text("work-path")),
        whole=call.flag("whole"),
        fill=call.flag("fill"),
        systemd_cgroup=context.systemd_cgroup(call),
    )
    table = call.text("format", "table") == "table"
    documents: list[dict[str, Any]] = []
    failed: list[int] = []
    for name, config in zip(names, joined, strict=True):
        try:
            pid = make.clone(store, source, name, options, config)
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
            print(f"{name} runs, pid {pid}{', ' if address else ''}{address}", flush=True)
    if not table:
        print(jsonio.dumps(documents, indent=2))
    if not failed:
        return 0
    return failed[0] if len(failed) == len(names) else _PARTLY


def _networks(call: Call, source: "Source", count: int) -> "Sequence[network.NetworkConfig | None]":
    """The network of each copy. A source that had one says nothing about addresses that are free."""
    from ocimig.migrate.clone import plan

    wanted = call.text("net")
    if wanted and wanted != "none":
        return plan.networks(network.parse(wanted), count)
    if not wanted and source.network is not None:
        raise ValueError(
            f"it had the address {source.network['address']} on {source.network['bridge']}, its copies "
            "need others: --net bridge=NAME,address=IP/LEN, or --net none"
        )
    return [None] * count


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""
