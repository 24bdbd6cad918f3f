"""spec and features: what this runtime starts from, and what it can do."""

import os

from ocimig import jsonio
from ocimig.cli.verbs import Call
from ocimig.errors import OcimigError


class SpecExists(OcimigError):
    """`spec` never overwrites a file that somebody may have edited."""

    message = "{reason}"

    def __init__(self, *, path: str) -> None:
        super().__init__(
            reason="File config.json exists. Remove it first", path=path
        )  # runc's words


class CannotWriteSpec(OcimigError):
    """The file could not be made."""

    message = "open {path}: {reason}"

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(path=path, reason=reason)


def spec(call: Call) -> int:
    """Write config.json."""
    from ocimig.runtime import template

    path = os.path.join(os.path.abspath(call.text("bundle") or "."), "config.json")
    text = jsonio.dumps(template.default_spec(rootless=call.flag("rootless")), indent="\t")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text + "\n")
    except FileExistsError:
        raise SpecExists(path=path) from None
    except OSError as error:
        raise CannotWriteSpec(path=path, reason=(error.strerror or str(error)).lower()) from None
    return 0


def features(call: Call) -> int:
    """Print the features document of the specification."""
    from ocimig.runtime import features as room

    print(jsonio.dumps(room.document(), indent=4))
    return 0
