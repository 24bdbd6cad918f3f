"""backup import: one file as a snapshot."""

from ocimig import jsonio
from ocimig.cli.commands import archive, stores
from ocimig.cli.commands.backup import moment, summary
from ocimig.cli.shown import shown
from ocimig.cli.verbs import Call
from ocimig.errors import Usage
from ocimig.migrate.report import size


def import_(call: Call) -> int:
    """What restore --import would run, kept instead."""
    from ocimig.migrate.backup.importing import Wanted, import_from

    file = call.arguments[1]
    wanted = Wanted(
        bundle=call.text("bundle"),
        id=call.text("as"),
        base=call.text("base"),
        tags=tuple(call.many("tag")),
    )
    if not wanted.bundle and not call.flag("plan"):
        reason = "--bundle DIR is missing: where a restore is going to put the files"
        raise Usage(reason=reason, verb=call.verb.name)
    with archive.opened(file) as fd:
        plan = archive.look(call, fd, file)
        if archive.told(call, plan):
            return 0
        with stores.store(call) as store:
            with store.place.lock(exclusive=False, purpose="backup import"):
                snapshot = import_from(store, fd, plan, wanted)
    if call.text("format", "table") == "json":
        print(jsonio.dumps(summary(snapshot), indent=2))
        return 0
    print(
        shown(
            f"{snapshot.container} as it was at {moment(snapshot.time)} is snapshot {snapshot.id}: "
            f"{size(snapshot.read_bytes)} read, {size(snapshot.stored_bytes)} stored, in {snapshot.seconds:.1f} s"
        )
    )
    return 0
