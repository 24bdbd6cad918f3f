"""One container in the making: what `create` and `run` share. Never starts one that exists."""

import os

from ocimig import jsonio, log
from ocimig.errors import OcimigError
from ocimig.runtime import facts as host
from ocimig.runtime import hand_over, launch, mounts, plan, sync
from ocimig.runtime.bundle import load_spec, rootfs_of
from ocimig.runtime.linux import proc
from ocimig.runtime.state import CREATED, ContainerState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocimig.runtime.cgroups import Cgroup
    from ocimig.runtime.create import CreateOptions
    from ocimig.runtime.notify import Notify
    from ocimig.runtime.store import Store

    Connect = Callable[[int], "dict[str, Any] | None"]


class Making:
    """One container in the making: what `create` and `run` share."""

    __slots__ = (
        "arm",
        "bundle",
        "cgroup",
        "connect",
        "master",
        "notify",
        "options",
        "spec",
        "state",
        "store",
    )

    def __init__(self, store: "Store", id: str, bundle: str, options: "CreateOptions") -> None:
        self.store = store
        self.options = options
        self.bundle = os.path.abspath(bundle or ".")
        self.spec = load_spec(self.bundle, options.config)
        self.arm: Callable[[], None] | None = None  # called just before the process runs
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
            descriptors=host.standard_streams(),
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

    def explain(self) -> "list[str]":
        """Each step of making it in words; nothing is made."""
        self.cgroup = self._open_cgroup()
        _, env = host.preserved(self.options.preserve_fds)
        return [step.describe() for step in plan.plan(self.spec, self._facts(env))]

    def _open_cgroup(self) -> "Cgroup":
        from ocimig.runtime import cgroups

        return cgroups.open_cgroup(
            self.spec.get("linux") or {},
            self.state.id,
            systemd=self.options.systemd_cgroup,
            rootless=self.options.rootless,
        )

    def _make(self, fifo: bool) -> None:
        self.cgroup = self._open_cgroup()
        count, env = host.preserved(self.options.preserve_fds)
        self._make_cgroup()
        self._relay_notifications()
        facts = self._facts(env)
        facts.fifo = fifo
        given = {}
        if fifo:
            path = self.store.fifo(self.state.id)
            os.mkfifo(path, 0o622)
            given["exec.fifo"] = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            with launch.Launch(plan.plan(self.spec, facts), given=given) as started:
                if self.cgroup.fork_into():
                    started.outside = self.cgroup.add
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
        host.describe_process(facts, self.spec, self.spec["process"], self.store.root)
        facts.env = env
        facts.no_pivot = self.options.no_pivot
        facts.start_hooks = (self.spec.get("hooks") or {}).get("startContainer") or []
        if not self.options.no_new_keyring:
            facts.keyring = f"_ses.{self.state.id}"
        if self.notify is not None:
            facts.env = [*env, self.notify.environment()]
        assert self.cgroup is not None
        facts.cgroup_joins = self.cgroup.joins()
        new, joined = plan.namespaces(self.spec)
        mapped = "user" in new or "user" in joined
        if (
            not mapped
        ):  # a mapped root may not write to it, and a failed clone3 kills a new pid namespace
            facts.cgroup_fork = self.cgroup.fork_into()
        for index, mount in enumerate(self.spec.get("mounts") or []):
            if mount.get("type") in {"cgroup", "cgroup2"} and not mounts.is_bind(mount):
                facts.cgroup_mounts[index] = host.cgroup_mount(
                    self.cgroup, mount, "cgroup" in new, mapped
                )
        return facts

    def _relay_notifications(self) -> None:
        self.notify = relay(self.store.path(self.state.id))
        if self.notify is not None:
            self.notify.prepare()
            given = [*(self.spec.get("mounts") or []), self.notify.mount()]
            self.spec = {**self.spec, "mounts": given}

    def _make_cgroup(self) -> None:
        """Make the cgroup; it counts as ours, to be killed and removed, only once it was made.

        One of that name may be another's. Until then a crash leaves directories: what is planned is
        written down first, and `delete` removes it where it is empty.
        """
        assert self.cgroup is not None
        self.state.extra["planned_cgroups"] = self.cgroup.facts()
        self.store.save(self.state, sync=False)
        if not self.options.systemd_cgroup:  # a unit is made for a process that is there already
            self._cgroup_made(0)

    def _cgroup_made(self, pid: int) -> None:
        assert self.cgroup is not None
        owner = -1
        if "user" in plan.namespaces(self.spec)[0]:
            rows = self.spec["linux"].get("uidMappings") or []
            owner = next((row["hostID"] for row in rows if row["containerID"] == 0), -1)
        self.cgroup.create(pid, owner)
        self.state.cgroups = self.cgroup.facts()
        del self.state.extra["planned_cgroups"]
        self.store.save(self.state, sync=False)

    def _place(self, pid: int) -> None:
        if self.options.systemd_cgroup:
            self._cgroup_made(pid)

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
        host.limit_process(started.pid, self.spec["process"])
        self.state.adopt(started.pid)
        if self.connect is not None:
            self.state.network = self.connect(started.pid)
        wanted = self.spec.get("hooks")
        if not wanted:
            return b""
        from ocimig.runtime import hooks

        document = self.document("creating")
        hooks.run(wanted.get("prestart") or [], document, "prestart")
        hooks.run(wanted.get("createRuntime") or [], document, "createRuntime")
        return self._inside(document)

    def _ready(self, started: launch.Launch) -> bytes:
        if sync.LISTENER in started.received:
            from ocimig.runtime import seccomp

            listener = started.received.pop(sync.LISTENER)
            seccomp.send_listener(self.spec, listener, self.document("creating"), started.pid)
        self.store.save(self.state, sync=False)
        self.master = hand_over.hand_over(started, self.options)
        if self.notify is not None and not os.path.exists(self.store.fifo(self.state.id)):
            self.notify.bind()
        if self.arm is not None:
            self.arm()
        if (self.spec.get("hooks") or {}).get("startContainer"):
            return self._inside(self.document(CREATED))
        return b""

    def _inside(self, document: "dict[str, Any]") -> bytes:
        """The state as a hook in the container's namespaces reads it: with the pid as seen there."""
        lines = proc.status(self.state.pid) or {}
        inside = lines.get("NSpid", "").split()[-1:] or [str(self.state.pid)]
        return jsonio.dumps({**document, "pid": int(inside[0])}).encode()

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


def relay(directory: str) -> "Notify | None":
    """The relay of sd_notify(3), where our own environment asks for one."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    from ocimig.runtime.notify import Notify

    return Notify.of(directory)
