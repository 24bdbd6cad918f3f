"""Do what was planned, below one directory: all of it, or nothing is left. The only file that unpacks.

Every name is opened from a descriptor of the directory with openat2(BENEATH, NO_SYMLINKS, NO_MAGICLINKS) and
made with O_EXCL: neither what the archive holds nor what somebody plants meanwhile leads outside.
"""

import errno
import os
import stat

from ocimig import files, log
from ocimig.errors import NoSpace, OcimigError
from ocimig.migrate.archive.errors import ArchiveChanged, CannotUnpack
from ocimig.migrate.archive.headers import Reader
from ocimig.migrate.archive.members import (
    CHARACTER,
    DEVICE,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    SOCKET,
    SYMLINK,
    Member,
)
from ocimig.migrate.archive.packing import Unpacked
from ocimig.migrate.archive.planning import Digest, Plan, Step, plan_of
from ocimig.migrate.rootfs import metadata, paths, records
from ocimig.migrate.rootfs.paths import Directories

_KINDS = {FILE: records.REGULAR, DIRECTORY: records.DIRECTORY, SYMLINK: records.SYMLINK,
          CHARACTER: records.CHARACTER, DEVICE: records.BLOCK, FIFO: records.FIFO,
          SOCKET: records.SOCKET}  # fmt: skip
_NODES = {CHARACTER: stat.S_IFCHR, DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO, SOCKET: stat.S_IFSOCK}
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HERE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def extract(fd: int, plan: Plan, directory: str) -> list[str]:
    """Unpack into a directory that does not exist yet; what could not be kept, in words.

    Raises ArchiveChanged where the archive is not the one that was planned, CannotUnpack, NoSpace: the
    directory is gone then.
    """
    try:
        os.mkdir(directory, 0o700)
    except OSError as error:
        raise _failure(error, plan, directory, "", "nothing was written") from None
    try:
        with files.Fd(os.open(directory, _HERE)) as root:
            return Unpacking(root, plan, left=f"{directory} was removed").run(fd)
    except BaseException:
        try:
            files.remove_tree(directory)
        except OSError as error:
            log.warning(f"{directory} could not be removed: {error}")
        raise


class Unpacking:
    """The steps of one plan below the open directory `root`.

    With `over` what is there already gives way to what comes (a directory to a directory only in its
    owner, mode and so on); otherwise it is an error. `left` says what is left after a failure.
    """

    def __init__(self, root: int, plan: Plan, *, left: str, over: bool = False) -> None:
        self._root = root
        self._plan = plan
        self._left = left
        self._over = over
        self._directories = Directories(root)
        self._finished: dict[str, Member] = {}  # directories: their times are set last
        self._notes: list[str] = []

    def run(self, fd: int) -> list[str]:
        """All steps; what could not be kept, in words."""
        plan = self._plan
        limits = plan.rules.limits
        reader = Reader(Unpacked(fd, limits, plan.shown), limits, plan.shown)
        try:
            for step in plan_of(reader.members(), plan):
                self._do(step, reader)
            for path, member in reversed(self._finished.items()):
                self._notes += metadata.apply(self._record(member), self._directories.open(path))
        finally:
            self._directories.forget()
        return self._notes

    def _do(self, step: Step, reader: Reader) -> None:
        path = os.fsdecode(step.member.path)
        try:
            if step.act == "make":
                self._make(step, path, reader)
            elif step.act == "remove":
                self._remove(path)
            else:
                self._directories.forget()
                paths.empty(self._directories.open(path), os.fstat(self._root).st_dev)
        except OcimigError:
            raise
        except OSError as error:
            raise _failure(error, self._plan, self._plan.shown, path, self._left) from None

    def _make(self, step: Step, path: str, reader: Reader) -> None:
        member = step.member
        if member.type == DIRECTORY:
            self._directory(path)
            self._finished.pop(path, None)
            self._finished[path] = member
            return
        parent, name = paths.split(path)
        directory = self._parents(parent)
        if self._over:
            self._remove(path)
            directory = self._parents(parent)
        if member.type == FILE:
            self._file(step, directory, name, reader)
        elif member.type == HARD_LINK:
            above, old = paths.split(os.fsdecode(member.target))
            source = self._directories.open(above)
            os.link(old, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        else:
            if member.type == SYMLINK:
                os.symlink(member.target, name, dir_fd=directory)
            else:
                device = os.makedev(member.major, member.minor)
                os.mknod(name, _NODES[member.type] | 0o600, device, dir_fd=directory)
            self._notes += metadata.apply(self._record(member), directory, name)

    def _file(self, step: Step, directory: int, name: str, reader: Reader) -> None:
        member = step.member
        digest = Digest()
        with files.Fd(os.open(name, _NEW, 0o600, dir_fd=directory)) as file:
            for offset, data in reader.data():
                digest.add(offset, data)
                view = memoryview(data)
                while view:
                    written = os.pwrite(file, view, offset)
                    view, offset = view[written:], offset + written
            if digest.end(member.size) != step.digest:
                raise ArchiveChanged(path=self._plan.shown, reason=f"{member.shown} differs")
            os.ftruncate(file, member.size)
            self._notes += metadata.apply(self._record(member), file)

    def _directory(self, path: str) -> None:
        if not path:
            return
        parent, name = paths.split(path)
        directory = self._parents(parent)
        try:
            os.mkdir(name, 0o700, dir_fd=directory)
        except FileExistsError:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                return
            if not self._over:
                raise
            self._remove(path)
            os.mkdir(name, 0o700, dir_fd=self._parents(parent))

    def _record(self, member: Member) -> records.Record:
        return _record(member, ours=not self._plan.rules.rootfs)

    def _parents(self, path: str) -> int:
        """The directory, made where the archive does not say how."""
        try:
            return self._directories.open(path)
        except FileNotFoundError:
            parent, name = paths.split(path)
            os.mkdir(
                name, 0o755 if self._plan.rules.rootfs else 0o700, dir_fd=self._parents(parent)
            )
            return self._directories.open(path)

    def _remove(self, path: str) -> None:
        parent, name = paths.split(path)
        try:
            directory = self._directories.open(parent)
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            self._directories.forget()
            directory = self._directories.open(parent)
        paths.remove(directory, name)


def _record(member: Member, *, ours: bool) -> records.Record:
    """As the rest of the program writes it: owner, mode, attributes, times."""
    uid, gid = (os.geteuid(), os.getegid()) if ours else (member.uid, member.gid)
    return records.Record(
        _KINDS[member.type], member.path, mode=member.mode, uid=uid, gid=gid,
        mtime_ns=member.mtime_ns, atime_ns=member.mtime_ns, attributes=list(member.attributes),
    )  # fmt: skip


def _failure(error: OSError, plan: Plan, where: str, member: str, left: str) -> OcimigError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(path=where)
    reason = error.strerror or str(error)
    if error.errno in (errno.ELOOP, errno.EXDEV, errno.ENOTDIR):
        reason = "it is, or leads through, a link"
    return CannotUnpack(path=plan.shown, member=member or where, reason=reason, left=left)
