"""Restore one container on this host. Also what a migration does on the far side, in two parts:

    Restoration.prepare   name, cgroup, CRIU started and warm in its own mount namespace: no image needed
    Restoration.run       verify, lay out the mounts, restore, `on_restored`, let it run

Whatever fails before the container runs: no process, cgroup, mount or record of it is left.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ocimig import files, log
from ocimig.criu_images import binary, features, options, rpc
from ocimig.criu_images.errors import BadOption
from ocimig.criu_images.image import CheckpointImage, Manifest
from ocimig.errors import OcimigError
from ocimig.files import Fd
from ocimig.migrate import descriptors, netlock, stage
from ocimig.migrate.dump_request import NAMESPACE_KEYS
from ocimig.migrate.errors import RestoreFailed
from ocimig.migrate.external import External
from ocimig.runtime import cgroups, console, hooks, lifecycle
from ocimig.runtime.errors import ConsoleMismatch
from ocimig.runtime.linux import namespaces, netlink
from ocimig.runtime.state import ContainerState, now
from ocimig.runtime.store import Store

LOG = "restore.log"
CLONE_NEWNET = namespaces.CLONE_NEWNET

Connect = Callable[[int], "dict[str, Any] | None"]
OnRestored = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """As the options of `ocimig restore`, which have runc's names and meaning.

    `stdio` are the descriptors that take the place of the container's pipes. Its network is built by
    `connect` in a namespace (a descriptor), which returns the facts of it; or `netns` is that namespace,
    built before, and `network` are its facts. `verify` false is only for images that were verified
    already.
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


@dataclass(slots=True)
class _Held:
    """Descriptors for CRIU, in the order in which they are handed over."""

    keys: list[str] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)
    owned: list[int] = field(default_factory=list)

    def add(self, key: str, fd: int, *, ours: bool) -> None:
        if key in self.keys:
            return
        self.keys.append(key)
        self.fds.append(fd)
        if ours:
            self.owned.append(fd)

    def close(self) -> None:
        for fd in self.owned:
            os.close(fd)
        self.owned.clear()


def restore(
    store: Store, id: str, wanted: RestoreOptions, *, on_restored: OnRestored | None = None
) -> ContainerState:
    """Restore a container; it runs when this returns. `on_restored(pid)` is called when it is whole
    and not yet running: raising there kills it and leaves nothing."""
    with Restoration(store, id, wanted) as work:
        state = work.run(on_restored=on_restored)
        work.settle()
        return state


def restore_and_wait(store: Store, id: str, wanted: RestoreOptions) -> int:
    """Restore; without `detach` stand in front of it as `run` does, delete it at its end, and return
    its exit code."""
    from ocimig.runtime import foreground

    if wanted.detach:
        restore(store, id, wanted)
        return 0
    if wanted.console_socket:
        raise ConsoleMismatch(reason="use console socket if ocimig will not detach or allocate tty")
    with Restoration(store, id, wanted) as work:
        terminal = work.terminal
        with foreground.Foreground(terminal, subreaper=not wanted.no_subreaper) as front:
            state = work.run()
            try:
                front.attach(state.pid, work.take_master())
                work.settle()
                return front.wait()
            finally:
                lifecycle.delete(store, id, force=True)


