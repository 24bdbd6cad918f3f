"""Id-mapped mounts: a tree that shows other owners than the file system has. mount_setattr(2), Linux 5.12.

The kernel takes the mapping from a user namespace, so one is made for it: `init` is started with a plan
that only makes the namespace, and ends when we have hold of it.
"""

import os

from ocimig.runtime import launch, steps, sync
from ocimig.runtime.errors import InitFailed
from ocimig.runtime.linux import mount
from ocimig.runtime.plan import CLONE_NEWUSER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def mapped_tree(source: steps.Source) -> int:
    """A detached copy of a tree, with the owners that the source's mappings give it."""
    flags = mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC
    flags |= mount.AT_RECURSIVE if source.recursive else 0
    tree = mount.open_tree(mount.AT_FDCWD, source.name, flags)
    try:
        apply(tree, source.mappings or {}, recursive=source.recursive)
    except BaseException:
        os.close(tree)
        raise
    return tree


def apply(tree: int, mappings: "dict[str, Any]", *, recursive: bool) -> None:
    """Map the owners of a detached tree; `mappings` has rows for "uid" and "gid" as config.json has."""
    namespace = user_namespace(
        {"uidMappings": mappings.get("uid"), "gidMappings": mappings.get("gid")}
    )
    try:
        flags = mount.AT_EMPTY_PATH | (mount.AT_RECURSIVE if recursive else 0)
        mount.mount_setattr(tree, "", flags, attr_set=mount.MOUNT_ATTR_IDMAP, userns_fd=namespace)
    finally:
        os.close(namespace)


def user_namespace(linux: "dict[str, Any]") -> int:
    """A descriptor of a new user namespace with these id maps."""
    held: list[int] = []

    def hold() -> bytes:
        launch.id_maps(maker.child, linux)
        held.append(os.open(f"/proc/{maker.child}/ns/user", os.O_RDONLY | os.O_CLOEXEC))
        return b""

    plan = [steps.unshare(CLONE_NEWUSER, "user"), steps.sync(sync.MAPS, "id maps"), steps.leave()]
    with launch.Launch(plan, handlers={sync.MAPS: hold}) as maker:
        try:
            maker.run()
        except InitFailed:
            if not held:  # it ends without a container's process: that is all it was for
                raise
    return held[0]
