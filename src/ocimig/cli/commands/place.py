"""serve-store: a store of this host for another one."""

import os

from ocimig.cli.verbs import Call, Misuse


def serve_store(call: Call) -> int:
    """Standard input and output belong to the conversation."""
    from ocimig.migrate.store import serve

    root = call.text("store-root")
    if call.given("store-root") and not os.path.isabs(root):
        error = Misuse("--store-root must be an absolute path", code=2, verb=call.verb)
        error.outer = call.outer
        raise error
    serve.serve(0, 1, serve.Confined(root, call.flag("append-only")))
    return 0
