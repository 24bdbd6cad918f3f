"""What runc and crun left out of CRIU's images, in ocimig's own terms. Pure.

They name an external mount by its destination, a masked file by /dev/null, a device by its path
(libcontainer/criu_linux.go): the name alone tells what has to be bound there again.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ocimig.criu_images.mounts import LeftMount
from ocimig.migrate.external import External

_ATTRIBUTES = {"ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"}
_NULL = "/dev/null"


def in_own_terms(
    left: Iterable[LeftMount], spec: Mapping[str, Any]
) -> tuple[list[External], list[str]]:
    """The external mounts, and the targets of those of which nobody knows what they were.

    The sources of binds are left empty: they are decided by others.
    """
    mounts = {_normal(mount.get("destination")): mount for mount in spec.get("mounts") or []}
    found: dict[str, External] = {}
    unknown = []
    for mount in left:
        made = _external(mount, mounts)
        if made is None:
            unknown.append(mount.target)
        else:
            found.setdefault(made.key, made)
    return list(found.values()), unknown


def _external(left: LeftMount, mounts: Mapping[str, Mapping[str, Any]]) -> External | None:
    if not left.key.startswith("/"):
        return None
    if left.key == _NULL:
        return External(left.key, "null", left.target)
    target = _normal(left.key)
    known = mounts.get(target)
    if known is not None and is_bind(known):
        return External(left.key, "bind", target, attributes=_attributes(known))
    if known is not None and known.get("type") in ("cgroup", "cgroup2"):
        return External(
            left.key, "cgroup", target, controller="unified", attributes=_attributes(known)
        )
    parent, name = os.path.split(target)
    above = mounts.get(parent)
    if above is not None and above.get("type") == "cgroup":
        controller = "name=systemd" if name == "systemd" else name.partition(",")[0]
        return External(
            left.key, "cgroup", target, controller=controller, attributes=_attributes(above)
        )
    return None


def is_bind(mount: Mapping[str, Any]) -> bool:
    """Whether a mount of config.json is one of something that is there already."""
    words = mount.get("options") or []
    return mount.get("type") == "bind" or "bind" in words or "rbind" in words


def _attributes(mount: Mapping[str, Any]) -> tuple[str, ...]:
    words = {str(word) for word in mount.get("options") or []}
    kept = words & _ATTRIBUTES
    if not words & {"noatime", "strictatime"}:
        kept.add("relatime")  # the kernel's own choice
    return tuple(sorted(kept))


def _normal(path: object) -> str:
    return os.path.normpath("/" + str(path or "").lstrip("/"))