class Restoration:
    """One container on its way back. Leaving the `with` block without `settle` removes everything."""

    def __init__(self, store: Store, id: str, wanted: RestoreOptions) -> None:
        self.store = store
        self.id = id
        self.wanted = wanted
        self.image = CheckpointImage(os.path.abspath(wanted.image_path))
        self.spec: dict[str, Any] = {}
        self.manifest = Manifest(id)
        self.session: rpc.Session | None = None
        self.group: cgroups.Cgroup | None = None
        self.state: ContainerState | None = None
        self.pid = 0
        self.master = -1
        self.netns = -1
        self.lock: netlock.NetworkLock | None = None
        self.claimed = False
        self.settled = False
        self.times: dict[str, float] = {}
        self.held = _Held()
        self._on_restored: OnRestored | None = None

    def __enter__(self) -> "Restoration":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if not self.settled:
                self._undo()
        finally:
            self._close()

    @property
    def terminal(self) -> bool:
        """Whether the container has a terminal of its own."""
        spec = self.spec or self.image.config()
        return bool((spec.get("process") or {}).get("terminal"))

    # -- before the images --------------------------------------------------------------------------

    def prepare(
        self, spec: dict[str, Any], *, bundle: str = "", foreseen: Mapping[str, Any] | None = None
    ) -> None:
        """Take the name, make the cgroup, start CRIU and warm it. `spec` is the container's config.json.

        `foreseen` is what `checkpoint.foresee` said on the other side: descriptors have to be handed to
        CRIU when it starts. Where it was wrong, `run` starts CRIU again.
        """
        self.times["begin"] = time.monotonic()
        self.spec = spec
        place = os.path.abspath(bundle or self.wanted.bundle or self._usual_bundle())
        rootfs = os.path.realpath(os.path.join(place, spec["root"]["path"]))
        if not os.path.isdir(rootfs):
            raise RestoreFailed(id=self.id, reason=f"root file system {rootfs} does not exist")
        self.store.claim(self.id)
        self.claimed = True
        self.state = ContainerState(
            self.id, bundle=place, rootfs=rootfs, annotations=spec.get("annotations"),
            oci_version=spec.get("ociVersion", ""), image=self.image.directory,
        )  # fmt: skip
        self.store.save(self.state, sync=False)
        self.store.save_config(self.id, spec, sync=False)
        self._make_cgroup()
        self._make_network()
        self._start(foreseen if foreseen is not None else self.manifest.facts)
        self.times["warm"] = time.monotonic()

    def _usual_bundle(self) -> str:
        """The working directory when it is a bundle, as runc has it; else the one it had."""
        if os.path.exists("config.json"):
            return "."
        return str((self.manifest.facts.get("state") or {}).get("bundle") or ".")

    def _make_cgroup(self) -> None:
        assert self.state is not None
        linux = self.spec.get("linux") or {}
        self.group = cgroups.open_cgroup(linux, self.id, systemd=self.wanted.systemd_cgroup)
        self.state.cgroups = self.group.facts()
        self.store.save(self.state, sync=False)
        self.group.create(0)
        self.state.cgroups = self.group.facts()
        self.group.apply(linux.get("resources") or {})

    def _make_network(self) -> None:
        """A namespace of its own with the network in it, or the one that config.json names."""
        given = self._namespaces()
        if "network" not in given or ("user" in given and not given["network"]):
            return  # the host's; or CRIU makes it inside the user namespace, and we fill it then
        assert self.state is not None
        if self.wanted.netns >= 0:
            self.netns = os.dup(self.wanted.netns)
            self.state.network = self.wanted.network
            self._set_sysctls(self.netns)
            return
        if given["network"]:
            self.netns = _open_namespace(given["network"], self.id)
            return
        self.netns = new_network()
        self._fill_network(self.netns)

    def _fill_network(self, netns: int) -> None:
        assert self.state is not None
        netlink.loopback_up(netns)
        self._set_sysctls(netns)
        if self.wanted.connect is not None:
            self.state.network = self.wanted.connect(netns)

    def _set_sysctls(self, netns: int) -> None:
        """Those of the network; the others are in the images."""
        wanted = (self.spec.get("linux") or {}).get("sysctl") or {}
        with netlink.Inside(netns):
            for name, value in wanted.items():
                if name.startswith(("net.", "net/")):
                    _sysctl(name, str(value), self.id)

    def _namespaces(self) -> dict[str, str]:
        entries = (self.spec.get("linux") or {}).get("namespaces") or []
        return {each["type"]: each.get("path") or "" for each in entries}

    def _start(self, facts: Mapping[str, Any]) -> None:
        group = self.group
        assert group is not None
        own_view = "cgroup" in self._namespaces()

        def enter() -> None:
            group.add(os.getpid())
            stage.enter(cgroup_namespace=(lambda: None) if own_view else None)

        self._collect_descriptors(facts)
        self.session = rpc.Session(binary.find())
        shell = self.wanted.shell_job
        self.session.start(
            hand_over=self.held.fds, stage=enter, own_group=not shell,
            stdin=self.wanted.stdio[0] if shell else -1,
        )  # fmt: skip
        able = features.ask(self.session)
        if self.wanted.lazy_pages:
            features.require_lazy_pages(able)

    def _collect_descriptors(self, facts: Mapping[str, Any]) -> None:
        """Namespaces, streams, files of the host."""
        given = self._namespaces()
        if self.netns >= 0:
            self.held.add(NAMESPACE_KEYS["network"], self.netns, ours=False)
        if given.get("pid"):
            fd = _open_namespace(given["pid"], self.id)
            self.held.add(NAMESPACE_KEYS["pid"], fd, ours=True)
        for number, name in enumerate(facts.get("streams", [])[:3]):
            if name.startswith(("pipe:[", "socket:[")):
                self.held.add(name, self.wanted.stdio[number], ours=False)
        for value in facts.get("files", []):
            file = descriptors.HostFile.from_json(value)
            self.held.add(file.handed(), descriptors.open_again(file, self.wanted.stdio), ours=True)

    # -- with the images ------------------------------------------------------------------------------

    def run(self, *, on_restored: OnRestored | None = None) -> ContainerState:
        """Restore from the image; the container runs when this returns."""
        self._on_restored = on_restored
        self.manifest = self.image.verify() if self.wanted.verify else self.image.manifest()
        if self.wanted.empty_ns:
            options.empty_namespaces(self.wanted.empty_ns)
        if self.session is None:
            self.prepare(self.image.config())
        elif not self._wanted_keys() <= set(self.held.keys):
            self.session.close()
            self.held.close()
            self.held = _Held()
            self._start(self.manifest.facts)
        assert self.session is not None
        assert self.state is not None
        externals = [External.from_json(value) for value in self.manifest.facts.get("mounts", [])]
        notify = os.path.join(self.store.path(self.id), "notify")
        where = stage.Places(self.id, self.state.bundle, self.state.cgroups, notify)
        stage.make_mount_points(self.state.rootfs, _targets(self.spec, externals), self.id)
        self._lock_network()
        with stage.Sources() as sources:
            sources.add_root(self.state.rootfs, slave=bool(self.manifest.facts.get("root_slave")))
            sources.add(externals, where)
            if self._mapped():
                sources.add_images(self.image.directory, self.manifest, self.spec["linux"])
            sources.attach(self.session.pid)
            self.times["staged"] = time.monotonic()
            self._call(self.session, sources.paths())
        self.times["done"] = time.monotonic()
        if self.lock is not None:
            self.lock.remove()
        self._show_times()
        return self.state

    def _mapped(self) -> bool:
        return "user" in self._namespaces() and bool(self.spec["linux"].get("uidMappings"))

    def _wanted_keys(self) -> set[str]:
        facts = self.manifest.facts
        streams = {
            name for name in facts.get("streams", []) if name.startswith(("pipe:", "socket:"))
        }
        files_ = [descriptors.HostFile.from_json(value) for value in facts.get("files", [])]
        return streams | {file.handed() for file in files_}

    def _lock_network(self) -> None:
        if self.netns >= 0 and self._keeps_connections():
            self.lock = netlock.NetworkLock(self.store.path(self.id), self.netns)
            self.lock.take()

    def _keeps_connections(self) -> bool:
        return bool(self.manifest.options.get("tcp_established")) and not self.wanted.tcp_close

    def _call(self, session: rpc.Session, sources: Mapping[str, str]) -> None:
        work_path = os.path.abspath(self.wanted.work_path or self.image.directory)
        os.makedirs(work_path, mode=0o700, exist_ok=True)
        log_path = os.path.join(work_path, LOG)
        with (
            Fd(os.open(self.image.directory, os.O_RDONLY | os.O_DIRECTORY)) as images,
            Fd(os.open(work_path, os.O_RDONLY | os.O_DIRECTORY)) as work,
        ):
            request = session.request("RESTORE")
            self._options(images, work, sources).write(session.rpc, request.opts)
            callbacks = {
                "setup-namespaces": self._set_up,
                "orphan-pts-master": self._take_terminal,
                "post-restore": self._restored,
                "network-unlock": self._release,
            }
            try:
                os.unlink(log_path)
            except FileNotFoundError:
                pass
            session.call(request, notify=callbacks, watch=rpc.Watch(log_path))
        session.close()

    def _options(self, images: int, work: int, sources: Mapping[str, str]) -> options.CriuOptions:
        wanted = self.wanted
        values: dict[str, Any] = {
            "root": stage.ROOT,
            "rst_sibling": True,
            "orphan_pts_master": True,
            "ext_masters": True,
        }
        for name in ("tcp_established", "ext_unix_sk", "shell_job", "file_locks"):
            if getattr(wanted, name) or self.manifest.options.get(name):
                values[name] = True
        if wanted.tcp_close:
            values["tcp_close"] = True
            values.pop("tcp_established", None)
        for name in ("auto_dedup", "lazy_pages"):
            if getattr(wanted, name):
                values[name] = True
        for name in ("lsm_profile", "lsm_mount_context"):
            if getattr(wanted, name):
                values[name] = getattr(wanted, name)
        if self.manifest.facts.get("network_empty") or wanted.empty_ns:
            values["empty_ns"] = CLONE_NEWNET
        if self._mapped():
            images, values["images_dir"] = -1, stage.IMAGES
        joined = self._namespaces()
        return options.CriuOptions(
            images, work, LOG, values,
            tuple(f"mnt[{key}]:{path}" for key, path in sources.items()),
            {key: rpc.Session.handed(index) for index, key in enumerate(self.held.keys)},
            {name: joined[name] for name in ("ipc", "uts") if joined.get(name)},
            cgroup_mode=wanted.manage_cgroups_mode or "ignore",
            lock=wanted.network_lock or "skip",
        )  # fmt: skip

    # -- CRIU's questions -------------------------------------------------------------------------------

    def _set_up(self, notice: rpc.Notice) -> None:
        """The namespaces exist, nothing is in them."""
        assert self.state is not None
        self.pid = notice.pid
        self.state.adopt(notice.pid)
        if self.netns < 0 and "network" in self._namespaces():
            self.netns = os.open(f"/proc/{notice.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self._fill_network(self.netns)
            self._lock_network()
        wanted = self.spec.get("hooks") or {}
        if wanted.get("prestart") or wanted.get("createRuntime"):
            document = lifecycle.hook_document(self.state, "creating")
            hooks.run(wanted.get("prestart") or [], document, "prestart")
            hooks.run(wanted.get("createRuntime") or [], document, "createRuntime")

    def _take_terminal(self, notice: rpc.Notice) -> None:
        if notice.fd < 0:
            return
        if self.wanted.console_socket:
            console.send_fd(self.wanted.console_socket, notice.fd, "/dev/console")
        elif self.master < 0:
            self.master = os.dup(notice.fd)

    def _restored(self, notice: rpc.Notice) -> None:
        """It is whole, and does not run: the last moment to say no."""
        assert self.state is not None
        self.times["restored"] = time.monotonic()
        self.pid = notice.pid
        self.state.adopt(notice.pid)
        self.state.created = now()
        self.state.descriptors = descriptors.streams(notice.pid)
        self.store.save(self.state, sync=False)
        if self.wanted.pid_file:
            files.write_atomic(self.wanted.pid_file, str(notice.pid).encode(), 0o644, sync=False)
        if self._on_restored is not None:
            self._on_restored(notice.pid)
        self.times["released"] = time.monotonic()

    def _release(self, _: rpc.Notice) -> None:
        if self.lock is not None:
            self.lock.release()

    # -- the end ------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """The container runs and is nobody's to undo."""
        self.settled = True

    def take_master(self) -> int:
        """The master of the container's terminal (or -1), which is the caller's from now on."""
        master, self.master = self.master, -1
        return master

    def _close(self) -> None:
        if self.session is not None:
            self.session.__exit__()
        self.held.close()
        for fd in (self.netns, self.master):
            if fd >= 0:
                os.close(fd)
        self.netns = self.master = -1

    def _undo(self) -> None:
        """Kill CRIU and what it made, remove what we made. What hinders is a warning."""
        if self.session is not None:
            self.session.kill()
        if self.group is not None:
            try:
                self.group.kill_all(9)
            except OSError as error:
                log.warning(f"container {self.id}: {error}")
        _reap(self.pid)
        if self.lock is not None and self._namespaces().get("network") == "":
            self.lock.remove()
        if self.claimed:
            try:
                lifecycle.delete(self.store, self.id, force=True)
            except OcimigError as error:
                log.warning(f"container {self.id}: not all of it could be removed: {error}")

    def _show_times(self) -> None:
        begin = self.times.get("begin", 0.0)
        shown = [f"{name} +{(when - begin) * 1e3:.1f} ms" for name, when in self.times.items()]
        log.debug("restore: " + ", ".join(shown))


def new_network() -> int:
    """A descriptor of a new, empty network namespace."""
    with Fd(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as own:
        namespaces.unshare(CLONE_NEWNET)
        try:
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            namespaces.setns(own, CLONE_NEWNET)


def _open_namespace(path: str, id: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise RestoreFailed(id=id, reason=f"namespace {path}: {error.strerror}") from error


def _sysctl(name: str, value: str, id: str) -> None:
    path = name if "/" in name else name.replace(".", "/")
    if ".." in path.split("/"):
        raise BadOption(option="linux.sysctl", reason=f"{name!r} is no name")
    try:
        with Fd(os.open(f"/proc/sys/{path}", os.O_WRONLY | os.O_CLOEXEC)) as fd:
            os.write(fd, value.encode())
    except OSError as error:
        raise RestoreFailed(id=id, reason=f"sysctl {name}: {error.strerror}") from error


def _targets(spec: Mapping[str, Any], externals: list[External]) -> list[tuple[str, bool]]:
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


def _reap(pid: int) -> None:
    if pid:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass
