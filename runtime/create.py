"""create, start and run: from a bundle to a process. Decides the order; `plan` decides the steps."""

import errno
import os
import select

from ocimig import files, jsonio, log
from ocimig.errors import OcimigError, SystemFailure
from ocimig.runtime import hooks, launch, limits, mounts, passwd, plan, steps, sync, validate
from ocimig.runtime.errors import (
    AlreadyRunning,
    AlreadyStopped,
    BadDescriptor,
    CannotRunHere,
    CannotStart,
    ConsoleMismatch,
    NoBundle,
    NoRootfs,
)
from ocimig.runtime.notify import Notify
from ocimig.runtime.state import CREATED, PAUSED, RUNNING, STOPPED, ContainerState, status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocimig.runtime.cgroups import Cgroup
    from ocimig.runtime.store import Store

    Connect = Callable[[int], "dict[str, Any] | None"]


class CreateOptions:
    """How a container is made; see the options of `ocimig create`."""

    __slots__ = (
        "config", "console_socket", "detach", "keep", "no_new_keyring", "no_pivot", "no_subreaper",
        "pid_file", "pidfd_socket", "preserve_fds", "rootless", "systemd_cgroup",
    )  # fmt: skip

    def __init__(
        self,
        *,
        config: str = "",
        console_socket: str = "",
        pidfd_socket: str = "",
        pid_file: str = "",
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        preserve_fds: int = 0,
        systemd_cgroup: bool = False,
        rootless: bool = False,
        detach: bool = False,
        keep: bool = False,
        no_subreaper: bool = False,
    ) -> None:
        self.config = config
        self.console_socket = console_socket
        self.pidfd_socket = pidfd_socket
        self.pid_file = pid_file
        self.no_pivot = no_pivot
        self.no_new_keyring = no_new_keyring
        self.preserve_fds = preserve_fds
        self.systemd_cgroup = systemd_cgroup
        self.rootless = rootless
        self.detach = detach
        self.keep = keep
        self.no_subreaper = no_subreaper


class Making:
    """One container in the making: what `create` and `run` share."""

    __slots__ = ("bundle", "cgroup", "connect", "master", "notify", "options", "spec", "state", "store")

    def __init__(self, store: "Store", id: str, bundle: str, options: CreateOptions) -> None:
        self.store = store
        self.options = options
        self.bundle = os.path.abspath(bundle or ".")
        self.spec = load_spec(self.bundle, options.config)
        self.connect: Connect | None = None
        self.master = -1  # of the terminal, when it came and belongs to us
        self.cgroup: Cgroup | None = None
        self.notify: Notify | None = None
        self.state = ContainerState(
            id,
            bundle=self.bundle,
            rootfs=rootfs_of(self.spec, self.bundle),
            annotations=self.spec.get("annotations"),
            oci_version=self.spec["ociVersion"],
            descriptors=standard_streams(),
        )

    def make(self, *, fifo: bool) -> None:
        """Claim the name and make the process; it waits on the fifo, or with no fifo runs at once."""
        self.store.claim(self.state.id)
        try:
            self.store.save(self.state, sync=False)
            self.store.save_config(self.state.id, self.spec, sync=False)
            self._make(fifo)
        except BaseException:
            self.undo()
            raise

    def _make(self, fifo: bool) -> None:
        from ocimig.runtime import cgroups

        linux = self.spec.get("linux") or {}
        self.cgroup = cgroups.open_cgroup(
            linux, self.state.id, systemd=self.options.systemd_cgroup, rootless=self.options.rootless
        )
        count, env = preserved(self.options.preserve_fds)
        facts = self._facts(env)
        facts.fifo = fifo
        given = {}
        if fifo:
            path = self.store.fifo(self.state.id)
            os.mkfifo(path, 0o622)
            given["exec.fifo"] = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            with launch.Launch(plan.plan(self.spec, facts), given=given) as started:
                started.handlers = {
                    sync.MAPS: lambda: self._maps(started),
                    sync.OFFSETS: lambda: self._clocks(started),
                    sync.HOOKS: lambda: self._hooks(started),
                    sync.READY: lambda: self._ready(started),
                }
                started.run(first=3 + count, placed=self._place, meanwhile=self._limit)
        finally:
            for fd in given.values():
                os.close(fd)

    def _facts(self, env: "list[str]") -> plan.Facts:
        facts = plan.Facts(self.bundle, self.state.rootfs)
        describe_process(facts, self.spec, self.spec["process"], self.store.root)
        facts.env = env
        facts.no_pivot = self.options.no_pivot
        facts.start_hooks = (self.spec.get("hooks") or {}).get("startContainer") or []
        if not self.options.no_new_keyring:
            facts.keyring = f"_ses.{self.state.id}"
        self.notify = Notify.of(self.store.path(self.state.id))
        if self.notify is not None:
            self.notify.prepare()
            facts.env = [*env, self.notify.environment()]
            self.spec = {**self.spec, "mounts": [*(self.spec.get("mounts") or []), self.notify.mount()]}
        assert self.cgroup is not None
        new, joined = plan.namespaces(self.spec)
        mapped = "user" in new or "user" in joined
        for index, mount in enumerate(self.spec.get("mounts") or []):
            if mount.get("type") in {"cgroup", "cgroup2"} and not mounts.is_bind(mount):
                facts.cgroup_mounts[index] = cgroup_mount(self.cgroup, mount, "cgroup" in new, mapped)
        return facts

    def _place(self, pid: int) -> None:
        assert self.cgroup is not None
        self.state.cgroups = self.cgroup.facts()
        self.store.save(self.state, sync=False)  # so that a crash from here on can be cleaned up
        self.cgroup.create(pid)
        self.state.cgroups = self.cgroup.facts()

    def _limit(self) -> None:
        assert self.cgroup is not None
        self.cgroup.apply((self.spec.get("linux") or {}).get("resources") or {})

    def _maps(self, started: launch.Launch) -> bytes:
        launch.id_maps(started.child, self.spec["linux"])
        return b""

    def _clocks(self, started: launch.Launch) -> bytes:
        launch.clocks(started.child, plan.clock_offsets(self.spec))
        return b""

    def _hooks(self, started: launch.Launch) -> bytes:
        limits.apply(started.pid, self.spec["process"])
        self.state.adopt(started.pid)
        if self.connect is not None:
            self.state.network = self.connect(started.pid)
        document = self.document("creating")
        wanted = self.spec.get("hooks") or {}
        hooks.run(wanted.get("prestart") or [], document, "prestart")
        hooks.run(wanted.get("createRuntime") or [], document, "createRuntime")
        return jsonio.dumps({**document, "status": CREATED}).encode()

    def _ready(self, started: launch.Launch) -> bytes:
        if sync.CONSOLE in started.received:
            self.master = started.received.pop(sync.CONSOLE)
            if self.options.console_socket:
                from ocimig.runtime import console

                console.send_fd(self.options.console_socket, self.master, "/dev/console")
                os.close(self.master)
                self.master = -1
        if sync.LISTENER in started.received:
            from ocimig.runtime import seccomp

            listener = started.received.pop(sync.LISTENER)
            seccomp.send_listener(self.spec, listener, self.document("creating"), started.pid)
        self.store.save(self.state, sync=False)
        if self.options.pidfd_socket:
            from ocimig.runtime import console

            with files.Fd(os.pidfd_open(started.pid)) as pidfd:
                console.send_fd(self.options.pidfd_socket, pidfd, "pidfd")
        if self.options.pid_file:
            write_pid_file(self.options.pid_file, started.pid)
        if self.notify is not None and not os.path.exists(self.store.fifo(self.state.id)):
            self.notify.bind()
        return b""

    def document(self, status_: str) -> "dict[str, Any]":
        """The state as hooks get it."""
        from ocimig.runtime import lifecycle

        return lifecycle.hook_document(self.state, status_)

    def undo(self) -> None:
        """Leave nothing of a container that could not be made; what hinders is a warning."""
        from ocimig.runtime import lifecycle

        if self.master >= 0:
            os.close(self.master)
            self.master = -1
        try:
            lifecycle.delete(self.store, self.state.id, force=True)
        except OcimigError as error:
            log.warning(f"container {self.state.id}: not all of it could be removed: {error}")


def create(
    store: "Store",
    id: str,
    bundle: str,
    options: CreateOptions,
    *,
    connect: "Connect | None" = None,
) -> ContainerState:
    """Make a container whose process waits for `start`.

    `connect(pid)` is called when its namespaces exist, before any hook. Raises an OcimigError, with
    nothing left behind, when it cannot be made.
    """
    making = Making(store, id, bundle, options)
    terminal = bool(making.spec["process"].get("terminal"))
    if terminal and not options.console_socket:
        raise ConsoleMismatch(
            reason="allocate tty if ocimig will detach without setting console socket"
        )
    if options.console_socket and not terminal:
        raise ConsoleMismatch(
            reason="use console socket if ocimig will not detach or allocate tty"
        )
    making.connect = connect
    making.make(fifo=True)
    return making.state


