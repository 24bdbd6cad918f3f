"""What can go wrong with copies of a checkpoint, in words. Only classes."""

from ocimig.errors import OcimigError


class NotClonable(OcimigError):
    """Several copies of this checkpoint cannot run on one host, or not as they were asked for."""

    message = "{image} cannot be cloned: {reason}"
    hint = "{remedy}"
    code = 14


class LayerRefused(OcimigError):
    """The kernel puts no layer over the source's root file system."""

    message = "no layer over {lower}: {reason}"
    hint = "overlayfs has to be there, and take {lower} below and {upper} above"


class NotMergeable(OcimigError):
    """Memory of copies was to be merged, and the kernel cannot."""

    message = "the memory of copies cannot be merged: {reason}"
    hint = "without --merge on they run all the same"
    code = 14


class NotCloned(OcimigError):
    """One copy could not be started; nothing of it is left."""

    message = "{reason}"
    hint = "{remedy}"

    def __init__(self, *, reason: str, remedy: str, code: int) -> None:
        super().__init__(reason=reason, remedy=remedy)
        self.code = code
