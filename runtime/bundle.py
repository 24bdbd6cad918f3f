"""A bundle: where its config.json and its root file system are. Never writes to it."""

import os

from ocimig.runtime import validate
from ocimig.runtime.errors import CannotRunHere, NoBundle, NoRootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load_spec(bundle: str, config: str = "") -> "dict[str, Any]":
    """The configuration of a bundle, checked to be one of a container that can be made."""
    if not os.path.isdir(bundle):
        reason = "is not a directory" if os.path.exists(bundle) else "does not exist"
        raise NoBundle(path=bundle, reason=reason)
    spec = validate.load(config or os.path.join(bundle, "config.json"))
    if not spec.get("process"):
        raise CannotRunHere(what="process", reason="config.json has none", advice="add what to run")
    return spec


def rootfs_of(spec: "dict[str, Any]", bundle: str) -> str:
    """The root file system as an absolute path, links resolved. Raises NoRootfs."""
    path = os.path.realpath(os.path.join(bundle, spec["root"]["path"]))
    if not os.path.isdir(path):
        reason = "is not a directory" if os.path.exists(path) else "does not exist"
        raise NoRootfs(path=path, reason=reason)
    return path