def start(store: "Store", id: str) -> None:
    """Let a created container's process execute; returns when it has."""
    state = store.load(id)
    now = status(state, store)
    if now != CREATED:
        raise {
            RUNNING: AlreadyRunning(id=id),
            PAUSED: AlreadyRunning(id=id),
            STOPPED: AlreadyStopped(id=id),
        }.get(now) or CannotStart(id=id, status=now)
    spec = store.config(id)
    relay = Notify.of(store.path(id))
    if relay is not None:
        relay.bind()
    fifo = store.fifo(id)
    try:
        with files.Fd(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as fd:
            os.write(fd, b"\0")
            os.unlink(fifo)
            _until_closed(fd)
    except (FileNotFoundError, BrokenPipeError):
        raise AlreadyRunning(id=id) from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # nobody reads any more
            raise AlreadyStopped(id=id) from None
        raise SystemFailure.of(f"start {id}", error) from None
    _started(spec, state, relay)


def _until_closed(fd: int) -> None:
    """Wait until the other end of a fifo is closed: by execve(2), or by the end of the process."""
    poller = select.poll()
    poller.register(fd, 0)  # POLLERR comes unasked
    poller.poll()


def _started(spec: "dict[str, Any]", state: ContainerState, relay: "Notify | None") -> None:
    wanted = (spec.get("hooks") or {}).get("poststart") or []
    if wanted:
        from ocimig.runtime import lifecycle

        hooks.run_all(wanted, lifecycle.hook_document(state, RUNNING), "poststart")
    if relay is not None:
        with files.Fd(os.pidfd_open(state.pid)) as pidfd:
            relay.wait(state.pid, pidfd)
        relay.close()


def run(
    store: "Store",
    id: str,
    bundle: str,
    options: CreateOptions,
    *,
    connect: "Connect | None" = None,
) -> int:
    """create and start in one; without `detach` wait, delete the container (unless `keep`), and
    return the exit code of its process (128+N when a signal ended it)."""
    making = Making(store, id, bundle, options)
    terminal = bool(making.spec["process"].get("terminal"))
    if terminal and options.detach and not options.console_socket:
        raise ConsoleMismatch(
            reason="allocate tty if ocimig will detach without setting console socket"
        )
    if options.console_socket and not (terminal and options.detach):
        raise ConsoleMismatch(
            reason="use console socket if ocimig will not detach or allocate tty"
        )
    from ocimig.runtime import foreground

    making.connect = connect
    if options.detach:
        making.make(fifo=False)
        _started(making.spec, making.state, making.notify)
        return 0
    with foreground.Foreground(terminal, subreaper=not options.no_subreaper) as front:
        making.make(fifo=False)
        try:
            front.attach(making.state.pid, making.master)
            making.master = -1
            _started(making.spec, making.state, making.notify)
            code = front.wait()
        finally:
            if not options.keep:
                making.undo()
    return code


def load_spec(bundle: str, config: str = "") -> "dict[str, Any]":
    """The configuration of a bundle, checked to be one of a container that can be made."""
    if not os.path.isdir(bundle):
        reason = "is not a directory" if os.path.exists(bundle) else "does not exist"
        raise NoBundle(path=bundle, reason=reason)
    spec = validate.load(config or os.path.join(bundle, "config.json"))
    if not spec.get("process"):
        raise CannotRunHere(what="process", reason="config.json has none", advice="add what to run")
    return spec


def rootfs_of(spec: "dict[str, Any]", bundle: str) -> str:
    """The root file system as an absolute path, links resolved. Raises NoRootfs."""
    path = os.path.realpath(os.path.join(bundle, spec["root"]["path"]))
    if not os.path.isdir(path):
        reason = "is not a directory" if os.path.exists(path) else "does not exist"
        raise NoRootfs(path=path, reason=reason)
    return path


def standard_streams() -> "list[str]":
    """What 0, 1 and 2 are, as /proc names them: restore finds them again by that."""
    found = []
    for fd in range(3):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            found.append("")
    return found


def preserved(count: int) -> "tuple[int, list[str]]":
    """How many descriptors from 3 on the process keeps, and the variables that tell it of them."""
    env = []
    listen = os.environ.get("LISTEN_FDS", "")
    total = count
    if listen.isascii() and listen.isdigit() and int(listen):
        total += int(listen)
        env = [f"LISTEN_FDS={listen}", "LISTEN_PID="]
        if "LISTEN_FDNAMES" in os.environ:
            env.append(f"LISTEN_FDNAMES={os.environ['LISTEN_FDNAMES']}")
    for number in range(total):
        try:
            os.fstat(3 + number)
        except OSError:
            raise BadDescriptor(number=number, count=total) from None
        os.set_inheritable(3 + number, True)
    return total, env


def describe_process(
    facts: plan.Facts, spec: "dict[str, Any]", process: "dict[str, Any]", root: str
) -> None:
    """Fill in what the last steps need to know: home, capabilities, the seccomp filter, labels.

    `root` is that of the store, which keeps compiled filters.
    """
    linux = spec.get("linux") or {}
    facts.persona = linux.get("personality")
    names = [word.partition("=")[0] for word in process.get("env") or []]
    if "HOME" not in names:
        facts.home = passwd.home(facts.rootfs, process["user"]["uid"])
    if "capabilities" in process:
        from ocimig.runtime import capabilities
        from ocimig.runtime.linux.capabilities import bounding_set

        mapped = any(entry["type"] == "user" for entry in linux.get("namespaces") or [])
        available = capabilities.ALL if mapped else bounding_set()
        planned = capabilities.plan(process["capabilities"], available=available)
        for words in planned.warnings:
            log.warning(words)
        facts.caps = (
            planned.bounding, planned.effective, planned.permitted, planned.inheritable, planned.ambient
        )  # fmt: skip
    if linux.get("seccomp"):
        from ocimig.runtime import seccomp

        made = seccomp.plan(linux["seccomp"], cache=os.path.join(root, seccomp.CACHE_NAME))
        facts.seccomp, facts.seccomp_flags = made.bpf, made.flags
        if made.notify:
            facts.seccomp_flags |= plan.SECCOMP_FILTER_FLAG_NEW_LISTENER
    if process.get("apparmorProfile"):
        if not os.path.isdir("/sys/kernel/security/apparmor"):
            raise CannotRunHere(
                what="process.apparmorProfile",
                reason="AppArmor is not enabled on the host",
                advice="remove it from config.json, or boot with apparmor=1",
            )
        if not os.path.exists(facts.apparmor):
            facts.apparmor = "/proc/thread-self/attr/exec"


def cgroup_mount(
    cgroup: "Cgroup", mount: "dict[str, Any]", own: bool, mapped: bool
) -> "list[steps.Step]":
    """The steps for a mount of type "cgroup": what a container sees of its cgroups.

    `own`: it has a cgroup namespace. `mapped`: it has a user namespace, which may not mount version 1.
    """
    options = mounts.Options(mount.get("options") or [])
    target = mounts.destination(mount["destination"])
    found = []
    fixed = options.set & ~mounts.MOUNT_ATTR_RDONLY
    last: list[steps.Step] = []
    for piece in cgroup.mount_points(cgroup_namespace=own):
        path = f"{target}/{piece.destination}" if piece.destination else target
        if piece.kind == "tmpfs":  # read-only only when all is in it
            found.append(steps.mount("tmpfs", "tmpfs", path, ["mode=755"], fixed, 0, False))
            if options.set & mounts.MOUNT_ATTR_RDONLY:
                last.append(steps.attributes(path, options.set))
        elif piece.kind == "link":
            found.append(steps.symlink(piece.source, path))
        elif piece.kind == "mount" and not (mapped and piece.fstype == "cgroup"):
            words = piece.data.split(",") if piece.data else []
            found.append(
                steps.mount(piece.fstype, "cgroup", path, words, options.set, options.propagation, False)
            )
        else:
            source = steps.Source("tree", piece.fallback or piece.source)
            found.append(steps.bind(source, path, (options.set, 0, 0, 0), options.propagation))
    return found + last


def write_pid_file(path: str, pid: int) -> None:
    """The number without a newline, whole or not at all: callers read the file as soon as it is there."""
    try:
        files.write_atomic(os.path.abspath(path), str(pid).encode(), 0o644, sync=False)
    except OSError as error:
        raise SystemFailure.of(f"write the pid file {path}", error) from None



