"""backup key: what opens a store, listed, added, removed, changed."""

import getpass
import os
import sys

from ocimig import jsonio, log
from ocimig.cli.commands import stores
from ocimig.cli.commands.backup import moment, print_table
from ocimig.cli.shown import shown
from ocimig.cli.verbs import Call, Misuse
from ocimig.migrate.store import keys, seal
from ocimig.migrate.store.errors import NoSuchKey, StoreLocked, WrongKey
from ocimig.migrate.store.place import Place
from ocimig.migrate.store.secret import Secret, find, passphrase
from ocimig.migrate.store.store import read_about


def key(call: Call) -> int:
    """One of list, add, remove, change, for the store that is named behind it."""
    what, where, *rest = call.arguments
    if what not in _ACTS:
        raise Misuse(f'"{what}" is none of {", ".join(_ACTS)}', code=2, verb=call.verb)
    if (what == "remove") != bool(rest):
        raise Misuse("remove, and only that, takes a KEY", code=2, verb=call.verb)
    with stores.place(call, where) as place:
        about = read_about(place)
        if about["sealed"] == seal.NONE:
            raise WrongKey(place=place.words, reason="it is not sealed: it has no keys")
        _ACTS[what](call, place, str(about["id"]))
    return 0


def _list(call: Call, place: Place, id: str) -> None:
    """Slots are read without opening anything; the one that what was given opens is marked."""
    given = stores.secret(call, place.words)
    mine = keys.unlock(place, id, given)[1] if given is not None else ""
    found = keys.slots(place)
    if call.text("format", "table") == "json":
        document = [
            {
                "id": each.name.removesuffix(keys.SUFFIX), "opens_with": each.words,
                "created": each.created, "comment": each.comment, "given": each.name == mine,
            }
            for each in found
        ]  # fmt: skip
        print(jsonio.dumps(document, indent=2))
        return
    rows = [("", "KEY", "OPENS WITH", "CREATED", "COMMENT")]
    rows += [
        (
            "*" if each.name == mine else "", each.name.removesuffix(keys.SUFFIX), each.words,
            moment(each.created), shown(each.comment),
        )
        for each in found
    ]  # fmt: skip
    print_table(rows)


def _add(call: Call, place: Place, id: str) -> None:
    master, _ = keys.unlock(place, id, stores.secret(call, place.words))
    secret = _new(call, place.words)
    name = keys.add(place, id, master, secret, comment=call.text("comment"))
    print(f"key {name.removesuffix(keys.SUFFIX)} added: {secret.words} opens the store too")


def _remove(call: Call, place: Place, id: str) -> None:
    """Only for who opens it: else a wrong name could leave nothing but keys that nobody has."""
    given = stores.secret(call, place.words)
    mine = keys.unlock(place, id, given)[1]
    name = _chosen(place, call.arguments[2])
    keys.remove(place, name)
    print(f"key {name.removesuffix(keys.SUFFIX)} removed")
    if name == mine and given is not None:
        print(f"it is the one that you came by: {given.words} does not open the store any more")


def _change(call: Call, place: Place, id: str) -> None:
    old = stores.secret(call, place.words)
    mine = keys.unlock(place, id, old)[1]
    secret = _new(call, place.words)
    before = {slot.name for slot in keys.slots(place)}
    try:
        name = keys.change(place, id, old, secret, comment=call.text("comment"))
    except StoreLocked:
        if {slot.name for slot in keys.slots(place)} - before:
            log.warning(
                f"the new key was added, and the old one still opens {place.words}: when nobody "
                f"holds it, backup key remove {place.words} {mine.removesuffix(keys.SUFFIX)}"
            )
        raise
    print(
        f"key {name.removesuffix(keys.SUFFIX)} instead of {mine.removesuffix(keys.SUFFIX)}: "
        f"{secret.words} opens the store now"
    )


_ACTS = {"list": _list, "add": _add, "remove": _remove, "change": _change}


def _chosen(place: Place, text: str) -> str:
    """The slot whose name begins so. Raises NoSuchKey."""
    fitting = [slot.name for slot in keys.slots(place) if text and slot.name.startswith(text)]
    if len(fitting) == 1:
        return fitting[0]
    reason = f"{len(fitting)} keys begin with it" if fitting else "there is none of that name"
    raise NoSuchKey(place=place.words, id=text, reason=reason)


def _new(call: Call, where: str) -> Secret:
    """What shall open it: by the options, else a person is asked, twice. Raises WrongKey, Misuse."""
    found = find(
        where,
        passphrase_file=call.text("new-passphrase-file"),
        key_file=call.text("new-key-file"),
        passcommand=call.text("new-passcommand"),
        environment={},
    )
    if found is not None:
        return found
    if not sys.stdin.isatty():
        reason = "name the new one: --new-passphrase-file, --new-key-file or --new-passcommand"
        raise Misuse(reason, code=2, verb=call.verb)
    first, second = (getpass.getpass(f"{words}: ") for words in ("New passphrase", "Once more"))
    if first != second:
        raise WrongKey(place=where, reason="the two new passphrases are not the same")
    return passphrase(where, os.fsencode(first), "the new passphrase")
