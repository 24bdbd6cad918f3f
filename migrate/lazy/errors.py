"""What can go wrong with memory that comes late, in words. Only classes."""

from ocimig.errors import OcimigError


class StillFilling(OcimigError):
    """Not all memory of a container has come since it was restored, and it should be saved again."""

    message = "memory of container {id} is still coming, {seconds} s after it was asked for"
    hint = "wait; how fast it comes depends on this host and, after --post-copy, on the link"
    code = 20
