"""What can go wrong with memory on its way, in words. Only classes."""

from ocimig.errors import OcimigError


class NeverConverged(OcimigError):
    """The container writes faster than its memory travels, and was not to be frozen for so long."""

    message = "container {id}: its memory never fits into the blackout that is allowed: {reason}"
    hint = "allow more by --max-downtime, slow it down by --auto-converge, or --on-timeout stop"
    code = 20


class MemoryUnaccounted(OcimigError):
    """CRIU left memory out of a dump that nobody asked it to leave out."""

    message = "criu left out memory of process {pid}, which is not one of the container's"
    hint = "the container runs on; please report this with the log of criu"
    code = 20


class CannotSlowDown(OcimigError):
    """The container's share of the processor cannot be limited."""

    message = "the container cannot be slowed down: {reason}"
    hint = (
        "leave out --auto-converge; --max-downtime and --timeout say when it is frozen all the same"
    )


class MemoryGone(OcimigError):
    """Pages of a frozen process could not be read: the migration goes back."""

    message = "{pages} pages of memory cannot be read"
    hint = "migrate it with --tracker none, which leaves all memory to CRIU"
    code = 20


class MemoryMissing(OcimigError):
    """The images call pages lazy that the destination does not have: it must not run there."""

    message = "{pages} pages of {space} never arrived"
    hint = "nothing is lost, the source still has them; try again"
    code = 20


class MemoryLost(OcimigError):
    """A container ran after --post-copy, and the rest of its memory can come no more."""

    message = "container {id} was ended: {reason}"
    hint = (
        "it is held where it came from, as it was when it was frozen; there: "
        "ocimig migrate --resume --assume-destination-dead {id}"
    )
    code = 21


class NoTracker(OcimigError):
    """The way to follow writes that was asked for does not work here."""

    message = "memory cannot be followed by tracker {name!r}: {reason}"
    hint = "leave out --tracker: the best one that works here is taken"
    code = 20

    def __init__(self, *, name: str, reason: str) -> None:
        super().__init__(name=name, reason=reason)


class MappingsChanged(OcimigError):
    """A process changed how its memory is mapped in the moment before the freeze, unseen."""

    message = "process {pid} changed its mappings in the moment before the freeze"
    hint = "the container runs on; try again"
    code = 20
