"""exec: one more process in a running container. Never changes the container."""

import os

from ocimig.errors import SystemFailure
from ocimig.runtime import facts as host
from ocimig.runtime import hand_over, launch, plan, steps, sync
from ocimig.runtime.errors import PausedExec, StoppedExec
from ocimig.runtime.state import CREATED, PAUSED, RUNNING, ContainerState, alive, status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocimig.runtime.store import Store

# /proc/PID/ns has these; "user" first, so that joining it gives the right to the others
NAMESPACE_FILES = {
    "user": "user", "mount": "mnt", "uts": "uts", "ipc": "ipc", "network": "net",
    "pid": "pid_for_children", "cgroup": "cgroup", "time": "time_for_children",
}  # fmt: skip
# what a process.json that does not say otherwise has from the container's own process
INHERITED = ("apparmorProfile", "capabilities", "noNewPrivileges", "rlimits", "selinuxLabel")


class ExecOptions:
    """How a process is added; see the options of `ocimig exec`."""

    __slots__ = (
        "apparmor",
        "cgroups",
        "console_socket",
        "detach",
        "ignore_paused",
        "no_subreaper",
        "pid_file",
        "pidfd_socket",
        "preserve_fds",
        "process_label",
    )  # fmt: skip

    def __init__(
        self,
        *,
        console_socket: str = "",
        pidfd_socket: str = "",
        pid_file: str = "",
        detach: bool = False,
        preserve_fds: int = 0,
        cgroups: "list[str] | None" = None,
        ignore_paused: bool = False,
        no_subreaper: bool = False,
        process_label: str = "",
        apparmor: str = "",
    ) -> None:
        self.console_socket = console_socket
        self.pidfd_socket = pidfd_socket
        self.pid_file = pid_file
        self.detach = detach
        self.preserve_fds = preserve_fds
        self.cgroups = cgroups or []
        self.ignore_paused = ignore_paused
        self.no_subreaper = no_subreaper
        self.process_label = process_label
        self.apparmor = apparmor


def process_of(
    spec: "dict[str, Any]",
    argv: "list[str]",
    *,
    cwd: str = "",
    env: "list[str] | None" = None,
    tty: bool = False,
    user: "tuple[int, int | None] | None" = None,
    gids: "list[int] | None" = None,
    caps: "list[str] | None" = None,
    no_new_privs: bool = False,
) -> "dict[str, Any]":
    """The process to execute: that of the container's configuration with what the options change."""
    process = dict(spec["process"])
    process["args"] = list(argv)
    process["terminal"] = tty
    if cwd:
        process["cwd"] = cwd
    process["env"] = [*(process.get("env") or []), *(env or [])]
    if user is not None:
        uid, gid = user
        gid = process["user"]["gid"] if gid is None else gid
        process["user"] = {**process["user"], "uid": uid, "gid": gid}
    if gids:
        before = process["user"].get("additionalGids") or []
        process["user"] = {**process["user"], "additionalGids": [*before, *gids]}
    if caps:
        from ocimig.runtime import capabilities

        process["capabilities"] = capabilities.added(process.get("capabilities"), caps)
    if no_new_privs:
        process["noNewPrivileges"] = True
    return process


def execute(store: "Store", id: str, process: "dict[str, Any]", options: ExecOptions) -> int:
    """Run `process` (as `process` of config.json) in the container.

    Returns its exit code (128+N when a signal ended it), or 0 at once with `detach`. Raises
    StoppedExec or PausedExec, and InitFailed when it could not be started.
    """
    state = store.load(id)
    now = status(state, store)
    if now == PAUSED and not options.ignore_paused:
        raise PausedExec(id=id)
    if now not in {CREATED, RUNNING, PAUSED}:
        raise StoppedExec(id=id)
    own = store.config(id)["process"]
    process = {**{key: own[key] for key in INHERITED if key in own}, **process}
    if options.process_label:
        process["selinuxLabel"] = options.process_label
    if options.apparmor:
        process["apparmorProfile"] = options.apparmor
    terminal = bool(process.get("terminal"))
    hand_over.check_terminal(terminal, options.detach, options.console_socket)
    addition = Addition(store, state, process, options)
    if options.detach:
        addition.make()
        return 0
    from ocimig.runtime import foreground

    with foreground.Foreground(terminal, subreaper=False) as front:
        addition.arm = front.arm
        pid = addition.make()
        front.attach(pid, addition.master)
        addition.master = -1
        return front.wait()


