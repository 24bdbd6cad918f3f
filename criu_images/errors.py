"""What can go wrong between us and CRIU, or with images. Each class is one situation."""

from ocimig.errors import OcimigError


class CriuMissing(OcimigError):
    """No CRIU program was found, or not the Python messages that belong to it."""

    message = "criu cannot be used: {reason}"
    hint = "run contrib/install-criu, or name the program in OCIMIG_CRIU"


class CriuFailed(OcimigError):
    """CRIU gave up: the line of its log that matters, what it means, and where the log is."""

    message = "criu {step} failed: {cause}"
    hint = "{remedy}"

    def __init__(
        self, *, step: str, cause: str, remedy: str = "", log: str = "", number: int = 0
    ) -> None:
        where = f"log file: {log}" if log else ""
        hint = "; ".join(part for part in (remedy, where) if part)
        super().__init__(step=step, cause=cause, remedy=hint, log=log, number=number)


class CriuDied(OcimigError):
    """The CRIU process ended without an answer."""

    message = "criu {step} ended without an answer ({how})"
    hint = "log file: {log}"


class CriuStuck(OcimigError):
    """CRIU did not make progress, or wrote without end, and was killed."""

    message = "criu {step} was killed: {reason}"
    hint = "log file: {log}"


class BadOption(OcimigError):
    """CRIU, or this kernel, cannot do what an option asks for."""

    message = "{option}: {reason}"
    hint = "{remedy}"
    code = 1

    def __init__(self, *, option: str, reason: str, remedy: str = "") -> None:
        super().__init__(option=option, reason=reason, remedy=remedy)


class BadImage(OcimigError):
    """A checkpoint is not what its manifest says, or has none."""

    message = "checkpoint {path} cannot be used: {reason}"
    code = 12
    hint = "take it from a good copy; nothing was started"


class NoProcess(OcimigError):
    """A checkpoint has no process of that number."""

    message = "there is no process {pid} in {path}"
    hint = "see: ocimig inspect {path}"
    code = 10


class MemoryElsewhere(OcimigError):
    """Memory was asked for that is not in the images."""

    message = "page {address} of process {pid} is not in {path}: {reason}"
    hint = "read it where it is held, or ask for another range"
    code = 1


class NoMapping(OcimigError):
    """A process has no memory where, or under the name, that was asked for."""

    message = "process {pid} has no memory {what}"
    hint = "see: ocimig memory {path} -p {pid} --list"
    code = 10


class NoCore(OcimigError):
    """A core file cannot be made of this process."""

    message = "no core file can be made of process {pid}: {reason}"
    code = 1
