"""The root file system of a copy: its source's below, and above it what the copy writes.

    STATE/bundle/config.json   the copy's
    STATE/bundle/rootfs        where both are seen as one (overlayfs)
    STATE/layer/upper, work    what the copy wrote

All of it lies in the copy's state directory and goes with it; the mount is among the state's `mounts`, which
`delete` unmounts first. The layer below is never written to here. The kernel does not follow what others
change in it while copies run.
"""

import os
import shutil
from dataclasses import dataclass

from ocimig.migrate.clone.errors import LayerRefused
from ocimig.runtime.linux import mount


@dataclass(frozen=True, slots=True)
class Layer:
    """The places of one copy; `state` is its state directory."""

    state: str

    @property
    def bundle(self) -> str:
        """Its bundle."""
        return os.path.join(self.state, "bundle")

    @property
    def root(self) -> str:
        """Its root file system."""
        return os.path.join(self.bundle, "rootfs")

    def make(self, lower: str) -> None:
        """Lay the copy's own files over those in `lower`. Raises LayerRefused."""
        above = os.path.join(self.state, "layer")
        upper, work = os.path.join(above, "upper"), os.path.join(above, "work")
        os.makedirs(self.root, mode=0o711)
        os.mkdir(above, 0o700)
        os.mkdir(work, 0o700)
        os.mkdir(upper)
        # The root directory that the copy sees is this one.
        there = os.stat(lower)
        os.chown(upper, there.st_uid, there.st_gid)
        shutil.copystat(lower, upper)
        options = ",".join(
            f"{name}={_escaped(path)}"
            for name, path in (("lowerdir", lower), ("upperdir", upper), ("workdir", work))
        )
        try:
            mount.mount("overlay", self.root, "overlay", 0, options)
        except OSError as error:
            reason = error.strerror or str(error)
            raise LayerRefused(lower=lower, upper=upper, reason=reason) from error


def _escaped(path: str) -> str:
    """As overlayfs reads its options."""
    for sign in "\\:,":
        path = path.replace(sign, "\\" + sign)
    return path
