"""spec, features, doctor: what this runtime is and where it stands."""

import os

from ocimig import jsonio
from ocimig.cli.verbs import Call
from ocimig.errors import OcimigError


class SpecExists(OcimigError):
    """`spec` never overwrites a file that somebody may have edited."""

    message = "File config.json exists. Remove it first"

    def __init__(self, *, path: str) -> None:
        super().__init__(path=path)


class CannotWriteSpec(OcimigError):
    """The file could not be made."""

    message = "open {path}: {reason}"

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(path=path, reason=reason)


def spec(call: Call) -> int:
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
    from ocimig.runtime import features as room

    print(jsonio.dumps(room.document(), indent=4))
    return 0
