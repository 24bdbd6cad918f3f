"""The directories a checkpoint is written to: made, filled, put in place whole, or cleaned up.

CRIU writes into <image path>/.partial. Only when all is well do the files move up, the manifest last, and
an older checkpoint gives way; a dump that fails leaves the older one as it was.
"""

import errno
import os

from ocimig import files, log
from ocimig.criu_images.errors import BadImage, CriuFailed
from ocimig.criu_images.image import PARENT, CheckpointImage, Manifest
from ocimig.errors import NoSpace
from ocimig.migrate.errors import NotCheckpointable

PARTIAL = ".partial"
_LATE = ("stats-dump", "irmap-cache")  # CRIU writes them when the container runs again


class ImagePlace:
    """Where one checkpoint goes."""

    def __init__(self, image_path: str, work_path: str, parent_path: str) -> None:
        self.final = CheckpointImage(os.path.abspath(image_path))
        self.partial = CheckpointImage(self.final.path(PARTIAL))
        self.work = os.path.abspath(work_path or image_path)
        self.parent_path = parent_path
        self._made = False  # the directory itself is ours
        self._filled = False  # and its files are

    def prepare(self) -> None:
        """Make the directories. Raises NoSpace, NotCheckpointable, or BadImage about the parent."""
        self._made = not os.path.isdir(self.final.directory)
        for directory in (self.final.directory, self.partial.directory, self.work):
            try:
                if directory == self.partial.directory:
                    files.remove_tree(directory)
                os.makedirs(directory, mode=0o700, exist_ok=True)
            except OSError as error:
                raise full(error, directory) or NotCheckpointable(
                    reason=f"cannot make {directory}: {error.strerror}"
                ) from error
        if self.parent_path:
            above = os.path.normpath(os.path.join(self.final.directory, self.parent_path))
            if not CheckpointImage(above).exists():
                raise BadImage(path=above, reason="it is no finished checkpoint to build on")

    def finish(self, manifest: Manifest, *, seal: bool) -> None:
        """Seal (unless somebody else will) and put everything where it was asked for; once."""
        if self._filled:
            return
        if os.path.lexists(self.partial.path(PARENT)):
            # CRIU made it one directory deeper than it is going to be
            os.unlink(self.partial.path(PARENT))
            os.symlink(self.parent_path, self.partial.path(PARENT))
        if seal:
            self.partial.seal(manifest)
        self.final.remove_files()
        self._filled = True
        self.partial.move_to(self.final)

    def take_late_files(self) -> None:
        """What CRIU wrote last follows, and the scratch directory goes."""
        for name in _LATE:
            if os.path.exists(self.partial.path(name)):
                os.rename(self.partial.path(name), self.final.path(name))
        try:
            os.rmdir(self.partial.directory)
        except OSError as error:
            log.debug(f"{self.partial.directory}: {error}")

    def clean(self) -> None:
        """After a failure: the images go, the log stays, and an older checkpoint if it is still there."""
        try:
            files.remove_tree(self.partial.directory)
            if self._filled:
                self.final.remove_files()
            if self._made:
                os.rmdir(self.final.directory)  # stays when the log is in it
        except OSError as error:
            log.debug(f"{self.final.directory}: {error}")


def full(error: BaseException, path: str) -> NoSpace | None:
    """NoSpace when that is what it was, said by the kernel to us or to CRIU."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(path=path)
    if isinstance(error, CriuFailed) and str(error.fields.get("cause", "")).startswith("no space"):
        return NoSpace(path=path)
    return None
