"""The destination of a migration on a real host: what `hands.Destination` asks for. Never decides to run."""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ocimig import files, jsonio, log
from ocimig.files import Fd
from ocimig.migrate import facts, failpoints, restore_room
from ocimig.migrate.errors import BrokenFrame, DirectoryNotEmpty
from ocimig.migrate.far_memory import FarMemory
from ocimig.migrate.hands import places
from ocimig.migrate.images import Receiver
from ocimig.migrate.journal import Journal
from ocimig.migrate.memory.retained import Retained
from ocimig.migrate.traces import delete, discard, discard_images, disconnect, load, pin, unpin
from ocimig.migrate.wire import Frame, Wire
from ocimig.runtime import lifecycle
from ocimig.runtime.errors import ContainerExists
from ocimig.runtime.linux import proc
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store

if TYPE_CHECKING:
    from ocimig.migrate.network import Port
    from ocimig.migrate.network_arp import Announcer
    from ocimig.migrate.restore import Restoration

# criu/pie/restorer.c has every thread block every signal until its rt_sigreturn, the last step into the
# program's own code: alive and like this, a process has not begun to run, and without CRIU it never will.
# A program that does the same in all of its threads cannot be told from that. It has to make the mask by
# itself: a sigfillset(3) of glibc or musl leaves out the signals that these keep for themselves (32, 33).
# It is ended as one that never ran, when its agent is killed between its GO and its RUNNING, and the source
# runs it again as it was when it was frozen: never two of it, but what it did in that moment is lost.
_RESTORING = 0xFFFFFFFFFFFBFEFF  # all but SIGKILL and SIGSTOP, which the kernel takes out


