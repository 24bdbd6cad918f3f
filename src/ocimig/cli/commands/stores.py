"""Stores as the command line names them: a directory or ssh://, and what opens it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ocimig.cli.verbs import Call
from ocimig.migrate.errors import InvalidTarget
from ocimig.migrate.store import far, local
from ocimig.migrate.store.place import Place
from ocimig.migrate.store.secret import Secret, find
from ocimig.migrate.store.store import Store

CACHE = "/var/cache/ocimig"


@contextmanager
def place(call: Call, where: str, *, create: bool = False) -> Iterator[Place]:
    """The place with that name, closed afterwards; with `create` it is made. Raises NoStore, StoreExists,
    PlaceFailed, and what says that the other host cannot be reached."""
    found: Place
    if far.is_far(where):
        found = _far(call, where, create)
    elif create:
        found = local.create(_directory(where), words=where)
    else:
        found = local.LocalPlace(_directory(where), words=where)
    try:
        yield found
    finally:
        found.close()


def _directory(where: str) -> str:
    if "://" in where:
        reason = "a store is a directory or ssh://HOST/DIRECTORY"
        raise InvalidTarget(target=where, reason=reason)
    return os.path.abspath(where)


@contextmanager
def plain_place(where: str) -> Iterator[Place]:
    """As place(), of a store that somebody else than a command line names."""
    found: Place
    if far.is_far(where):
        from ocimig.migrate import transport

        address = far.parse(where)
        connection = transport.connect(address.target)
        found = far.reach(connection, far.argv("", os.environ), address.path, words=address.words)
    else:
        found = local.LocalPlace(_directory(where), words=where)
    try:
        yield found
    finally:
        found.close()


def _far(call: Call, where: str, create: bool) -> Place:
    from ocimig.migrate import transport

    address = far.parse(
        where,
        port=call.number("port"),
        identity=call.text("identity"),
        known_hosts=call.text("known-hosts"),
        accept_new=call.flag("accept-new-host-key"),
    )
    connection = transport.connect(address.target, transport=call.text("transport", "paramiko"))
    command = far.argv(call.text("remote-command"), os.environ)
    return far.reach(connection, command, address.path, words=address.words, create=create)


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
def store(call: Call, where: str = "") -> Iterator[Store]:
    """The store of the first argument, or another one, opened."""
    where = where or call.arguments[0]
    with place(call, where) as found:
        yield Store.open(found, secret(call, where), cache=cache(call))
