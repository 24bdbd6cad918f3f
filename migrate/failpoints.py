"""Places at which a test may have something happen, by environment variables. Off in normal use.

    OCIMIG_FAILPOINT=<place>           die there, as by kill -9
    OCIMIG_FAILPOINT=<place>=<path>    make the file, and go on when it is gone (after a minute at the
                                       latest): whoever watches may do anything meanwhile
    OCIMIG_FAILPOINT=<place>=errno:<n> raise that OSError there: 28 is a full disk
    OCIMIG_FAILPOINT=every=<path>      do that at each place, the first time that it is come by; the
                                       file holds the process and the place
    OCIMIG_PATIENCE=<seconds>          nothing waits longer for the other side, or with <share>% only that
                                       part of it: for tests of what is cut off

    place    <side>:<point>, and for a frame also <side>:<record>/<point>: the first after that record
    side     source | destination | group | coordinator
    point    <record>:before | <record>:after      of a line of the journal
             <kind>:sent | <kind>:received         of a frame on the main link

`member<N>.<place>` is that place in the Nth of several that move together only.
`store:<ROOM>-<ACT>-<N>:before` is the Nth time in this process that a store is about to do that in one of
its rooms: WRITE, SYNC, MKDIR, RENAME, SYNC-DIRECTORY, UNLINK (STORE is the room of STORE itself).
`destination:unlocking` and `destination:unlocked` are around the moment its network opens.
`backup:frozen` is when all but what was put aside is saved, with the container still frozen.
Records are upper case, kinds of frames lower case. Each place acts once in a process. The matrix of
the tests is what `every` came by, held against the tables of phases.py.
"""

import os
import signal
import time

VARIABLE = "OCIMIG_FAILPOINT"
PATIENCE = "OCIMIG_PATIENCE"
EVERY = "every"
_ERRNO = "errno:"
_LONGEST = 60.0  # seconds that a forgotten test may hold a container frozen
_TICK = 0.002

_wanted, _, _path = os.environ.get(VARIABLE, "").partition("=")
_record = ""  # the last one that this process wrote
_came_by: set[str] = set()


def patience(seconds: float) -> float:
    """So many seconds, or what the environment leaves of them."""
    wanted = os.environ.get(PATIENCE, "")
    if wanted.endswith("%"):
        return seconds * float(wanted[:-1]) / 100
    return min(seconds, float(wanted or seconds))


def here(side: str, point: str) -> None:
    """This is that place."""
    if _wanted and side:
        _reach(side, point)


def _reach(side: str, point: str) -> None:
    global _record
    name, _, moment = point.partition(":")
    place = f"{side}:{point}"
    exact = place if name.isupper() else f"{side}:{_record}/{point}"
    if moment == "after":
        _record = name
    if _wanted not in (EVERY, place, exact) or exact in _came_by or place in _came_by:
        return
    _came_by.add(exact if _wanted == EVERY else _wanted)
    if not _path:
        os.kill(os.getpid(), signal.SIGKILL)
    if _path.startswith(_ERRNO):
        number = int(_path.removeprefix(_ERRNO))
        raise OSError(number, os.strerror(number))
    end = time.monotonic() + _LONGEST
    with open(f"{_path}.new", "w", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {exact}")
    os.rename(f"{_path}.new", _path)
    while os.path.exists(_path) and time.monotonic() < end:
        time.sleep(_TICK)


def member(number: int) -> None:
    """This process moves the container of that number, from 1, of those that move together."""
    global _wanted
    _wanted = _wanted.removeprefix(f"member{number}.")
