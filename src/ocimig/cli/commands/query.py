"""state, list, ps. Hot: `state` is asked more often than everything else together."""

import os

from ocimig import jsonio
from ocimig.cli import context
from ocimig.errors import OcimigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocimig.cli.verbs import Call


class NoRoot(OcimigError):
    """--root names a directory that is not there, which is more likely a slip than an empty list."""

    message = "open {root}: no such file or directory"
    hint = "name the directory that the containers were created with"

    def __init__(self, *, root: str) -> None:
        super().__init__(root=root)


def state(call: "Call") -> int:
    """The state of one container as JSON."""
    from ocimig.runtime import lifecycle

    print(jsonio.dumps(lifecycle.state_document(context.store(call), call.arguments[0]), indent=2))
    return 0


def list_(call: "Call") -> int:
    """Every container, as a table, as JSON or only by id."""
    from ocimig.runtime import observe

    store = context.store(call)
    if call.given("root") and not os.path.isdir(store.root):
        raise NoRoot(root=store.root)
    if call.flag("quiet"):
        for document in observe.list_documents(store):
            print(document["id"])
        return 0
    documents = observe.list_documents(store)
    if call.text("format", "table") == "json":
        print(jsonio.dumps(documents or None))
        return 0
    print(observe.list_table(documents), end="")
    return 0


def ps(call: "Call") -> int:
    """The processes of a container."""
    from ocimig.runtime import observe

    store = context.store(call)
    id, *options = call.arguments
    if call.text("format", "table") == "json":
        print(jsonio.dumps(observe.pids(store, id)))
        return 0
    for line in observe.ps(store, id, options):
        print(line)
    return 0
