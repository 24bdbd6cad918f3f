"""backup init, create, list, show, restore, diff: snapshots of running containers."""

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ocimig import jsonio, log
from ocimig.cli import context
from ocimig.cli.commands import stores
from ocimig.cli.shown import shown
from ocimig.cli.verbs import Call
from ocimig.errors import OcimigError
from ocimig.migrate.report import size

if TYPE_CHECKING:
    from ocimig.migrate.store.snapshot import Snapshot
    from ocimig.migrate.store.store import Store

_PARTLY = 3


def init(call: Call) -> int:
    """Make a store."""
    from ocimig.migrate.store import far, seal
    from ocimig.migrate.store.errors import WrongKey
    from ocimig.migrate.store.store import Store

    where = call.arguments[0]
    found = stores.secret(call, where)
    sealed = call.text("encryption")
    if not sealed:
        sealed = seal.AES if far.is_far(where) or found is not None else seal.NONE
    if sealed != seal.NONE and found is None:
        raise WrongKey(place=where, reason="a store that is sealed needs something that opens it")
    with stores.place(call, where, create=True) as place:
        made = Store.init(place, found, sealed=sealed, cache=stores.cache(call))
    print(f"store {made.id} made in {where}, sealed by {sealed}")
    return 0


def create(call: Call) -> int:
    """Snapshots of containers, one after the other; one that fails does not keep the others from it."""
    from ocimig.migrate.backup.create import BackupOptions
    from ocimig.migrate.backup.create import create as take

    tracker = call.text("tracker", "auto")
    options = BackupOptions(
        tags=tuple(call.many("tag")),
        tracker="" if tracker == "auto" else tracker,
        tcp_close=call.flag("tcp-close"),
    )
    documents, failed = [], []
    with stores.store(call) as store:
        with store.place.lock(exclusive=False, purpose="backup create"):
            for id in call.arguments[1:]:
                try:
                    snapshot, notes = take(context.store(call), id, store, options)
                except (OcimigError, OSError) as error:
                    code = error.code if isinstance(error, OcimigError) else 1
                    failed.append(code)
                    log.error(f"{id}: {error}")
                    documents.append({"container": id, "error": str(error), "code": code})
                    continue
                documents.append({**summary(snapshot), "notes": notes})
                if call.text("format", "table") == "table":
                    print(shown(_taken(snapshot)))
                    for note in notes:
                        print(shown(f"  {note}"))
    if call.text("format", "table") == "json":
        print(jsonio.dumps(documents, indent=2))
    if not failed:
        return 0
    return failed[0] if len(failed) == len(call.arguments) - 1 else _PARTLY


def _taken(snapshot: "Snapshot") -> str:
    return (
        f"{snapshot.container}: snapshot {snapshot.id}, frozen for "
        f"{snapshot.frozen_seconds * 1e3:.0f} ms, {size(snapshot.read_bytes)} read, "
        f"{size(snapshot.stored_bytes)} stored, in {snapshot.seconds:.1f} s"
    )


def summary(snapshot: "Snapshot") -> dict[str, Any]:
    """What lists say of a snapshot."""
    return {
        "id": snapshot.id,
        "container": snapshot.container,
        "host": snapshot.host,
        "time": snapshot.time,
        "tags": list(snapshot.tags),
        "labels": dict(snapshot.labels),
        "memory_bytes": snapshot.pages * 4096,
        "frozen_seconds": round(snapshot.frozen_seconds, 6),
        "seconds": round(snapshot.seconds, 3),
        "read_bytes": snapshot.read_bytes,
        "stored_bytes": snapshot.stored_bytes,
    }


def list_(call: Call) -> int:
    """The snapshots of a store, oldest first."""
    with stores.store(call) as store:
        found = chosen(call, store)
    if call.flag("quiet"):
        for snapshot in found:
            print(snapshot.id)
        return 0
    if call.text("format", "table") == "json":
        print(jsonio.dumps([summary(snapshot) for snapshot in found], indent=2))
        return 0
    rows = [("SNAPSHOT", "CONTAINER", "HOST", "TIME", "MEMORY", "STORED", "FROZEN", "TAGS")]
    rows += [
        (
            each.id, each.container, each.host, moment(each.time), size(each.pages * 4096),
            size(each.stored_bytes), f"{each.frozen_seconds * 1e3:.0f} ms", ",".join(each.tags),
        )
        for each in found
    ]  # fmt: skip
    print_table(rows)
    return 0


def chosen(call: Call, store: "Store") -> "list[Snapshot]":
    """The snapshots that --container and --tag leave, oldest first."""
    container, tags = call.text("container"), set(call.many("tag"))
    return [
        each
        for each in store.snapshots()
        if container in ("", each.container) and tags <= set(each.tags)
    ]


def moment(seconds: float) -> str:
    """A time of day here."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as they have to be; what cannot be printed is escaped."""
    rows = [tuple(map(shown, row)) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def show(call: Call) -> int:
    """One snapshot: what it is, and with --files every name in it."""
    from ocimig.migrate.backup import walk

    with stores.store(call) as store:
        snapshot = store.find(call.arguments[1])
        document = {
            **summary(snapshot),
            "spaces": {name: len(listed) for name, listed in snapshot.spaces.items()},
            "images": {name: each.size for name, each in snapshot.images.items()},
            "trees": [{"name": each.name, "path": each.path} for each in snapshot.trees],
        }
        if call.text("format", "table") == "json":
            if call.flag("files"):
                document["files"] = [
                    {"tree": each.name, "path": path, "type": node.type, "size": node.size}
                    for each in snapshot.trees
                    for path, node in walk.walk(store.packs, each.node())
                ]
            print(jsonio.dumps(document, indent=2))
            return 0
        for name, value in document.items():
            print(shown(f"{name}: {value if isinstance(value, str) else jsonio.dumps(value)}"))
        for each in snapshot.trees if call.flag("files") else ():
            for path, node in walk.walk(store.packs, each.node()):
                facts = f"{node.type} {node.mode:04o} {node.uid} {node.gid} {node.size}"
                print(shown(f"{facts} {each.path}/{path}"))
    return 0


def restore(call: Call) -> int:
    """A container out of a snapshot."""
    from ocimig.migrate.backup import restore as room

    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        with stores.store(call) as store:
            with store.place.lock(exclusive=False, purpose="backup restore"):
                snapshot = store.find(call.arguments[1], call.text("container"))
                id = call.text("as") or snapshot.container
                wanted = room.WantedRestore(
                    id=id,
                    bundle=call.text("bundle"),
                    tcp_close=call.flag("tcp-close"),
                    systemd_cgroup=context.systemd_cgroup(call),
                    stdio=(null, null, null),
                    connect=room.connector(snapshot, id),
                )
                room.restore_snapshot(context.store(call), store, snapshot, wanted)
    finally:
        os.close(null)
    print(shown(f"{id} runs as it was at {moment(snapshot.time)} (snapshot {snapshot.id})"))
    return 0


def diff(call: Call) -> int:
    """What differs between two snapshots: files by name, memory by space."""
    from ocimig.migrate.backup import compare

    with stores.store(call) as store:
        one, other = store.find(call.arguments[1]), store.find(call.arguments[2])
        found = compare.compare(store, one, other)
    if call.text("format", "table") == "json":
        print(jsonio.dumps(found, indent=2))
        return 0
    for change in found["files"]:
        print(shown(f"{change['change']} {change['path']}"))
    for space in found["memory"]:
        print(
            f"memory of {space['space']}: {space['changed']} pages changed, {space['added']} came, "
            f"{space['removed']} went, {space['same']} are the same"
        )
    return 0
