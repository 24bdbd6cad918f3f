"""Which names there are in a place, and how they spread over directories. Pure."""

import re

from ocimig.migrate.store.place import PACKS, ROOMS, TOP

STORE = "STORE"  # the only file of TOP

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SPREAD = re.compile(r"[0-9a-f]{2}")


def is_name(room: str, name: str) -> bool:
    """Whether a file of this room may have that name."""
    if room == TOP:
        return name == STORE
    return _NAME.fullmatch(name) is not None and (room != PACKS or is_spread(name[:2]))


def is_spread(name: str) -> bool:
    """Whether this is one of the directories that PACKS is spread over."""
    return _SPREAD.fullmatch(name) is not None


def check(room: str, name: str) -> None:
    """Raises ValueError for what is no name of this room."""
    if room not in ROOMS:
        raise ValueError(f"{room!r} is no room of a store")
    if not is_name(room, name):
        raise ValueError(f"{name!r} is no name of a file in {room or 'the store'}")


def shown(room: str, name: str) -> str:
    """A file, as messages name it."""
    return f"{room}/{name}" if room else name
