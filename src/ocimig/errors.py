"""What can go wrong, in words for people. Never prints and never exits: `cli` does."""


class OcimigError(Exception):
    """Base of every expected error.

    A subclass is one situation. `message` is its template, formatted with the keyword arguments of
    the constructor; `hint` is one line that says what to do (also a template, may be empty); `code`
    is the exit code of `ocimig`'s own verbs (verbs taken over from runc exit as runc does).
    Every field is kept as an attribute of `fields`.
    """

    message = "{reason}"
    hint = ""
    code = 1

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        super().__init__(self.message.format(**fields))

    @property
    def advice(self) -> str:
        """The hint with its fields filled in, or an empty string."""
        return self.hint.format(**self.fields)


class Usage(OcimigError):
    """The command line is not one that ocimig understands."""

    message = "{reason}"
    hint = "see: ocimig {verb} --help"
    code = 2

    def __init__(self, *, reason: str, verb: str = "") -> None:
        super().__init__(reason=reason, verb=verb)


class SystemFailure(OcimigError):
    """The kernel refused a call that was expected to work."""

    message = "{what}: {reason}"

    @classmethod
    def of(cls, what: str, error: OSError) -> "SystemFailure":
        """Name what was being done when `error` came, keeping the file it names."""
        reason = error.strerror or str(error)
        if error.filename is not None and str(error.filename) not in what:
            reason = f"{error.filename}: {reason}"
        return cls(what=what, reason=reason)


class NoSpace(OcimigError):
    """A file system is full."""

    message = "no space left on {path}"
    hint = "free space there, or name another directory"
    code = 15


class Interrupted(OcimigError):
    """The person stopped the command."""

    message = "interrupted: {state}"
    code = 130
