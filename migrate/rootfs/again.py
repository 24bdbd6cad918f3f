"""A second look at a tree, at those names only that its watch and its processes make doubtful."""

import errno
import os
import stat
import time
from collections.abc import Collection

from ocimig.migrate.rootfs.index import Entry, Index, descend, entry_of
from ocimig.migrate.rootfs.paths import Directories, split
from ocimig.migrate.rootfs.watch import Watch

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def look_again(
    root: int,
    index: Index,
    watch: Watch,
    doubtful: Collection[int],
    only: Collection[str],
    skip: Collection[str],
) -> tuple[Index, list[str]]:
    """Bring `index` up to date; what it said before of the names looked at, and those names.

    `doubtful` are inodes. What it costs depends on how many names that is, except where a directory
    went away: then every name is compared with it once.
    """
    again = _Again(root, index, watch, only, skip)
    again.look(watch.begin() | watch.names(doubtful))
    again.look(again.peers())
    looked = sorted(again.before)  # so that a directory comes before what is in it
    before = Index(links=index.links)
    for path in looked:
        if (entry := again.before[path]) is not None:
            before.entries[path] = entry
    return before, looked


class _Again:
    def __init__(
        self,
        root: int,
        index: Index,
        watch: Watch,
        only: Collection[str],
        skip: Collection[str],
    ) -> None:
        self.before: dict[str, Entry | None] = {}  # by every name that was looked at
        self._root = root
        self._index = index
        self._watch = watch
        self._only = only
        self._skip = skip
        self._device = os.fstat(root).st_dev

    def look(self, names: Collection[str]) -> None:
        """At these names, and below those that are directories now and were none, or another."""
        directories = Directories(self._root)
        new: list[str] = []
        gone: set[str] = set()
        try:
            for path in sorted(names):
                if path in self.before or not self._ours(path):
                    continue
                entry = self._entry(directories, path)
                old = self._set(path, entry)
                was = old is not None and stat.S_ISDIR(old.mode)
                now = entry is not None and stat.S_ISDIR(entry.mode)
                other = entry is not None and old is not None and entry.inode != old.inode
                if was and (not now or other or path in self._watch.deep):
                    gone.add(path)
                if now and (not was or other or path in self._watch.deep):
                    new.append(path)
        finally:
            directories.forget()
        if gone:
            self._drop(gone)
        self._descend(new)

    def peers(self) -> set[str]:
        """The other names of files that have several."""
        several = {
            entry.inode
            for path, old in self.before.items()
            for entry in (old, self._index.entries.get(path))
            if entry is not None and entry.links > 1 and not stat.S_ISDIR(entry.mode)
        }
        return self._watch.names(several) if several else set()

    def _ours(self, path: str) -> bool:
        """Whether a look at everything would have come to this name."""
        if not path:
            return not self._only
        if self._only and path.partition("/")[0] not in self._only:
            return False
        return not any(path == each or path.startswith(each + "/") for each in self._skip)

    def _entry(self, directories: Directories, path: str) -> Entry | None:
        """What it is now; None when it is not there."""
        parent, name = split(path)
        try:
            status = (
                os.stat(name, dir_fd=directories.open(parent), follow_symlinks=False)
                if path
                else os.fstat(self._root)
            )
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise
        return entry_of(status, time.time_ns())

    def _set(self, path: str, entry: Entry | None) -> Entry | None:
        """Put it into the index; what was there before this look began."""
        entries = self._index.entries
        old = entries.get(path)
        self.before.setdefault(path, old)
        if entry is None:
            entries.pop(path, None)
        else:
            entries[path] = entry
        return old

    def _drop(self, gone: set[str]) -> None:
        """Forget all below these directories; those that are there again are entered anew."""
        entries = self._index.entries
        for path in list(entries):  # a directory comes before what is in it
            if split(path)[0] in gone and path:
                gone.add(path)
                self._set(path, None)
        self._index.skipped = [
            path for path in self._index.skipped if path not in gone and split(path)[0] not in gone
        ]

    def _descend(self, new: list[str]) -> None:
        """Everything below directories that were not known."""
        found = Index()
        for path in new:
            entry = self._index.entries.get(path)
            if entry is None or path in found.entries:  # it was below another one
                continue
            if entry.device != self._device:
                self._index.skipped.append(path)
            else:
                descend(self._root, [path], found, skip=self._skip, watch=self._watch)
        for path, entry in found.entries.items():
            self._set(path, entry)
        self._index.skipped += found.skipped
