"""Places at which a test may have something happen, by one environment variable. Off in normal use.

    OCIMIG_FAILPOINT=<side>:<point>            die there, as by kill -9
    OCIMIG_FAILPOINT=<side>:<point>=<path>     make the file, and go on when it is gone (after a minute at
                                               the latest): whoever watches may do anything meanwhile
    side     source | destination
    point    <record>:before | <record>:after      of a line of the journal
             <kind>:sent | <kind>:received         of a frame on the main link

Records are upper case, kinds of frames lower case. Tests make their matrix from phases.py and wire.md.
"""

import os
import signal
import time

VARIABLE = "OCIMIG_FAILPOINT"
_LONGEST = 60.0  # seconds that a forgotten test may hold a container frozen
_TICK = 0.002

_point, _, _path = os.environ.get(VARIABLE, "").partition("=")


def here(side: str, point: str) -> None:
    """This is that place."""
    if not _point or f"{side}:{point}" != _point:
        return
    if not _path:
        os.kill(os.getpid(), signal.SIGKILL)
    end = time.monotonic() + _LONGEST
    with open(_path, "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    while os.path.exists(_path) and time.monotonic() < end:
        time.sleep(_TICK)