class RealDestination:
    """The destination on a real host."""

    def __init__(self) -> None:
        self._netns = -1
        self._network: dict[str, Any] | None = None
        self._wanted_network: dict[str, Any] | None = None
        self._port: Port | None = None
        self._announcer: Announcer | None = None
        self._announcing: threading.Thread | None = None
        self._work: Restoration | None = None
        self._null = -1
        self._memory: FarMemory | None = None
        self._retained: Retained | None = None

    def check_free(self, store: Store, id: str, wanted: Mapping[str, Any]) -> None:
        """See Destination."""
        from ocimig.migrate import journal, reserve

        if store.exists(id):
            raise ContainerExists(id=id)
        for entry in journal.of_container(store, id):
            if entry.side == "destination" and not entry.ended:
                raise ContainerExists(id=id)
        reserve.check_places(store, id, places(wanted))
        for path in places(wanted):
            if os.path.lexists(path) and not facts.space(path)["empty"]:
                raise DirectoryNotEmpty(path=path)

    def reserve(self, store: Store, entry: Journal, wanted: Mapping[str, Any]) -> None:
        """See Destination."""
        for path in places(wanted):
            os.makedirs(path, mode=0o700, exist_ok=True)
        os.makedirs(os.path.dirname(entry.facts["images"]), mode=0o700, exist_ok=True)
        self._wanted_network = wanted.get("network")

    def _build_network(self, entry: Journal, netns: int) -> dict[str, Any]:
        """The same network, complete but joined to nothing."""
        from ocimig.migrate import network

        assert self._wanted_network is not None
        config = network.from_facts(self._wanted_network)
        pin(entry, netns)
        self._network = network.connect(netns, config, str(entry.facts["id"]), attached=False)
        return self._network

    def receive_files(self, wire: Wire, entry: Journal, header: Mapping[str, Any]) -> None:
        """See Destination."""
        from ocimig.migrate import rootfs

        if header.get("path") not in entry.facts["places"]:
            raise BrokenFrame(
                host=wire.host, reason=f"no place for {header.get('path')} was reserved"
            )
        path, fresh = str(header["path"]), bool(header.get("fresh"))
        if fresh:
            _empty(path)  # after a link that broke in the middle: it was empty, or was not there
            os.makedirs(path, mode=0o700, exist_ok=True)  # in the bundle it went with that
        # Its names are durable before the source removes its own: see settled().
        rootfs.receive(wire, path, fresh=fresh, sync=False)

    def warm(self, store: Store, entry: Journal, foreseen: Mapping[str, Any]) -> dict[str, Any]:
        """See Destination."""
        from ocimig.migrate import network, restore

        id = str(entry.facts["id"])
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        connect = None
        if self._wanted_network and _mapped(foreseen["config"]):
            # Only CRIU can make a network namespace inside its user namespace: filled when it is there.
            def connect(netns: int) -> dict[str, Any]:
                self._netns = os.dup(netns)
                return self._build_network(entry, netns)

        elif self._wanted_network:
            self._netns = network.new_namespace()
            self._build_network(entry, self._netns)
        # In a user namespace CRIU may not open the userfaultfd that lazy memory needs.
        lazy = bool(foreseen.get("memory")) and not _mapped(foreseen["config"])
        criu = os.path.join(entry.home, "criu")
        if lazy:
            self._retained = Retained(store, id)
            self._memory = FarMemory(
                criu, lambda reason: self._lost(store, id, reason), self._retained
            )
        self._work = restore.Restoration(
            store,
            id,
            restore.RestoreOptions(
                image_path=entry.facts["images"],
                work_path=criu,
                bundle=entry.facts["bundle"],
                tcp_close=bool(foreseen.get("tcp_close")),
                # What was a pipe on the source ends there; whoever reads a container's output over a
                # pipe does not move with it.
                stdio=(self._null, self._null, self._null),
                systemd_cgroup=bool(foreseen.get("systemd")),
                lazy_pages=lazy,
                page_handler=self._memory.handler if self._memory is not None else None,
                connect=connect,
                netns=self._netns,
                network=self._network,
                verify=False,  # hashed on its way, file by file
            ),
        )
        self._work.prepare(dict(foreseen["config"]), foreseen=foreseen.get("foreseen"))
        self._write_out(entry)
        return {"memory": lazy}

    def pages(self, wire: Wire, frame: Frame) -> None:
        """See Destination."""
        if self._memory is None:
            raise BrokenFrame(host=wire.host, reason="memory that was not asked for")
        self._memory.take(wire, frame)

    def follow(self, wire: Wire, frame: Frame) -> None:
        """See Destination."""
        if self._memory is None:
            raise BrokenFrame(host=wire.host, reason="memory that was not asked for")
        self._memory.follow(wire, frame)

    def lost(self) -> str:
        """See Destination."""
        return self._memory.lost() if self._memory is not None else ""

    def followed(self) -> str:
        """See Destination."""
        return self._memory.followed() if self._memory is not None else ""

    def _lost(self, store: Store, id: str, reason: str) -> None:
        """Its memory cannot come any more: a container with holes in it must not run."""
        log.error(f"container {id} is ended: {reason}")
        lifecycle.end(store.load(id))

    def restore(
        self,
        store: Store,
        entry: Journal,
        request: Mapping[str, Any],
        receiver: Receiver,
        on_restored: Callable[[int], None],
    ) -> int:
        """See Destination."""
        assert self._work is not None
        _write_manifest(entry.facts["images"], dict(request["manifest"]), receiver)
        if self._memory is not None:
            self._memory.serve(
                entry.facts["images"],
                request.get("hot") or {},
                follows=bool(request.get("post_copy")),
            )
        state = self._work.run(on_restored=on_restored)
        self._work.settle()
        return state.pid

    def restored(self, pid: int) -> None:
        """See Destination."""
        from ocimig.migrate import network, network_arp

        if self._network is not None:
            self._port = network.Port(self._network)
            self._announcer = network_arp.Announcer(self._netns, network.from_facts(self._network))

    def release(self) -> None:
        """See Destination."""
        if self._port is not None and self._announcer is not None:
            self._port.attach()
            failpoints.here("destination", "attached")
            self._announcer.first()
            self._announcing = threading.Thread(target=self._announcer.rest, name="announce")
            self._announcing.start()

    def settled(self, entry: Journal) -> None:
        """See Destination."""
        self._write_out(entry)

    def _write_out(self, entry: Journal) -> None:
        """The files, to disk. Before the freeze too: the journal's own fsync(2) in it would wait for them."""
        from ocimig.runtime.linux.files import syncfs

        for path in entry.facts["places"]:
            with Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
                syncfs(fd)

    def finish(self, entry: Journal) -> None:
        """See Destination."""
        if self._work is not None:
            self._work.settle()  # it runs, although not all after it went well
        if self._memory is not None:
            self._memory.filled()
        if self._retained is not None:
            self._retained.drop()  # it is here: what it left is old
        self._close()
        unpin(entry)
        discard_images(entry)

    def _close(self) -> None:
        if self._announcing is not None:
            self._announcing.join()
            self._announcing = None
        for held in (self._port, self._announcer):
            if held is not None:
                held.close()
        self._port = self._announcer = None
        for fd in (self._netns, self._null):
            if fd >= 0:
                os.close(fd)
        self._netns = self._null = -1
        if self._memory is not None:
            memory, self._memory = self._memory, None
            memory.close()
        if self._work is not None:
            work, self._work = self._work, None
            work.__exit__(None, None, None)

    def runs(self, store: Store, entry: Journal) -> bool:
        """See Destination."""
        from ocimig.runtime import state as status_of

        state = load(store, str(entry.facts["id"]))
        if state is None or not _came_with(state, entry) or not status_of.alive(state):
            return False
        return not _restoring(state.pid)

    def adopt(self, store: Store, entry: Journal) -> None:
        """See Destination."""
        from ocimig.migrate import recover_lock
        from ocimig.runtime import cgroups
        from ocimig.runtime import state as status_of

        id = str(entry.facts["id"])
        state = load(store, id)
        if state is not None and _came_with(state, entry):
            group = cgroups.from_facts(state.cgroups)
            restore_room.take_back(group, restore_room.exact, store.config(id), id)
            if status_of.alive(state):
                recover_lock.recover(store, state)
        unpin(entry)

    def discard(self, store: Store, entry: Journal) -> None:
        """See Destination."""
        id = str(entry.facts["id"])
        # First of all: what dies with its port in the bridge resets the container's connections.
        for joined in (self._network, _network_of(store, id, entry)):
            if joined:
                disconnect(joined)
        self._network = None
        if self._work is not None:
            work, self._work = self._work, None
            work.__exit__(None, None, None)  # leaves nothing unless it was settled
        state = load(store, id)
        if state is not None and _came_with(state, entry):
            delete(store, id)
        self._close()
        unpin(entry)
        discard_images(entry)
        for path in reversed(entry.facts["places"]):
            _unmake(path, entry.facts["made"])


def _empty(path: str) -> None:
    with suppress(FileNotFoundError), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                files.remove_tree(entry.path)
            else:
                os.unlink(entry.path)


def _restoring(pid: int) -> bool:
    """Whether no thread of the process has come out of the restorer; false where there is no such process."""
    masks = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            status = proc.status(int(thread)) or {}
            masks.append(int(status.get("SigBlk", "0"), 16))
    return bool(masks) and all(mask == _RESTORING for mask in masks)


def _mapped(config: Mapping[str, Any]) -> bool:
    """Whether the container has a user namespace of its own."""
    namespaces = (config.get("linux") or {}).get("namespaces") or ()
    return any(entry.get("type") == "user" for entry in namespaces)


def _write_manifest(directory: str, manifest: dict[str, Any], receiver: Receiver) -> None:
    """The manifest that the source did not take the time to write, with the digests of what came."""
    from ocimig.criu_images import image

    manifest["files"] = {
        name: {"size": os.stat(os.path.join(directory, name)).st_size, "sha256": digest}
        for name, digest in receiver.digests.items()
    }
    path = os.path.join(directory, image.MANIFEST)
    files.write_atomic(path, jsonio.dumps(manifest).encode(), sync=False)


def _came_with(state: ContainerState, entry: Journal) -> bool:
    """Whether the container was restored from the images of this migration."""
    return os.path.abspath(state.image or "/") == os.path.abspath(str(entry.facts["images"]))


def _network_of(store: Store, id: str, entry: Journal) -> Mapping[str, Any] | None:
    """Where the container that came with this migration is joined to, if it got that far."""
    state = load(store, id)
    return state.network if state is not None and _came_with(state, entry) else None


def _unmake(path: str, made: list[str]) -> None:
    """Remove a tree and the directories above it that were made for it."""
    log.debug(f"removing {path}")
    discard(path)
    for parent in reversed(made):
        try:
            os.rmdir(parent)
        except OSError:  # somebody else uses it by now, or it was never made
            continue
