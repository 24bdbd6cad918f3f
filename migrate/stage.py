"""Where CRIU restores: a mount namespace of its own, in which we lay out what it binds from.

Nothing that is mounted here can be left on the host: the namespace ends with CRIU. /run is a fresh tmpfs
in it, for CRIU's cache of kernel facts, and so is /tmp, for its scratch directories, once CRIU itself
(which may lie there) is loaded.

    /run/ocimig/root    the container's root file system
    /run/ocimig/<key>   the source of each external mount (runc names them by path: / becomes %)
    /run/ocimig/images  the images, for a container with mapped users (see add_images)
"""

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from ocimig import files
from ocimig.criu_images.image import Manifest
from ocimig.files import Fd
from ocimig.migrate import tmpfs
from ocimig.migrate.errors import MountGone, RestoreFailed
from ocimig.migrate.external import External
from ocimig.runtime.linux import mount, namespaces, openat2

DIRECTORY = "/run/ocimig"
ROOT = f"{DIRECTORY}/root"
IMAGES = f"{DIRECTORY}/images"
_SMALL = 64 << 20
CLONE = mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def enter(*, cgroup_namespace: Callable[[], None] | None = None) -> None:
    """In the process that becomes CRIU: leave the host's mount namespace.

    `cgroup_namespace` puts the process into the container's cgroup first: CRIU leaves cgroups to us,
    and its children inherit the namespace rooted there.
    """
    if cgroup_namespace is not None:
        cgroup_namespace()
        namespaces.unshare(namespaces.CLONE_NEWCGROUP)
    namespaces.unshare(namespaces.CLONE_NEWNS)
    # A slave: the container's own slave mounts go on receiving what the host mounts.
    mount.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE)
    _cover("/run")
    os.mkdir(DIRECTORY)
    os.chmod(DIRECTORY, 0o711)  # a mapped root looks in too; nobody else is in this namespace


def place_of(key: str) -> str:
    """Where the source of an external mount lies in CRIU's namespace."""
    return f"{DIRECTORY}/{key.replace('/', '%')}"


