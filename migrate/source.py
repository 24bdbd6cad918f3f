"""The source of a migration on a real host: what `hands.Source` asks for, by CRIU and the kernel."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, cast

from ocimig import jsonio, log
from ocimig.errors import OcimigError
from ocimig.migrate import facts, mountinfo, throttle
from ocimig.migrate.errors import CannotMove
from ocimig.migrate.hands import Brake, Frozen, Memory, Spec
from ocimig.migrate.journal import Journal
from ocimig.migrate.lazy import mark
from ocimig.migrate.report import size
from ocimig.migrate.rounds import PAGE
from ocimig.migrate.traces import delete, discard, discard_images, disconnect, load
from ocimig.migrate.wire import Wire
from ocimig.runtime.linux import proc
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store

if TYPE_CHECKING:
    from ocimig.migrate.dirty_rate import DirtyRate
    from ocimig.migrate.move import MigrateOptions
    from ocimig.migrate.source_memory import SourceMemory
    from ocimig.runtime.cgroups import Cgroup


class RealSource:
    """The source on a real host."""

    def __init__(self) -> None:
        self._indexes: dict[str, Any] = {}
        self._watches: dict[str, Any] = {}
        self.notes: list[str] = []
        self._frozen: Any = None

    def load(self, store: Store, id: str) -> tuple[ContainerState, Spec]:
        """See Source."""
        from ocimig.runtime import state as status_of

        state = store.load(id)
        status = status_of.status(state, store)
        if status != status_of.RUNNING:
            verbs = {
                status_of.PAUSED: f"ocimig resume {id}",
                status_of.CREATED: f"ocimig start {id}",
            }
            fix = verbs.get(status)
            raise CannotMove(id=id, status=status, fix=f"first: {fix}" if fix else "start it anew")
        mark.require(store.path(id), id)  # it came a moment ago: what has not arrived cannot leave
        return state, store.config(id)

    def container(self, state: ContainerState, spec: Spec) -> dict[str, Any]:
        """See Source."""
        found = facts.container(state, spec)
        found["files"] = facts.tree_size(sorted({state.bundle, state.rootfs or state.bundle}))
        return found

    def host(self, store: Store, request: Mapping[str, Any]) -> dict[str, Any]:
        """See Source."""
        return facts.host(store, request)

    def trees(self, state: ContainerState) -> list[tuple[str, str]]:
        """See Source."""
        found = [("bundle", state.bundle)]
        rootfs = state.rootfs
        if rootfs and (
            os.path.commonpath((rootfs, state.bundle)) != state.bundle
            or os.stat(rootfs).st_dev != os.stat(state.bundle).st_dev
        ):
            found.append(("rootfs", rootfs))
        return found

    def send_files(
        self, wire: Wire, tree: str, path: str, state: ContainerState, pids: list[int]
    ) -> None:
        """See Source."""
        from ocimig.migrate import rootfs
        from ocimig.runtime import cgroups

        def mapped() -> frozenset[int]:
            if pids:
                return frozenset()
            # those too that came by `exec`, and may be gone by the freeze
            group = cgroups.from_facts(state.cgroups).pids() if state.cgroups else []
            return rootfs.shared_mappings({*self.pids(state), *group})

        if tree not in self._watches:
            watch = self._watches[tree] = rootfs.Watch.start(path)
            if watch.blind:
                self.notes.append(f"{path}: every file is looked at in the freeze: {watch.blind}")
        self._indexes[tree], _sent = rootfs.send(
            wire,
            path,
            previous=self._indexes.get(tree),
            watch=self._watches[tree],
            suspects=rootfs.shared_mappings(pids),
            opened=rootfs.opened(pids),
            mapped=mapped,
        )

    def knows_files(self, tree: str) -> bool:
        """See Source."""
        return tree in self._indexes

    def forget_files(self) -> None:
        """See Source."""
        self._indexes.clear()

    def pids(self, state: ContainerState) -> list[int]:
        """See Source."""
        return [state.pid, *proc.descendants(state.pid)]

    def dirty_rate(self, store: Store, id: str, options: "MigrateOptions") -> "DirtyRate | None":
        """See Source."""
        from ocimig.migrate import dirty_rate

        if options.tracker == "none":
            return None
        return dirty_rate.measure(store, id, prefer=options.tracker, claimed=True)

    def close(self) -> None:
        """See Source."""
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()

    def memory(
        self, state: ContainerState, options: "MigrateOptions", streams: Sequence[Wire]
    ) -> Memory | None:
        """See Source."""
        from ocimig.migrate import dirty_rate, trackers
        from ocimig.migrate.memory.sender import PageSender
        from ocimig.migrate.source_memory import SourceMemory

        tracker = trackers.choose(
            options.tracker, pause=lambda: dirty_rate.paused(state), shared=True
        )
        try:
            sender = PageSender(
                streams,
                compress=options.compress,
                limit=options.policy.max_bandwidth,
                witness=tracker.sent,
            )
            last = PageSender(streams[:1], compress=options.compress, after=sender)
            memory = SourceMemory(state.pid, tracker, sender, last)
            if back := sender.learn():
                memory.notes.append(f"{size(back * PAGE)} of it were kept there from its last stay")
        except BaseException:
            tracker.close()
            raise
        return memory

    def keep_memory(self, store: Store, state: ContainerState, memory: Memory) -> None:
        """See Source."""
        from ocimig.migrate.memory.retained import Retained

        kept = Retained(store, state.id).keep(cast("SourceMemory", memory).held())
        log.debug(f"{kept.pages} pages kept in {kept.seconds:.1f} s {kept.reason}")

    def brake(self, state: ContainerState, entry: Journal) -> Brake:
        """See Source."""
        return throttle.Throttle(state.cgroups, entry.home)

    def foresee(self, state: ContainerState, spec: Spec) -> dict[str, Any]:
        """See Source."""
        import ocimig.migrate.network  # noqa: F401  pyroute2 takes 120 ms
        from ocimig.migrate import checkpoint

        return {
            "config": spec,
            "foreseen": checkpoint.foresee(state, spec),
            "systemd": bool(state.systemd_unit),
        }

    def dump(
        self,
        store: Store,
        state: ContainerState,
        entry: Journal,
        options: "MigrateOptions",
        on_frozen: Callable[[Frozen], None],
        memory: Memory | None = None,
        before_freeze: Callable[[], None] | None = None,
    ) -> None:
        """See Source."""
        from ocimig.migrate import checkpoint, dump_request

        follows = cast("SourceMemory | None", memory)

        def frozen_there(frozen: checkpoint.Frozen) -> None:
            self._frozen = frozen
            request = {"manifest": jsonio.loads(frozen.manifest.to_json())}
            if follows is not None:
                request["hot"] = follows.hot()
                request["post_copy"] = follows.post_copy
                follows.confirm = frozen.confirm
            began = frozen.times.get("begin", time.monotonic())
            on_frozen(
                Frozen(frozen.image.directory, began, list(frozen.pids), request, frozen.times)
            )

        checkpoint.checkpoint(
            store,
            state.id,
            dump_request.CheckpointOptions(
                image_path=str(entry.facts["images"]),
                work_path=os.path.join(entry.home, "criu"),
                tcp_established=not options.tcp_close,
                tcp_close=options.tcp_close,
                file_locks=options.file_locks,
                link_remap=options.link_remap,
                ext_unix_sk=options.ext_unix_sk,
                seal=False,
                keep=True,
                before_freeze=before_freeze,
                confirm_late=follows is not None,
            ),
            on_frozen=frozen_there,
            memory=follows,
        )

    def hold(self, store: Store, state: ContainerState, migration: str) -> None:
        """See Source."""
        if self._frozen is not None:
            self._frozen.held = True  # from here on not even its failure may thaw or unlock
        state.extra["held"] = migration
        store.save(state, sync=False)  # everybody waits; after a power cut nothing is held any more
        if state.cgroups:
            from ocimig.runtime import cgroups

            cgroups.from_facts(state.cgroups).freeze()
        if state.network:
            from ocimig.migrate import network

            network.detach(state.network)

    def kill(self, state: ContainerState) -> None:
        """See Source."""
        from ocimig.runtime.linux import process

        if not state.cgroups:
            return
        from ocimig.runtime import cgroups

        # In a frozen cgroup of version 1 a SIGKILL waits for the thaw, and is then the first thing
        # that happens: nothing runs in between, whatever becomes of us and of CRIU.
        group = cgroups.from_facts(state.cgroups)
        group.kill_all(process.SIGKILL)
        group.thaw()

    def let_run(self, store: Store, entry: Journal) -> bool:
        """See Source."""
        try:
            throttle.restore_left(entry.home)
        finally:
            lives = let_run(store, str(entry.facts["id"]))
        return lives

    def discard_images(self, entry: Journal) -> None:
        """See Source."""
        discard_images(entry)

    def remove(self, store: Store, entry: Journal) -> list[str]:
        """See Source."""
        left: list[str] = []
        id = str(entry.facts["id"])
        state = load(store, id)
        paths: list[str] = []
        if state is None or _is_the_one(state, entry):
            paths = _unchanged(entry)
        if state is not None and _is_the_one(state, entry):
            _attempt(left, f"container {id}", lambda: delete(store, id))
        if network := entry.facts.get("network"):
            _attempt(left, f"port {network['port']}", lambda: disconnect(network))
        if not entry.facts.get("keep_source_files"):
            others = [other for other in store.ids() if other != id]
            for path in paths:
                if reason := _kept(store, path, others):
                    log.warning(f"{path} is left here: {reason}")
                    continue
                _attempt(left, path, lambda path=path: discard(path))  # type: ignore[misc]
        _attempt(left, "images", lambda: self.discard_images(entry))
        return left


def marked(trees: list[tuple[str, str]]) -> list[list[str | int]]:
    """The directories that leave, for the journal: --resume removes them, and nothing in their place."""
    found: list[list[str | int]] = []
    for _, path in trees:
        with suppress(OSError):
            about = os.stat(path)
            found.append([path, about.st_dev, about.st_ino])
    return found


def _unchanged(entry: Journal) -> list[str]:
    """Those of them that are still the same directories, what lies inside of others first."""
    found = []
    for path, device, inode in reversed(entry.facts.get("trees") or []):
        with suppress(OSError):
            about = os.stat(path)
            if (about.st_dev, about.st_ino) == (device, inode):
                found.append(str(path))
    return found


def _is_the_one(state: ContainerState, entry: Journal) -> bool:
    """The container that went away, not one that was made under its name since."""
    same = (state.pid, state.start_time) == (entry.facts["pid"], entry.facts["start_time"])
    return same or state.pid == 0


def _kept(store: Store, path: str, others: list[str]) -> str:
    """Why the files that moved away are not removed here; "" when nobody else needs them."""
    real = os.path.realpath(path)
    if _within(store.root, real):
        return f"the state of the containers lies in it ({store.root})"
    for mount in mountinfo.read():
        if _within(mount.target, real):
            return f"a file system is mounted on {mount.target}: umount it, then remove the rest"
    for other in others:
        state = load(store, other)
        used = (state.bundle, state.rootfs) if state is not None else ()
        for theirs in filter(None, used):
            if _within(os.path.realpath(theirs), real) or _within(real, os.path.realpath(theirs)):
                return f"container {other} uses {theirs}"
    return ""


def _within(path: str, tree: str) -> bool:
    return path == tree or path.startswith(tree.rstrip("/") + "/")


def lives_here(store: Store, id: str) -> bool:
    """Whether a process of the container is left on this host, frozen or not."""
    from ocimig.runtime import state as status_of

    state = load(store, id)
    return state is not None and status_of.alive(state)


def let_run(store: Store, id: str) -> bool:
    """The container is ours: attach, unlock and thaw it. Fine when none of that is needed; whether it lives.

    Without its network it is still better off running: what fails is raised once it is thawed.
    """
    from ocimig.migrate import netlock, network
    from ocimig.runtime import cgroups

    state = load(store, id)
    if state is None or not lives_here(store, id):
        return False
    group = cgroups.from_facts(state.cgroups) if state.cgroups else None
    with ExitStack() as last_first:  # each of them although another failed
        last_first.callback(_thaw, group)
        last_first.callback(netlock.clear_repair, group.pids() if group else [state.pid])
        last_first.callback(_unlock, state.pid)
        if state.network:
            last_first.callback(network.attach, state.network)
        if state.extra.pop("held", None):
            store.save(state)
    netlock.forget(os.path.join(store.path(id), netlock.JOURNAL))
    return True


def _thaw(group: "Cgroup | None") -> None:
    if group is not None and group.frozen():
        group.thaw()


def _unlock(pid: int) -> None:
    from ocimig.migrate import network
    from ocimig.runtime.linux import netlink

    namespace = network.open_namespace(pid)
    try:
        if not _is_ours(namespace):
            netlink.unlock(namespace)
    finally:
        os.close(namespace)


def _is_ours(namespace: int) -> bool:
    """Whether the container shares the host's network, which is never locked as a whole."""
    here, there = os.stat("/proc/self/ns/net"), os.fstat(namespace)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _attempt(left: list[str], what: str, act: Callable[[], None]) -> None:
    try:
        act()
    except (OcimigError, OSError) as error:
        left.append(f"{what}: {error}")
