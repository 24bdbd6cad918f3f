"""Stores as the command line names them: a directory or ssh://, and what opens it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ocimig.cli.verbs import Call
from ocimig.migrate.store import local
from ocimig.migrate.store.place import Place
from ocimig.migrate.store.secret import Secret, find
from ocimig.migrate.store.store import Store

CACHE = "/var/cache/ocimig"


@contextmanager
def place(call: Call, where: str) -> Iterator[Place]:
    """The place with that name, closed afterwards. Raises NoStore, PlaceFailed."""
    if where.startswith("ssh://"):
        from ocimig.migrate.store import far

        found: Place = far.dial(where)
    else:
        found = local.LocalPlace(os.path.abspath(where), words=where)
    try:
        yield found
    finally:
        found.close()


def secret(call: Call, where: str) -> Secret | None:
    """What opens it, by the options or the environment. Raises WrongKey."""
    return find(
        where,
        passphrase_file=call.text("passphrase-file"),
        key_file=call.text("key-file"),
        passcommand=call.text("passcommand"),
        environment=os.environ,
    )


def cache(call: Call) -> str:
    """The directory of what can be made anew."""
    return os.path.abspath(call.text("cache") or CACHE)


@contextmanager
def store(call: Call) -> Iterator[Store]:
    """The store of the first argument, opened."""
    where = call.arguments[0]
    with place(call, where) as found:
        yield Store.open(found, secret(call, where), cache=cache(call))
