"""What a restore is asked for, the same as options of CRIU, and the descriptors CRIU is given. Starts nothing."""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ocimig import files, jsonio, log
from ocimig.criu_images import options, rpc
from ocimig.criu_images.image import CONFIG, Manifest
from ocimig.migrate import descriptors, stage
from ocimig.migrate.dump_request import NAMESPACE_KEYS
from ocimig.migrate.errors import RestoreFailed
from ocimig.migrate.external import External, bind_sources

if TYPE_CHECKING:
    from ocimig.migrate.lazy.handler import PageHandler

LOG = "restore.log"
_WARNINGS = 2  # and errors, which are all that criulog looks at
_EITHER = ("tcp_established", "ext_unix_sk", "shell_job", "file_locks", "tcp_close")
_OTHERS = ("pipe:[", "socket:[")  # streams with another end
_SHARED = {stat.S_IFREG, stat.S_IFIFO}
_PASSED_ON = ("auto_dedup", "lazy_pages", "lsm_profile", "lsm_mount_context")

Connect = Callable[[int], "dict[str, Any] | None"]


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """As the options of `ocimig restore`, which have runc's names and meaning.

    `stdio` are the descriptors that take the place of the container's pipes. Its network is built by
    `connect` in a namespace (a descriptor), which returns the facts of it; or `netns` is that namespace,
    built before, and `network` are its facts. `verify` false is only for images that were verified
    already. `page_handler` serves the memory of a restore with `lazy_pages`; its directory is `work_path`.
    With `on_demand` lazy memory comes only when it is touched: the caller keeps the handler (Restoration.pages).
    With `own_streams` standard streams that were files of the host are those of `stdio` too. `claimed`: the
    caller took the name; `mounts` are mounts on the host that go with the container, `shared` directories that
    go with the last that stands on them.
    """

    image_path: str = "checkpoint"
    work_path: str = ""
    bundle: str = ""
    tcp_established: bool = False
    tcp_close: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    file_locks: bool = False
    manage_cgroups_mode: str = ""
    detach: bool = False
    pid_file: str = ""
    console_socket: str = ""
    no_subreaper: bool = False
    no_pivot: bool = False
    empty_ns: tuple[str, ...] = ()
    auto_dedup: bool = False
    lazy_pages: bool = False
    lsm_profile: str = ""
    lsm_mount_context: str = ""
    network_lock: str = ""
    parent_path: str = ""
    systemd_cgroup: bool = False
    stdio: tuple[int, int, int] = (0, 1, 2)
    connect: Connect | None = None
    netns: int = -1
    network: dict[str, Any] | None = None
    verify: bool = True
    page_handler: "PageHandler | None" = None
    on_demand: bool = False
    own_streams: bool = False
    claimed: bool = False
    mounts: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


@dataclass(slots=True)
class Held:
    """Descriptors for CRIU, in the order in which they are handed over."""

    keys: list[str] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)
    owned: list[int] = field(default_factory=list)
    given: dict[int, int] = field(
        default_factory=dict
    )  # standard stream -> what it leads to from now on

    def add(self, key: str, fd: int, *, ours: bool) -> None:
        """Hand over one more; with `ours` it is closed by `close`."""
        if ours:
            self.owned.append(fd)
        if key not in self.keys:
            self.keys.append(key)
            self.fds.append(fd)

    def streams(self, pid: int) -> list[str]:
        """What its standard streams lead to, as runc writes it to descriptors.json.

        Not simply what they are now: it may be about to give a command's output a pipe of its own.
        """
        found = descriptors.streams(pid)
        for number, name in enumerate(found):
            if number in self.given:
                found[number] = os.readlink(f"/proc/self/fd/{self.given[number]}")
            elif name.startswith(_OTHERS):
                found[number] = ""
        return found

    def close(self) -> None:
        """Close what is ours; CRIU has its own copies."""
        for fd in self.owned:
            os.close(fd)
        self.owned.clear()


def spaces(spec: Mapping[str, Any]) -> dict[str, str]:
    """The namespaces of config.json: type -> path, or "" for a new one."""
    entries = (spec.get("linux") or {}).get("namespaces") or []
    return {each["type"]: each.get("path") or "" for each in entries}


