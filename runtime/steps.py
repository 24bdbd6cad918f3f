"""The steps that `init` carries out: what each does in words, and its bytes. Never carries one out.

One class here for one OP_ in init/init.c, fields in the same order. A step that needs a descriptor
names its source. What the launcher has (the start fifo, a pidfd) is sent along; all else init opens
itself, in the host's namespaces, before the first step.
"""

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeAlias

    Field: TypeAlias = int | str | bytes | "Source" | Sequence[str] | Sequence[int]

MS_REC = 0x4000
NO_FIFO = 2**64 - 1


class Source:
    """Something to open for a step; "fd" is one that the launcher holds by this name."""

    __slots__ = ("kind", "mappings", "name", "recursive")

    def __init__(
        self,
        kind: str,
        name: str,
        *,
        recursive: bool = False,
        mappings: "dict[str, Any] | None" = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.recursive = recursive
        self.mappings = mappings

    def key(self) -> "tuple[str, str]":
        """Two steps that share a namespace or a descriptor share the open file."""
        return (self.kind, self.name)


class Step:
    """One step: its number for init, its fields, and a line for people."""

    __slots__ = ("fields", "op", "words")

    def __init__(self, op: int, words: str, *fields: "Field") -> None:
        self.op = op
        self.words = words
        self.fields = fields

    def describe(self) -> str:
        """What it does, in one line."""
        return self.words


KINDS = {"tree": 1, "null": 2, "path": 3, "namespace": 4}
OP_OPEN = 37


class Encoder:
    """Turns steps into the bytes of a plan: first what is sent, then what is opened, then the steps."""

    __slots__ = ("given", "opened", "parts", "places")

    def __init__(self, steps: "list[Step]") -> None:
        sources = [field for step in steps for field in step.fields if isinstance(field, Source)]
        self.given: list[Source] = []  # the launcher's, in order
        self.opened: list[Source] = []  # init's, in order
        self.places: dict[int, int] = {}  # id of a source -> its place among the descriptors
        first: dict[tuple[str, str], int] = {}
        for sent in (True, False):
            for source in sources:
                if (source.kind == "fd" or bool(source.mappings)) == sent:
                    self._take(source, first, self.given if sent else self.opened)
        self.parts = [self._encode(_open(source)) for source in self.opened]
        self.parts += [self._encode(step) for step in steps]

    def _take(
        self, source: Source, first: "dict[tuple[str, str], int]", into: "list[Source]"
    ) -> None:
        place = len(self.given) + len(self.opened)
        # A detached mount is attached once, so it is never shared; a namespace or a file may be.
        known = place if source.kind == "tree" else first.setdefault(source.key(), place)
        if known == place:
            into.append(source)
        self.places[id(source)] = known

    def plan(self) -> bytes:
        """All of it."""
        return b"".join(self.parts)

    def _encode(self, step: Step) -> bytes:
        body = b"".join([self._field(field) for field in step.fields])
        return struct.pack("=QQ", step.op, len(body)) + body

    def _field(self, field: "Field") -> bytes:
        if isinstance(field, int):
            return struct.pack("=Q", field & 0xFFFFFFFFFFFFFFFF)
        if isinstance(field, str):
            return _blob(encode(field))
        if isinstance(field, bytes):
            return _blob(field)
        if isinstance(field, Source):
            return struct.pack("=Q", self.places[id(field)])
        if field and isinstance(field[0], int):
            return struct.pack(f"={len(field) + 1}Q", len(field), *field)
        words = [_blob(encode(item)) for item in field if isinstance(item, str)]
        return struct.pack("=Q", len(words)) + b"".join(words)


def _open(source: Source) -> Step:
    """open_tree(2) or open(2)."""
    words = f"open {source.name}"
    return Step(OP_OPEN, words, KINDS[source.kind], source.name, int(source.recursive))


def encode(text: str) -> bytes:
    """Text of config.json as the kernel gets it: UTF-8, and the odd byte that came in as a surrogate."""
    return text.encode("utf-8", "surrogateescape")


def _blob(data: bytes) -> bytes:
    return struct.pack("=Q", len(data)) + data + b"\0"


def join(source: Source, flags: int, name: str) -> Step:
    """setns(2)."""
    return Step(1, f"join the {name} namespace {source.name}", source, flags, name)


def unshare(flags: int, names: str) -> Step:
    """unshare(2)."""
    return Step(2, f"make new namespaces: {names}", flags, names)


def sync(code: int, words: str) -> Step:
    """Wait for the launcher."""
    return Step(3, words, code)


def fork(cgroup: str = "") -> Step:
    """Go on in a child, the first in a new pid namespace; it starts in `cgroup` (v2) where it can."""
    return Step(4, f"fork the container's process{' into ' if cgroup else ''}{cgroup}", cgroup)


def write(path: str, data: str) -> Step:
    """Write a file of the host's procfs."""
    return Step(5, f"write {data!r} to {path}", path, data)


def become_root(code: int) -> Step:
    """Wait for the id maps, then be root by them."""
    return Step(6, "become root in the user namespace", code)


def setsid() -> Step:
    """setsid(2)."""
    return Step(7, "start a session")


def keyring(name: str) -> Step:
    """keyctl(KEYCTL_JOIN_SESSION_KEYRING)."""
    return Step(8, f"join session keyring {name}", name)


def hostname(name: str) -> Step:
    """sethostname(2)."""
    return Step(9, f"set the hostname {name}", 0, name)


def domainname(name: str) -> Step:
    """setdomainname(2)."""
    return Step(9, f"set the domainname {name}", 1, name)


def loopback() -> Step:
    """Bring up lo."""
    return Step(10, "bring up lo")


def propagate(flags: int, words: str) -> Step:
    """mount(2) that only changes the propagation of "/"."""
    return Step(11, f"make / {words}", flags)


def root(source: Source, mounted: bool, propagation: int) -> Step:
    """Take the root file system; with `mounted`, attach it in this mount namespace."""
    return Step(
        12, f"take {source.name} as the root file system", source, int(mounted), propagation
    )


def mount(
    fstype: str,
    source: str,
    target: str,
    options: "list[str]",
    attributes: int,
    propagation: int,
    copy_up: bool,
) -> Step:
    """fsopen(2) … move_mount(2) of a new file system."""
    words = f"mount {fstype} on {target} ({','.join(options) or '-'})"
    plain = int(fstype in {"proc", "sysfs"})
    return Step(
        13, words, fstype, source, target, options, attributes, propagation, int(copy_up), plain
    )


def bind(
    source: Source,
    target: str,
    attributes: "tuple[int, int, int, int]",
    propagation: int,
) -> Step:
    """move_mount(2) of a copied tree; attributes: set, clear, and the same for the whole tree."""
    words = f"bind {source.name} on {target}"
    all_of_it = int(bool(propagation & MS_REC))
    return Step(14, words, source, target, *attributes, propagation & ~MS_REC, all_of_it)


def symlink(content: str, path: str) -> Step:
    """symlinkat(2); one that exists is left."""
    return Step(15, f"link {path} to {content}", content, path)


def device(path: str, mode: int, number: int, uid: int, gid: int) -> Step:
    """mknodat(2), owner and mode."""
    return Step(16, f"make device {path} mode {mode:o}", path, mode, number, uid, gid)


def mask(path: str, null: Source) -> Step:
    """Hide a file by /dev/null, a directory by an empty read-only tmpfs; what is missing is fine."""
    return Step(17, f"mask {path}", path, null)


def readonly(path: str) -> Step:
    """Bind a path on itself, read-only; what is missing is fine."""
    return Step(18, f"make {path} read-only", path)


def attributes(path: str, attributes: int, propagation: int = 0) -> Step:
    """mount_setattr(2) of the mount at a path."""
    return Step(19, f"set the options of the mount on {path}", path, attributes, propagation)


def console(rows: int, columns: int, bind_console: bool, uid: int) -> Step:
    """Make a terminal in the container's devpts, send its master, take it as 0-2."""
    return Step(20, "make the terminal", rows, columns, int(bind_console), uid)


PIVOT, CHROOT = 0, 1


def pivot(how: int) -> Step:
    """pivot_root(2) and detach the old root, or chroot(2)."""
    return Step(21, "pivot_root" if how == PIVOT else "chroot", how)


def hook(what: str, hook: "dict[str, Any]") -> Step:
    """Run a hook in the container's namespaces."""
    path = str(hook["path"])
    args = hook.get("args") or [path]
    env = hook.get("env") or []
    timeout = hook.get("timeout") or 0
    return Step(22, f"run the {what} hook {path}", what, path, args, env, timeout * 1000)


def mkdir(path: str) -> Step:
    """Make a directory inside the root."""
    return Step(23, f"make {path}", path)


def cwd(path: str, strict: bool) -> Step:
    """chdir(2), and check that it stayed inside; not strict: leave EACCES for later."""
    return Step(24, f"enter {path}", path, int(strict))


def credentials(
    uid: int, gid: int, groups: "list[int] | None", caps: "tuple[int, ...] | None"
) -> Step:
    """User, groups and capabilities (bounding, effective, permitted, inheritable, ambient)."""
    fields = [uid, gid, int(groups is not None), len(groups or []), *(groups or [])]
    fields += [int(caps is not None), *(caps or (0, 0, 0, 0, 0))]
    return Step(25, f"become {uid}:{gid}", *fields)


def umask(mask: int) -> Step:
    """umask(2)."""
    return Step(26, f"set umask {mask:04o}", mask)


def no_new_privs() -> Step:
    """prctl(PR_SET_NO_NEW_PRIVS)."""
    return Step(27, "set no_new_privs")


def seccomp(program: bytes, flags: int) -> Step:
    """seccomp(SECCOMP_SET_MODE_FILTER)."""
    return Step(28, f"install a seccomp filter of {len(program) // 8} instructions", flags, program)


def personality(persona: int) -> Step:
    """personality(2)."""
    return Step(29, f"set personality {persona:#x}", persona)


def scheduler(fields: "tuple[int, int, int, int, int, int, int]") -> Step:
    """sched_setattr(2): policy, flags, nice, priority, runtime, deadline, period."""
    return Step(30, f"set scheduling policy {fields[0]}", *fields)


def ioprio(value: int) -> Step:
    """ioprio_set(2)."""
    return Step(31, f"set I/O priority {value:#x}", value)


def lookup(name: str, path: str) -> Step:
    """Find the program as execvp(3) does."""
    return Step(32, f"look up {name}", name, path)


def ready(code: int, fifo: "Source | None") -> Step:
    """Close what is not needed any more, and say that all is done."""
    return Step(33, "ready", code, NO_FIFO if fifo is None else fifo)


def wait_fifo(fifo: Source) -> Step:
    """Wait for the start."""
    return Step(34, "wait for the start", fifo)


def execute(argv: "list[str]", env: "list[str]") -> Step:
    """execve(2)."""
    return Step(35, f"execute {' '.join(argv)}", argv, env)


def leave() -> Step:
    """End well."""
    return Step(36, "end")


def enter_cgroup(path: str, value: str) -> Step:
    """Write ourselves into a file of a cgroup."""
    return Step(38, f"join the cgroup {path}", path, value)


def home(uid: int) -> Step:
    """Look the user's home directory up, for an empty HOME."""
    return Step(39, f"look up the home directory of {uid}", uid)
