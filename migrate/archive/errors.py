"""What can go wrong with an archive, in words. Only classes."""

from ocimig.errors import OcimigError


class ArchiveBroken(OcimigError):
    """An archive ends early, or is not one."""

    message = "{path} cannot be read as an archive: {reason}"
    hint = "fetch it again; nothing was changed here"


class ArchiveRefused(OcimigError):
    """A member of an archive would do harm, or is larger than an archive may be."""

    message = "{path} is refused: {reason}"
    hint = "it is broken or means harm; nothing was written. See: ocimig archive show {path}"


class ArchiveChanged(OcimigError):
    """An archive was read twice and was not the same."""

    message = "{path} changed while it was read: {reason}"
    hint = "see who writes to it, then try again; what was unpacked of it was removed"
    code = 12


class NotSigned(OcimigError):
    """A signature was asked for, and there is none."""

    message = "{path} is not signed"
    hint = "make it with: ocimig checkpoint --export FILE --sign KEY"
    code = 12


class BadSignature(OcimigError):
    """The signature is not one of that person for what the archive holds."""

    message = "the signature of {path} does not hold: {reason}"
    hint = "nothing was unpacked; ask who made it, and compare their key with the line in {signers}"
    code = 12


class ManifestMismatch(OcimigError):
    """The members of an archive are not those that its manifest names."""

    message = "{path} is not what its manifest says: {reason}"
    hint = "it was changed after it was made; nothing was unpacked"
    code = 12


class CannotSign(OcimigError):
    """ssh-keygen made no signature."""

    message = "cannot sign with {key}: {reason}"
    hint = "try: ssh-keygen -Y sign -n ocimig-checkpoint -f {key} < /etc/hostname"
    code = 12


class NoCheckpoint(OcimigError):
    """An archive is well-formed and holds no checkpoint."""

    message = "{path} holds no checkpoint of a container: {reason}"
    hint = "ocimig reads what podman, CRI-O and ocimig write; see: ocimig archive show {path}"


class NotGranted(OcimigError):
    """A checkpoint cannot be restored without things of this host that nobody granted."""

    message = "{path} asks for what was not granted: {asked}"
    hint = "look at it with --plan; then, if you trust who made it: {remedy}"
    code = 12


class CannotExport(OcimigError):
    """An archive could not be made; the container runs on, or its checkpoint directory is kept."""

    message = "cannot write {path}: {reason}"
    hint = "{remedy}"

    def __init__(self, *, path: str, reason: str, remedy: str = "") -> None:
        super().__init__(path=path, reason=reason, remedy=remedy)


class CannotUnpack(OcimigError):
    """A file of an archive could not be made here."""

    message = "cannot unpack {member} of {path}: {reason}"
    hint = "{left}"

    def __init__(self, *, path: str, member: str, reason: str, left: str) -> None:
        super().__init__(path=path, member=member, reason=reason, left=left)