class Addition:
    """One process on its way into a container."""

    __slots__ = ("arm", "master", "options", "process", "spec", "state", "store")

    def __init__(
        self,
        store: "Store",
        state: ContainerState,
        process: "dict[str, Any]",
        options: ExecOptions,
    ) -> None:
        self.store = store
        self.state = state
        self.process = process
        self.options = options
        self.spec = store.config(state.id)
        self.arm: Callable[[], None] | None = None  # called just before the process runs
        self.master = -1

    def make(self) -> int:
        """Start it; returns its pid."""
        count, env = host.preserved(self.options.preserve_fds)
        facts = plan.Facts(self.state.bundle, self.state.rootfs)
        host.describe_process(facts, self.spec, self.process, self.store.root)
        facts.env = env
        facts.fifo = False
        outside = self._enter_cgroup(facts)
        given = self._open()
        try:
            wanted = self._steps(facts, given)
            with launch.Launch(wanted, given=given, outside=outside) as started:
                started.handlers = {
                    sync.HOOKS: lambda: self._limits(started),
                    sync.READY: lambda: self._ready(started),
                }
                return started.run(first=3 + count)
        finally:
            for fd in given.values():
                os.close(fd)

    def _open(self) -> "dict[str, int]":
        """The container's process."""
        try:
            given = {"the container": os.pidfd_open(self.state.pid)}
            if not alive(self.state):  # the number may have become another's before we opened it
                raise ProcessLookupError
            return given
        except ProcessLookupError:
            raise StoppedExec(id=self.state.id) from None

    def _steps(self, facts: plan.Facts, given: "dict[str, int]") -> "list[steps.Step]":
        found = [steps.enter_cgroup(path, value) for path, value in facts.cgroup_joins]
        found += plan.labels(self.process, facts)
        flags = self._other_namespaces()
        if flags:
            source = steps.Source("fd", "the container")
            if flags & plan.CLONE_NEWUSER:
                found.append(steps.join(source, plan.CLONE_NEWUSER, "user"))
                found.append(steps.become_root(0))
                flags &= ~plan.CLONE_NEWUSER
            found.append(steps.join(source, flags, "container's"))
        # setns(2) goes to the top of the mount namespace, which is not the container's root where the
        # host itself lives in a chroot, or the container has no mount namespace.
        given["the root"] = self._root()
        found.append(steps.root(steps.Source("fd", "the root"), False, 0))
        found.append(steps.pivot(steps.CHROOT))
        found.append(steps.fork(facts.cgroup_fork))
        found.append(steps.setsid())
        found.append(steps.sync(sync.HOOKS, "limits"))
        if self.process.get("terminal"):
            size = self.process.get("consoleSize") or {}
            uid = self.process["user"]["uid"]
            rows, columns = size.get("height") or 0, size.get("width") or 0
            found.append(steps.console(rows, columns, False, uid))
        found += plan.process(self.process, facts)
        return found

    def _root(self) -> int:
        """The root directory of the container's process."""
        try:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            fd = os.open(f"/proc/{self.state.pid}/root", flags)
        except FileNotFoundError:
            raise StoppedExec(id=self.state.id) from None
        if not alive(self.state):  # else it may be that of another process of this number
            os.close(fd)
            raise StoppedExec(id=self.state.id)
        return fd

    def _other_namespaces(self) -> int:
        flags = 0
        for name, file in NAMESPACE_FILES.items():
            try:
                there = os.stat(f"/proc/{self.state.pid}/ns/{file}").st_ino
                here = os.stat(f"/proc/self/ns/{file}").st_ino
            except (
                FileNotFoundError
            ):  # the kernel has no such namespace, or pid 1 has not forked yet
                continue
            except OSError as error:
                raise SystemFailure.of(
                    f"look at the namespaces of {self.state.id}", error
                ) from None
            if there != here:
                flags |= plan.FLAGS[name]
        return flags

    def _enter_cgroup(self, facts: plan.Facts) -> "Callable[[int], None] | None":
        """Into the container's cgroup: by itself where it can, else by the function that is returned."""
        if not self.state.cgroups:
            return None
        from ocimig.runtime import cgroups

        cgroup = cgroups.from_facts(self.state.cgroups)
        within = self.options.cgroups
        if within:
            return lambda pid: cgroup.add(pid, within)
        facts.cgroup_joins = cgroup.joins()
        if not self._other_namespaces() & plan.CLONE_NEWUSER:
            facts.cgroup_fork = cgroup.fork_into()
        return cgroup.add if cgroup.fork_into() or not facts.cgroup_joins else None

    def _limits(self, started: launch.Launch) -> bytes:
        host.limit_process(started.pid, self.process)
        final = (self.process.get("execCPUAffinity") or {}).get("final")
        if final:
            os.sched_setaffinity(started.pid, cpus(final))
        return b""

    def _ready(self, started: launch.Launch) -> bytes:
        self.master = hand_over.hand_over(started, self.options)
        if self.arm is not None:
            self.arm()
        return b""


def cpus(text: str) -> "set[int]":
    """ "0-3,7" as a set."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