def of_bundle(bundle: str) -> tuple[str, dict[str, str]]:
    """As runc has it, the bundle's own config.json says where its root file system is and what is bound
    into it: an engine that restores under another name has both elsewhere. ("", {}) without one."""
    path = os.path.join(bundle, CONFIG)
    try:
        spec = jsonio.loads(files.read(path, limit=16 << 20))
        return str((spec.get("root") or {}).get("path") or ""), bind_sources(spec)
    except FileNotFoundError:
        return "", {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise RestoreFailed(reason=f"{path}: {error}") from None


def externals(facts: Mapping[str, Any], binds: Mapping[str, str]) -> list[External]:
    """The mounts that CRIU leaves to us; `binds` are sources by target that go before those noted.

    What ocimig found to come from nowhere was made by the container itself, whatever the bundle names
    there; images of other engines name their mounts by target and note no source at all.
    """
    found = []
    for item in map(External.from_json, facts.get("mounts", [])):
        noted = item.source or item.key.startswith("/")
        if item.kind == "bind" and item.target in binds and noted:
            item = replace(item, source=binds[item.target])
        found.append(item)
    return found


def mapped(spec: Mapping[str, Any]) -> bool:
    """Whether the container's root is another user of the host."""
    return "user" in spaces(spec) and bool(spec["linux"].get("uidMappings"))


def keeps_connections(wanted: RestoreOptions, manifest: Manifest) -> bool:
    """Whether there may be established connections in the image, and they are wanted."""
    return "tcp_established" in values(wanted, manifest)


def values(wanted: RestoreOptions, manifest: Manifest) -> dict[str, Any]:
    """The plain fields of CRIU's options. What the dump was asked for is asked for again."""
    found: dict[str, Any] = {
        "root": stage.ROOT,
        "rst_sibling": True,
        "orphan_pts_master": True,
        "ext_masters": True,
    }
    for name in _EITHER:
        if getattr(wanted, name) or manifest.options.get(name):
            found[name] = True
    if "tcp_close" in found:
        found.pop("tcp_established", None)
    found.update({name: getattr(wanted, name) for name in _PASSED_ON if getattr(wanted, name)})
    if wanted.page_handler is not None and log.log.level > log.DEBUG:
        found["log_level"] = _WARNINGS  # everybody waits, and a line costs 3 µs: 3 ms of 24
    if manifest.facts.get("network_empty") or wanted.empty_ns:
        found["empty_ns"] = options.EMPTY_NAMESPACES["network"]
    return found


def collect(
    held: Held,
    spec: Mapping[str, Any],
    netns: int,
    wanted: RestoreOptions,
    facts: Mapping[str, Any],
) -> None:
    """Namespaces, streams, files of the host; `facts` are those of a manifest, or foreseen."""
    if netns >= 0:
        held.add(NAMESPACE_KEYS["network"], netns, ours=False)
    if path := spaces(spec).get("pid"):
        held.add(NAMESPACE_KEYS["pid"], open_namespace(path), ours=True)
    for number, name in enumerate(facts.get("streams", [])[:3]):
        if name.startswith(_OTHERS):
            held.add(name, wanted.stdio[number], ours=False)
            held.given[number] = wanted.stdio[number]
    for value in facts.get("files", []):
        file = descriptors.HostFile.from_json(value)
        if wanted.own_streams and file.streams and stat.S_IFMT(file.mode) in _SHARED:
            fd = os.dup(wanted.stdio[file.streams[0]])
        else:
            fd = descriptors.open_again(file, wanted.stdio)
        held.add(file.handed(), fd, ours=True)
        held.given.update(dict.fromkeys(file.streams, fd))


def keys(facts: Mapping[str, Any]) -> set[str]:
    """What `collect` has to find for these facts."""
    streams = {name for name in facts.get("streams", []) if name.startswith(_OTHERS)}
    files = [descriptors.HostFile.from_json(value) for value in facts.get("files", [])]
    return streams | {file.handed() for file in files}


def criu_options(
    wanted: RestoreOptions,
    manifest: Manifest,
    spec: Mapping[str, Any],
    *,
    images: int,
    work: int,
    sources: Mapping[str, str],
    held: Held,
) -> options.CriuOptions:
    """Everything together."""
    plain = values(wanted, manifest)
    if mapped(spec):
        images, plain["images_dir"] = -1, stage.IMAGES
    joined = spaces(spec)
    return options.CriuOptions(
        images,
        work,
        LOG,
        plain,
        tuple(f"mnt[{key}]:{path}" for key, path in sources.items()),
        {key: rpc.Session.handed(index) for index, key in enumerate(held.keys)},
        {name: joined[name] for name in ("ipc", "uts") if joined.get(name)},
        cgroup_mode=wanted.manage_cgroups_mode or "ignore",
        lock=wanted.network_lock or "skip",
    )


def open_namespace(path: str) -> int:
    """A descriptor of a namespace that config.json names."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise RestoreFailed(reason=f"namespace {path}: {error.strerror}") from error


def targets(spec: Mapping[str, Any], externals: list[External]) -> list[tuple[str, bool]]:
    """Mount points that have to be in the root file system itself: not those inside another mount."""
    wanted: dict[str, bool] = {}
    for mount in spec.get("mounts") or []:
        wanted[os.path.normpath("/" + str(mount["destination"]).lstrip("/"))] = True
    for item in externals:
        if item.kind in {"bind", "null"}:
            wanted[item.target] = item.kind == "bind" and os.path.isdir(item.source or "/")
    return [
        (target, directory)
        for target, directory in wanted.items()
        if not any(target.startswith(other + "/") for other in wanted if other != "/")
    ]
