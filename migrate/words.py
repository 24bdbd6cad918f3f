"""What the far side reads out of a frame and how it says an error. Never sends or receives."""

import errno
from typing import Any

from ocimig import jsonio
from ocimig.errors import NoSpace, OcimigError, SystemFailure
from ocimig.migrate.errors import BrokenFrame
from ocimig.migrate.wire import Frame


def document(frame: Frame) -> dict[str, Any]:
    """The payload of a frame whose document may be larger than a header."""
    try:
        value = jsonio.loads(frame.payload)
    except ValueError as error:
        raise BrokenFrame(host="the source", reason=f"{frame.kind}: {error}") from None
    if not isinstance(value, dict):
        raise BrokenFrame(host="the source", reason=f"{frame.kind} is not an object")
    return value


def of(error: OSError) -> OcimigError:
    """An error of the kernel that nobody expected, as one that the source can show."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(path=error.filename or "its disk")
    return SystemFailure.of("the migration", error)
