"""Mounts of config.json as steps: option words, default devices, links. Pure: opens nothing."""

from ocimig.runtime import steps
from ocimig.runtime.steps import Source, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Numbers of <linux/mount.h>; written here because `linux.mount` loads ctypes and a plan needs none.
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000

# word -> (attributes to set, attributes to clear)
ATTRIBUTES = {
    "ro": (MOUNT_ATTR_RDONLY, 0),
    "rw": (0, MOUNT_ATTR_RDONLY),
    "nosuid": (MOUNT_ATTR_NOSUID, 0),
    "suid": (0, MOUNT_ATTR_NOSUID),
    "nodev": (MOUNT_ATTR_NODEV, 0),
    "dev": (0, MOUNT_ATTR_NODEV),
    "noexec": (MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, MOUNT_ATTR_NOEXEC),
    "noatime": (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME),
    "atime": (0, MOUNT_ATTR__ATIME),
    "relatime": (0, MOUNT_ATTR__ATIME),
    "norelatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME),
    "strictatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME),
    "nostrictatime": (0, MOUNT_ATTR__ATIME),
    "nodiratime": (MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, MOUNT_ATTR_NOSYMFOLLOW),
}
PROPAGATION = {
    "private": MS_PRIVATE,
    "slave": MS_SLAVE,
    "shared": MS_SHARED,
    "unbindable": MS_UNBINDABLE,
}
IGNORED = {"defaults", "remount", "silent", "loud", "nofail", "auto", "noauto", "acl", "noacl"}

DEFAULT_DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
DEFAULT_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)
S_IFIFO, S_IFCHR, S_IFBLK = 0o010000, 0o020000, 0o060000
KINDS = {"c": S_IFCHR, "u": S_IFCHR, "b": S_IFBLK, "p": S_IFIFO}


class Options:
    """The option words of one mount, sorted by who takes them."""

    __slots__ = ("bind", "clear", "copy_up", "data", "idmap", "propagation", "recursive",
                 "set", "tree_clear", "tree_set")  # fmt: skip

    def __init__(self, words: "list[str]") -> None:
        self.set = self.clear = self.tree_set = self.tree_clear = self.propagation = 0
        self.bind = self.recursive = self.copy_up = False
        self.idmap = ""
        self.data: list[str] = []
        for word in words:
            self._take(word)

    def _take(self, word: str) -> None:
        if word in ATTRIBUTES:
            set_, clear = ATTRIBUTES[word]
            self.set = self.set & ~clear | set_
            self.clear = self.clear & ~set_ | clear
        elif word[:1] == "r" and word[1:] in ATTRIBUTES:
            set_, clear = ATTRIBUTES[word[1:]]
            self.tree_set = self.tree_set & ~clear | set_
            self.tree_clear = self.tree_clear & ~set_ | clear
        elif word in PROPAGATION:
            self.propagation = PROPAGATION[word]
        elif word[:1] == "r" and word[1:] in PROPAGATION:
            self.propagation = PROPAGATION[word[1:]] | MS_REC
        elif word in {"bind", "rbind"}:
            self.bind = True
            self.recursive = self.recursive or word == "rbind"
        elif word in {"idmap", "ridmap"}:
            self.idmap = word
        elif word == "tmpcopyup":
            self.copy_up = True
        elif word and word not in IGNORED:
            self.data.append(word)


def destination(text: str) -> str:
    """A destination as an absolute path inside the root; ".." cannot leave it."""
    parts: list[str] = []
    for part in text.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)


def source_of(mount: "dict[str, Any]", bundle: str) -> str:
    """The source of a bind mount; a relative one is below the bundle."""
    source = str(mount.get("source") or "")
    return source if source.startswith("/") else f"{bundle}/{source}"


def is_bind(mount: "dict[str, Any]") -> bool:
    """Whether the mount takes an existing tree instead of making a file system."""
    words = mount.get("options") or []
    return mount.get("type") == "bind" or "bind" in words or "rbind" in words


def plan_mount(mount: "dict[str, Any]", bundle: str, default: int) -> Step:
    """One mount as a step; `default` is the propagation of a bind that names none."""
    options = Options(mount.get("options") or [])
    target = destination(mount["destination"])
    if is_bind(mount):
        mappings = None
        if mount.get("uidMappings") or mount.get("gidMappings"):
            mappings = {"uid": mount.get("uidMappings"), "gid": mount.get("gidMappings")}
        source = Source(
            "tree", source_of(mount, bundle), recursive=options.recursive, mappings=mappings
        )
        return steps.bind(
            source,
            target,
            (options.set, options.clear, options.tree_set, options.tree_clear),
            options.propagation or default,
        )
    fstype = str(mount.get("type") or "")
    return steps.mount(
        fstype,
        str(mount.get("source") or fstype),
        target,
        options.data,
        options.set | options.tree_set,
        options.propagation & ~MS_REC,
        options.copy_up,
    )


def makes_dev(spec: "dict[str, Any]") -> bool:
    """Whether /dev is ours to fill: not where the caller binds a /dev of its own."""
    return not any(
        destination(mount["destination"]) == "/dev" and is_bind(mount)
        for mount in spec.get("mounts") or []
    )


def makedev(major: int, minor: int) -> int:
    """A device number, as makedev(3)."""
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12 | (major & ~0xFFF) << 32


def plan_devices(spec: "dict[str, Any]", by_bind: bool) -> "list[Step]":
    """The default nodes, those of the config, and the usual links."""
    wanted: dict[str, Step] = {}
    for path, major, minor in DEFAULT_DEVICES:
        number = makedev(major, minor)
        wanted[path] = _device(path, S_IFCHR | 0o666, number, 0, 0, by_bind)
    for entry in spec.get("linux", {}).get("devices") or []:
        path = destination(entry["path"])
        mode = KINDS[entry["type"]] | (entry.get("fileMode") or 0o666) & 0o7777
        number = makedev(entry.get("major") or 0, entry.get("minor") or 0)
        uid, gid = entry.get("uid") or 0, entry.get("gid") or 0
        wanted[path] = _device(path, mode, number, uid, gid, by_bind)
    found = list(wanted.values())
    found += [steps.symlink(content, path) for content, path in DEFAULT_LINKS]
    return found


def _device(path: str, mode: int, number: int, uid: int, gid: int, by_bind: bool) -> Step:
    if by_bind and mode & 0o170000 != S_IFIFO:  # mknod(2) is refused in a user namespace
        return steps.bind(Source("tree", path), path, (0, 0, 0, 0), 0)
    return steps.device(path, mode, number, uid, gid)