def _cover(path: str) -> None:
    mount.mount("tmpfs", path, "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, "mode=755")
    mount.mount(None, path, None, mount.MS_PRIVATE)


class Sources:
    """Mounts made on the host and put into CRIU's namespace, as many as possible before the images come.

    What was put there from what is only foreseen is compared with what the images say, and with what is
    at its path by then (a file may have been replaced); what differs is put there again.
    """

    def __init__(self) -> None:
        self._mounts: dict[str, int] = {}  # made, not yet attached
        self._inside: dict[str, int] = {}  # files mounted below /run/ocimig/images
        self._placed: dict[str, object] = {}  # key -> what it was made from
        self._covered = False

    def close(self) -> None:
        """Forget what was not attached."""
        for fd in [*self._mounts.values(), *self._inside.values()]:
            os.close(fd)
        self._mounts.clear()
        self._inside.clear()

    def add_root(self, path: str, *, slave: bool) -> None:
        """The root file system; private, or what CRIU mounts on it would appear on the host."""
        made_from = (_identity(path), slave)
        if self._placed.get("root") == made_from:
            return
        self._take("root", mount.open_tree(mount.AT_FDCWD, path, CLONE), made_from)
        kind = mount.MS_SLAVE if slave else mount.MS_PRIVATE
        mount.mount_setattr(self._mounts["root"], "", mount.AT_EMPTY_PATH, propagation=kind)

    def add(self, externals: Iterable[External], where: "Places", *, early: bool = False) -> None:
        """A source for every external mount. Raises MountGone naming all that are missing.

        `early` passes over what is not there yet or fails: it is asked for again.
        """
        missing = []
        for item in externals:
            try:
                made_from = (item, _identity(_path(item, where)))
                if self._placed.get(item.key) == made_from:
                    continue
                self._take(item.key, _source(item, where), made_from)
                _set_attributes(self._mounts[item.key], item)
            except FileNotFoundError as error:
                missing.append(str(error.filename or item.source))
            except OSError as error:
                if not early:
                    reason = f"mount {item.target}: {error.strerror}"
                    raise RestoreFailed(reason=reason) from error
                self._drop(item.key)
        if missing and not early:
            raise MountGone(paths=", ".join(sorted(set(missing))))

    def _take(self, key: str, fd: int, made_from: object) -> None:
        self._drop(key)
        self._mounts[key] = fd
        self._placed[key] = made_from

    def _drop(self, key: str) -> None:
        if key in self._mounts:
            os.close(self._mounts.pop(key))
        self._placed.pop(key, None)

    def add_images(self, directory: str, manifest: Manifest, linux: Mapping[str, Any]) -> None:
        """The images as the processes of a user namespace may read them.

        CRIU's own task opens them first as root and later as the mapped root, and files of mode 0600
        have one owner. So the small ones are copied to a tmpfs that only CRIU's namespace shows, and
        the memory, which is read late, is bound there with its owner mapped. On disk nothing changes.
        """
        if manifest.parent is not None:
            reason = "a checkpoint with a parent and mapped users cannot be restored"
            raise RestoreFailed(reason=reason)
        fd = self._mounts["images"] = _tmpfs(External("images", "tmpfs", "", options=("mode=755",)))
        with Fd(os.open(".", _FLAGS, dir_fd=fd)) as copy:
            for name in manifest.files:
                path = os.path.join(directory, name)
                if name.startswith("pages-") and os.stat(path).st_size:
                    self._inside[name] = _mapped(path, linux)
                    data = b""
                else:
                    data = files.read(path, limit=_SMALL)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with Fd(os.open(name, flags, 0o600, dir_fd=copy)) as file:
                    os.fchmod(file, 0o644)
                    files.write_all(file, data)

    def paths(self, externals: Iterable[External]) -> Mapping[str, str]:
        """key of an external mount -> its source in CRIU's namespace."""
        return {item.key: place_of(item.key) for item in externals}

    def attach(self, pid: int) -> None:
        """Put what was added since in place in the mount namespace of `pid`."""
        if self._mounts or not self._covered:
            with Fd(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
                in_mount_namespace(namespace, self._attach)
        self.close()

    def _attach(self) -> None:
        if not self._covered:
            _cover("/tmp")
            self._covered = True
        for key, fd in self._mounts.items():
            target = place_of(key)
            directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            if os.path.lexists(target):
                mount.umount2(target, mount.MNT_DETACH)
                (os.rmdir if os.path.isdir(target) else os.unlink)(target)
            if directory:
                os.mkdir(target, 0o700)
            else:
                os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            mount.move_mount(fd, "", mount.AT_FDCWD, target, mount.MOVE_MOUNT_F_EMPTY_PATH)
        for name, fd in self._inside.items():
            target = f"{IMAGES}/{name}"
            mount.move_mount(fd, "", mount.AT_FDCWD, target, mount.MOVE_MOUNT_F_EMPTY_PATH)


def _identity(path: str) -> tuple[int, int] | None:
    """What is at a path now, by device and inode."""
    if not path:
        return None
    info = os.stat(path)
    return info.st_dev, info.st_ino


class Places:
    """Where the things are on this host that external mounts are named after."""

    __slots__ = ("bundle", "cgroups", "notify")

    def __init__(self, bundle: str, cgroups: Mapping[str, str], notify: str) -> None:
        self.bundle = bundle
        self.cgroups = cgroups
        self.notify = notify


def _path(item: External, where: Places) -> str:
    """Where on this host it is bound from, or nothing."""
    if item.kind == "notify":
        os.makedirs(where.notify, mode=0o755, exist_ok=True)
        return where.notify
    if item.kind == "cgroup":
        hierarchy = where.cgroups.get(item.controller, "")
        path = os.path.join(hierarchy, item.below).rstrip("/") if hierarchy else ""
    elif item.kind == "bind":
        path = item.source
    else:
        return ""
    if not path:  # never the bundle, which an empty path would name
        raise RestoreFailed(
            reason=f"mount {item.target}: nothing on this host that it can be bound from"
        )
    return path if path.startswith("/") else os.path.join(where.bundle, path)


def _source(item: External, where: Places) -> int:
    if item.kind == "tmpfs":
        return _tmpfs(item)
    if item.kind == "null":
        fd = mount.open_tree(mount.AT_FDCWD, "/dev/null", CLONE)
        if os.fstat(fd).st_rdev != os.makedev(1, 3):
            os.close(fd)
            raise OSError(0, "/dev/null of this host is not the null device")
        return fd
    fd = mount.open_tree(mount.AT_FDCWD, _path(item, where), CLONE)
    if not item.slave:
        mount.mount_setattr(fd, "", mount.AT_EMPTY_PATH, propagation=mount.MS_PRIVATE)
    return fd


_ATTRIBUTES = {
    "ro": mount.MOUNT_ATTR_RDONLY,
    "nosuid": mount.MOUNT_ATTR_NOSUID,
    "nodev": mount.MOUNT_ATTR_NODEV,
    "noexec": mount.MOUNT_ATTR_NOEXEC,
    "nodiratime": mount.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": mount.MOUNT_ATTR_NOSYMFOLLOW,
}


def _set_attributes(fd: int, item: External) -> None:
    wanted = 0
    for word in item.attributes:
        wanted |= _ATTRIBUTES.get(word, 0)
    clear = mount.MOUNT_ATTR__ATIME
    for value in _ATTRIBUTES.values():
        clear |= value & ~wanted
    if "noatime" in item.attributes:
        wanted |= mount.MOUNT_ATTR_NOATIME
    elif "relatime" not in item.attributes:
        wanted |= mount.MOUNT_ATTR_STRICTATIME
    mount.mount_setattr(fd, "", mount.AT_EMPTY_PATH, wanted, clear)


def _tmpfs(item: External) -> int:
    with Fd(mount.fsopen("tmpfs")) as config:
        mount.fsconfig(config, mount.FSCONFIG_SET_STRING, "source", "tmpfs")
        for word in item.options:
            name, equals, value = word.partition("=")
            if word == tmpfs.READ_ONLY:
                continue  # it has to be filled first
            if equals:
                mount.fsconfig(config, mount.FSCONFIG_SET_STRING, name, value)
            else:
                mount.fsconfig(config, mount.FSCONFIG_SET_FLAG, name)
        mount.fsconfig(config, mount.FSCONFIG_CMD_CREATE)
        fd = mount.fsmount(config)
    try:
        with Fd(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)) as directory:
            if item.content:
                tmpfs.fill(directory, item.content)
        if tmpfs.READ_ONLY in item.options:
            flags = mount.FSPICK_CLOEXEC | mount.FSPICK_EMPTY_PATH
            with Fd(mount.fspick(fd, "", flags)) as config:
                mount.fsconfig(config, mount.FSCONFIG_SET_FLAG, "ro")
                mount.fsconfig(config, mount.FSCONFIG_CMD_RECONFIGURE)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _mapped(path: str, linux: Mapping[str, Any]) -> int:
    """A file whose owner is the mapped root of a container."""
    from ocimig.runtime import idmap

    fd = mount.open_tree(mount.AT_FDCWD, path, CLONE)
    try:
        maps = {"uid": linux["uidMappings"], "gid": linux.get("gidMappings")}
        idmap.apply(fd, maps, recursive=False)
    except BaseException:
        os.close(fd)
        raise
    return fd


def in_mount_namespace(namespace: int, work: Callable[[], None]) -> None:
    """Do `work` in another mount namespace, in a thread of its own, and raise here what it raised.

    setns(2) moves only the thread that calls it, once it shares its root with no other thread.
    """
    raised: list[BaseException] = []

    def there() -> None:
        try:
            namespaces.unshare(namespaces.CLONE_FS)
            namespaces.setns(namespace, namespaces.CLONE_NEWNS)
            work()
        except BaseException as error:  # noqa: BLE001  raised by the thread that waits
            raised.append(error)

    thread = threading.Thread(target=there, name="stage")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


@contextmanager
def put_root(rootfs: str) -> Iterator[None]:
    """A directory `tmp` in the root while CRIU works: pivot_root(2) puts the old root there for a moment.

    Where a root has none CRIU makes one of its own, and a read-only root refuses that.
    """
    with Fd(os.open(rootfs, _FLAGS)) as root:
        made = False
        with suppress(OSError):  # it is there, or the file system takes nothing: CRIU will say so
            os.mkdir("tmp", 0o700, dir_fd=root)
            made = True
        try:
            yield
        finally:
            if made:
                with suppress(
                    OSError
                ):  # the container has put something into it: it is its own now
                    os.rmdir("tmp", dir_fd=root)


def make_mount_points(rootfs: str, targets: Iterable[tuple[str, bool]]) -> None:
    """Make missing mount points (path, whether a directory) in the root file system, never outside it."""
    with Fd(os.open(rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        for target, directory in targets:
            try:
                _make_one(root, target, directory)
            except OSError as error:
                raise RestoreFailed(reason=f"mount point {target}: {error.strerror}") from error


def _make_one(root: int, target: str, directory: bool) -> None:
    resolve = openat2.RESOLVE_IN_ROOT | openat2.RESOLVE_NO_MAGICLINKS
    try:
        os.close(openat2.openat2(root, target, os.O_PATH, 0, resolve))
        return
    except FileNotFoundError:
        pass
    parts = [part for part in target.split("/") if part]
    current = os.dup(root)
    try:
        for number, part in enumerate(parts):
            path = "/" + "/".join(parts[: number + 1])
            last = number == len(parts) - 1
            if last and not directory:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(part, flags, 0o644, dir_fd=current))
                return
            try:
                below = openat2.openat2(root, path, os.O_RDONLY | os.O_DIRECTORY, 0, resolve)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=current)
                below = os.open(part, _FLAGS, dir_fd=current)
            os.close(current)
            current = below
    finally:
        os.close(current)
