"""A container out of a snapshot: its files, its images, its memory, and then it runs.

What a snapshot asks of the host is what its checkpoint asked: the same bundle, network and namespaces,
unless told otherwise. Whatever fails before it runs: nothing of it is left.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ocimig import files, jsonio, log
from ocimig.criu_images import image
from ocimig.migrate import facts, journal, network, restore
from ocimig.migrate.backup import files_restore, images, room
from ocimig.migrate.errors import DirectoryNotEmpty
from ocimig.migrate.far_memory import FarMemory
from ocimig.migrate.restore import RestoreOptions
from ocimig.migrate.restore_request import mapped
from ocimig.migrate.store.snapshot import Snapshot
from ocimig.migrate.store.store import Store as Repository
from ocimig.runtime import lifecycle
from ocimig.runtime.errors import ContainerExists
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store, check_id

_LARGEST_CONFIG = 16 << 20
Connect = Callable[[int], "dict[str, Any] | None"]


@dataclass(frozen=True, slots=True)
class WantedRestore:
    """As the options of `ocimig backup restore`. `bundle` is where its files go ("" is where they were);
    `connect` builds its network, see RestoreOptions; `on_restored` is called with the pid of its first
    process and the directory of its images when it is whole and does not run yet: what it raises undoes
    everything."""

    id: str
    bundle: str = ""
    tcp_close: bool = False
    detach: bool = True
    systemd_cgroup: bool = False
    stdio: tuple[int, int, int] = (0, 1, 2)
    connect: Connect | None = None
    on_restored: Callable[[int, str], None] | None = None


def restore_snapshot(
    containers: Store, repository: Repository, snapshot: Snapshot, wanted: WantedRestore
) -> ContainerState:
    """Restore a snapshot; the container runs when this returns, with all of its memory.

    The caller holds the store's shared lock. Raises ContainerExists, DirectoryNotEmpty, StoreDamaged,
    FileMissing, and what a restore raises."""
    check_id(wanted.id)
    journal.check_fence(containers, wanted.id)
    if containers.exists(wanted.id):
        raise ContainerExists(id=wanted.id)
    return _Restore(containers, repository, snapshot, wanted).run()


class _Restore:
    def __init__(
        self, containers: Store, repository: Repository, snapshot: Snapshot, wanted: WantedRestore
    ) -> None:
        self.containers = containers
        self.repository = repository
        self.snapshot = snapshot
        self.wanted = wanted
        self.home = ""
        self.places = _places(snapshot, wanted.bundle)
        self.made: list[str] = []

    def run(self) -> ContainerState:
        for path in self.places.values():
            if os.path.lexists(path) and not facts.space(path)["empty"]:
                raise DirectoryNotEmpty(path=path)
        with room.room(self.containers.root, self.wanted.id) as self.home:
            try:
                return self._run()
            except BaseException:
                for path in reversed(self.made):
                    files.remove_tree(path)
                raise

    def _run(self) -> ContainerState:
        directory = os.path.join(self.home, "images")
        images.write(self.repository, self.snapshot, directory)
        for tree in self.snapshot.trees:
            path = self.places[tree.name]
            if not os.path.lexists(path):
                os.makedirs(path, mode=0o700)
                self.made.append(path)
            files_restore.restore(self.repository.packs, tree.node(), path)
        spec = self._spec()
        self._point_at_root()
        memory = self._memory(directory, spec)
        try:
            return self._start(directory, spec, memory)
        finally:
            if memory is not None:
                memory.close()

    def _start(
        self, directory: str, spec: dict[str, Any], memory: FarMemory | None
    ) -> ContainerState:
        wanted = self.wanted
        options = RestoreOptions(
            image_path=directory,
            work_path=os.path.join(self.home, room.WORK),
            bundle=self.places["bundle"],
            tcp_close=wanted.tcp_close,
            systemd_cgroup=wanted.systemd_cgroup,
            detach=wanted.detach,
            stdio=wanted.stdio,
            connect=wanted.connect,
            lazy_pages=memory is not None,
            page_handler=memory.handler if memory is not None else None,
            verify=False,  # every blob was compared with its digest on its way out of the store
        )
        with restore.Restoration(self.containers, wanted.id, options) as work:
            work.prepare(spec)
            if memory is not None:
                memory.serve(directory, _hot(self.snapshot))
            state = work.run(on_restored=self._restored(memory, directory))
            work.settle()
            if memory is not None:
                memory.filled()
            return state

    def _restored(self, memory: FarMemory | None, directory: str) -> Callable[[int], None] | None:
        """Who wants to look at it wants all of its memory: until it is there, reading it fails."""
        look = self.wanted.on_restored
        if look is None:
            return None

        def filled(pid: int) -> None:
            if memory is not None:
                memory.filled()
            look(pid, directory)

        return filled

    # ---- its configuration

    def _spec(self) -> dict[str, Any]:
        """Its config.json, with the root file system where it is now."""
        spec = dict(self.snapshot.config)
        if self.wanted.id != self.snapshot.container and "cgroupsPath" in (spec.get("linux") or {}):
            # another container of that configuration may still run in there
            spec["linux"] = {k: v for k, v in spec["linux"].items() if k != "cgroupsPath"}
        if "rootfs" in self.places:
            spec["root"] = {**spec["root"], "path": self.places["rootfs"]}
        return spec

    def _point_at_root(self) -> None:
        """A bundle that lies elsewhere now must not name the root file system that another may run in."""
        path = os.path.join(self.places["bundle"], image.CONFIG)
        if not self.wanted.bundle or "rootfs" not in self.places or not os.path.lexists(path):
            return
        document = jsonio.loads(files.read(path, limit=_LARGEST_CONFIG))
        document["root"] = {**document["root"], "path": self.places["rootfs"]}
        files.write_atomic(path, jsonio.dumps(document, indent=2).encode())

    # ---- memory

    def _memory(self, directory: str, spec: Mapping[str, Any]) -> FarMemory | None:
        if not self.snapshot.spaces or mapped(spec):
            return None
        memory = FarMemory(os.path.join(self.home, room.WORK), self._lost)
        try:
            for space in self.snapshot.spaces:
                images.fill(memory.held, self.repository, self.snapshot, space)
        except BaseException:
            memory.close()
            raise
        return memory

    def _lost(self, reason: str) -> None:
        log.error(f"container {self.wanted.id} is ended: {reason}")
        lifecycle.end(self.containers.load(self.wanted.id))


def _places(snapshot: Snapshot, bundle: str) -> dict[str, str]:
    """Where each tree goes."""
    if not bundle:
        return {tree.name: tree.path for tree in snapshot.trees}
    place = os.path.abspath(bundle)
    return {
        tree.name: place if tree.name == "bundle" else os.path.join(place, tree.name)
        for tree in snapshot.trees
    }


def _hot(snapshot: Snapshot) -> dict[str, list[list[int]]]:
    return {pid: [[start, end] for start, end in runs] for pid, runs in snapshot.hot.items()}


def saved_network(snapshot: Snapshot) -> dict[str, Any] | None:
    """The facts of the network that ocimig had built for the container, if it had."""
    state = (snapshot.manifest.get("facts") or {}).get("state") or {}
    return state.get("network") or None


def connector(snapshot: Snapshot, id: str) -> Connect | None:
    """What builds the network that ocimig had built for the container, in a namespace, for `id`."""
    saved = saved_network(snapshot)
    if saved is None:
        return None
    config = network.from_facts(saved)

    def connect(netns: int) -> dict[str, Any]:
        return network.connect(netns, config, id)

    return connect
