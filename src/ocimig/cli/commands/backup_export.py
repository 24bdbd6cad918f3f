"""backup export: a snapshot as one file."""

from ocimig.cli.commands import archive, stores
from ocimig.cli.verbs import Call


def export(call: Call) -> int:
    """What checkpoint --export would have made of that moment."""
    from ocimig.migrate.backup.export import export as write

    _, name, file = call.arguments
    with stores.store(call) as store:
        with store.place.lock(exclusive=False, purpose="backup export"):
            snapshot = store.find(name, call.text("container"))
            write(store, snapshot, archive.wanted_export(call, file))
    print(f"snapshot {snapshot.id} is in {file}")
    return 0
