"""Checkpoint one container on this host. The order of things; what they are is decided elsewhere.

    before the freeze   CRIU started and warm, options and mounts decided, the lock journalled
    frozen              lock the network, list small tmpfs mounts and host files, CRIU dumps,
                        `on_frozen`, the manifest (unless the container runs on)
    after               killed and removed, or running and unlocked

Whatever fails: the container runs on, its network is unlocked, and of the images only the log is left.
"""

import os
import time
from collections.abc import Callable, Mapping

from ocimig import files, log
from ocimig.criu_images import binary, entries, features, image, options, rpc
from ocimig.criu_images.errors import CriuDied, CriuFailed, CriuStuck
from ocimig.criu_images.image import CheckpointImage, Manifest
from ocimig.files import Fd
from ocimig.migrate import descriptors, dump_request, external, mountinfo, netlock, tmpfs
from ocimig.migrate.dump_request import CheckpointOptions
from ocimig.migrate.foresee import foresee
from ocimig.migrate.frozen import Frozen, nothing
from ocimig.migrate.image_place import ImagePlace, full
from ocimig.migrate.lazy import mark
from ocimig.migrate.signals import Deferred
from ocimig.migrate.standstill import TRIES, hopeless, let_go
from ocimig.migrate.withholding import Memory, Withholding
from ocimig.runtime import lifecycle
from ocimig.runtime import state as facts
from ocimig.runtime.cgroups import layout
from ocimig.runtime.errors import Busy, NoSuchContainer
from ocimig.runtime.linux import proc
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store

__all__ = ["CheckpointOptions", "Frozen", "Memory", "checkpoint", "foresee"]
LOG = "dump.log"


OnFrozen = Callable[[Frozen], None]


def checkpoint(
    store: Store,
    id: str,
    wanted: CheckpointOptions,
    *,
    on_frozen: OnFrozen | None = None,
    lock: bool = True,
    memory: Memory | None = None,
) -> CheckpointImage:
    """Checkpoint a container; without `leave_running` it is gone afterwards.

    `on_frozen` is called while it is frozen: returning commits, raising lets it run on. `lock` false
    is for a caller that holds the container's lock already. `memory` moves the memory by other means:
    the images then speak of pages that are not in them. Memory that is still to come after a restore is
    waited for.
    """
    mark.require(store.path(id), id)
    if not lock:
        return _Checkpoint(store, id, wanted, on_frozen, memory).run()
    held = store.lock(id, wait=False)
    try:
        with held:
            work = _Checkpoint(store, id, wanted, on_frozen, memory)
            made = work.run()
    except BlockingIOError:
        raise Busy(id=id) from None
    except FileNotFoundError:
        if not store.exists(id):
            raise NoSuchContainer(id=id, root=store.root) from None
        raise
    if work.gone and not wanted.keep:
        lifecycle.delete(store, id, force=True)
    return made


class _Checkpoint:
    """One checkpoint in the making."""

    def __init__(
        self,
        store: Store,
        id: str,
        wanted: CheckpointOptions,
        on_frozen: OnFrozen | None,
        memory: Memory | None,
    ) -> None:
        self.store = store
        self.wanted = wanted
        self.on_frozen = on_frozen
        self.state: ContainerState = store.load(id)
        self.spec = store.config(id)
        self.place = ImagePlace(wanted.image_path, wanted.work_path, wanted.parent_path)
        self.gone = False
        self.times: dict[str, float] = {}
        self.hopeless = ""  # who cannot be stopped
        self.warned = False  # whether before_freeze was called
        self.manifest = Manifest(id)
        self.undecided: list[mountinfo.Mount] = []
        self.mount_ids: set[int] = set()
        self.lock: netlock.NetworkLock | None = None
        self.pids: list[int] = []
        self.frozen: Frozen | None = None
        self.paused = facts.frozen(self.state)
        self.signals = Deferred()
        self.memory = memory
        self.withholding: Withholding | None = None

    def run(self) -> CheckpointImage:
        dump_request.refuse(self.wanted, self.store, self.state, self.spec)
        if netlock.left_behind(self.store.path(self.state.id)) is not None:
            from ocimig.migrate import recover_lock

            recover_lock.recover(self.store, self.state)
        program = binary.find()
        with self.signals:
            self.place.prepare()
            try:
                self._persist(program)
                self._finish()
            except BaseException as error:
                if not self._held() and not self.gone:  # else it may be all that is left of it
                    self.place.clean()
                no_space = full(error, self.place.final.directory)
                if no_space is not None:
                    raise no_space from error
                raise
        return self.place.final

    def _persist(self, program: str) -> None:
        """Dump, and begin again where a process was met that cannot be stopped just then."""
        for left in reversed(range(TRIES)):
            try:
                with rpc.Session(program) as session:
                    self._start(session)
                    self._dump(session)
                break
            except CriuStuck as error:
                if not self.hopeless or not left:
                    raise
                log.debug(f"once more: {error}")
            finally:
                if self.withholding is not None:  # each try has its own
                    self.withholding.close()
                    self.withholding = None

    def _impatient(self) -> str:
        """Why CRIU should be waited for no longer."""
        if "begin" in self.times and "stopped" not in self.times:
            self.hopeless = hopeless(proc.descendants(self.state.pid))
        return self.signals.impatient() or self.hopeless

    # -- before ---------------------------------------------------------------------------------

    def _start(self, session: rpc.Session) -> None:
        self.times.clear()
        self.hopeless = ""
        environment = binary.preload(dump=True)
        if self.memory is not None:
            self.withholding = Withholding(self.memory, self.place.work)
            environment = self.withholding.environment()
        session.start(own_group=not self.wanted.shell_job, environment=environment)
        able = features.ask(session)
        self._check(able)
        if self.memory is not None and not able.withholds:
            log.warning(f"{able.program} cannot leave memory out: all of it is saved in the freeze")
        entries.warm(session.program)
        self.manifest = Manifest.new(self.state.id, able.version)

    def _check(self, able: features.Features) -> None:
        if self.wanted.pre_dump:
            features.require_memory_tracking(able)
        if self.wanted.lazy_pages:
            features.require_lazy_pages(able)

    def _decide_mounts(self) -> list[external.External]:
        mounts = mountinfo.read(self.state.pid)
        self.mount_ids = {mount.id for mount in mounts}
        own = layout.own_paths(files.read(f"/proc/{self.state.pid}/cgroup"))
        found, self.undecided = external.decide(mounts, mountinfo.read(), self.spec, own)
        dump_request.refuse_mounts(found)  # one may have come since refuse()
        self.manifest.facts["root_slave"] = any(
            mount.slave for mount in mounts if mount.target == "/"
        )
        return found

    # -- the dump -------------------------------------------------------------------------------

    def _dump(self, session: rpc.Session) -> None:
        mounts = self._decide_mounts()
        self.manifest.facts["mounts"] = [mount.to_json() for mount in mounts]
        self.manifest.options = dump_request.kept(self.wanted)
        netns = os.open(f"/proc/{self.state.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        with (
            Fd(netns),
            Fd(os.open(self.place.partial.directory, os.O_RDONLY | os.O_DIRECTORY)) as images,
            Fd(os.open(self.place.work, os.O_RDONLY | os.O_DIRECTORY)) as work,
        ):
            asked = self._options(images, work, mounts, netns)
            request = session.request("SINGLE_PRE_DUMP" if self.wanted.pre_dump else "DUMP")
            asked.write(session.rpc, request.opts)
            log_path = os.path.join(self.place.work, LOG)
            watch = rpc.Watch(log_path, self.place.partial.directory, stop=self._impatient)
            _remove(log_path)
            try:
                session.call(request, notify=self._callbacks(), watch=watch)
            except (CriuDied, CriuFailed, CriuStuck) as error:
                if not self.gone or self._held():
                    self._after_kill()
                    raise
                # The checkpoint is whole and was acknowledged: one copy only, so this one ends.
                log.warning(f"{error}; the checkpoint is complete, the rest is ended here")
                lifecycle.end(self.state)
            finally:
                self._unlock()

    def _options(
        self, images: int, work: int, mounts: list[external.External], netns: int
    ) -> options.CriuOptions:
        values = dump_request.values(self.wanted, self.state)
        spaces, empty = dump_request.declare_namespaces(self.wanted, self.spec, self.state.pid)
        if empty:
            values["empty_ns"] = empty
        self.manifest.facts["network_empty"] = bool(empty)
        server = dump_request.page_server(self.wanted)
        if server is not None and self.wanted.lazy_pages:
            values["config_file"] = dump_request.address_file(work, server[0])
        return options.CriuOptions(
            images,
            work,
            LOG,
            values,
            (*[mount.declared() for mount in mounts], *spaces),
            page_server=server,
            cgroup_mode=self.wanted.manage_cgroups_mode or "ignore",
            lock=self.wanted.network_lock or self._own_lock(netns),
            log_level=options.LOG_LEVEL if self.memory is None else options.QUIET,
        )

    def _own_lock(self, netns: int) -> str:
        """Our own lock where the network is the container's; CRIU's, by connection, on the host's."""
        if _is_hosts(netns):
            return "nftables"
        self.lock = netlock.NetworkLock(self.store.path(self.state.id), netns)
        return "skip"

    # -- inside the freeze -----------------------------------------------------------------------

    def _callbacks(self) -> Mapping[str, rpc.Callback]:
        return {
            "pre-dump": self._ready,
            "network-lock": self._lock,
            "query-ext-files": self._look,
            "post-dump": self._frozen,
            "network-unlock": self._release,
        }

    def _ready(self, _: rpc.Notice) -> None:
        """CRIU is warm; the next thing it does is the freeze."""
        if self.lock is not None:
            self.lock.announce({"pid": self.state.pid, "paused": self.paused})
        if self.wanted.before_freeze is not None and not self.warned:
            self.warned = True
            self.wanted.before_freeze()
        if self.withholding is not None:
            self.withholding.prepare([self.state.pid, *proc.descendants(self.state.pid)])
        self.signals.check(f"{self.state.id} was not touched")
        self.times["begin"] = time.monotonic()

    def _lock(self, _: rpc.Notice) -> None:
        self.times["stopped"] = time.monotonic()
        if self.lock is not None:
            self.lock.take()
        self.times["locked"] = time.monotonic()

    def _release(self, _: rpc.Notice) -> None:
        if self.lock is not None:
            self.lock.release()

    def _look(self, _: rpc.Notice) -> rpc.Answer:
        """Nothing moves any more: what the container holds now is what the checkpoint holds."""
        self.times.setdefault("stopped", time.monotonic())
        pid = self.state.pid
        small = []
        with Fd(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            for mount in self.undecided:
                content = tmpfs.listing(root, mount)
                if content is not None:
                    small.append(
                        external.External(f"m{mount.id}", "tmpfs", mount.target,
                                          options=tmpfs.options(mount), content=content,
                                          attributes=external.attributes(mount))
                    )  # fmt: skip
        inside = [pid, *proc.descendants(pid)]
        # Those it was given: what it has now may be a pipe of its own, which must stay its own.
        self.manifest.facts["streams"] = self.state.descriptors or descriptors.streams(pid)
        held = descriptors.host_files(inside, self.mount_ids, self.manifest.facts["streams"])
        self.manifest.facts["mounts"] += [mount.to_json() for mount in small]
        self.manifest.facts["files"] = [file.to_json() for file in held]
        self.pids = inside
        self.times["looked"] = time.monotonic()
        if self.withholding is not None:
            self.withholding.ask(inside)
            self.times["withheld"] = time.monotonic()
        return rpc.Answer([mount.declared() for mount in small] + [file.key for file in held])

    def _frozen(self, _: rpc.Notice) -> None:
        self.times["dumped"] = time.monotonic()
        self.signals.check(f"{self.state.id} runs on")
        if self.wanted.pre_dump:
            return
        if self.withholding is not None:
            self.withholding.settle(self.place.partial.directory)
            self.times["settled"] = time.monotonic()
            if not self.wanted.confirm_late:
                self.withholding.confirm()
        self._write_documents()
        if any(file.get("several") for file in self.manifest.facts.get("files", [])):
            entries.loosen_host_files(self.place.partial.directory, binary.find())
        if not self.wanted.leave_running or self.on_frozen is not None:
            # Frozen and not yet given up: what cannot be made durable now can still be taken back.
            self.place.finish(self.manifest, seal=self.wanted.seal)
        if self.on_frozen is not None:
            self.frozen = self._value()
            self.on_frozen(self.frozen)
        self.gone = not self.wanted.leave_running
        self.times["done"] = time.monotonic()

    def _value(self) -> Frozen:
        return Frozen(
            self.state.id,
            self.state.pid,
            self.place.final,
            self.manifest,
            list(self.pids),
            self.times,
            confirm=self.withholding.confirm if self.withholding is not None else nothing,
        )

    def _write_documents(self) -> None:
        self.place.partial.write_json(image.CONFIG, self.spec)
        self.place.partial.write_json(image.DESCRIPTORS, self.manifest.facts.get("streams", []))
        kept = self.manifest.facts
        kept["state"] = {
            "rootfs": self.state.rootfs, "bundle": self.state.bundle,
            "annotations": self.state.annotations, "network": self.state.network,
            "oci_version": self.state.oci_version, "systemd_unit": self.state.systemd_unit,
            "cgroup_driver": self.state.cgroups.get("driver", ""),
        }  # fmt: skip

    # -- after ------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """What could wait. Where the container runs on, that is to hash and to move."""
        if self.wanted.pre_dump:
            self._write_documents()
        self.place.finish(self.manifest, seal=self.wanted.seal)
        self.place.take_late_files()
        begin = self.times.get("begin", 0.0)
        shown = [f"{name} +{(when - begin) * 1e3:.1f} ms" for name, when in self.times.items()]
        log.debug("checkpoint: " + ", ".join(shown))

    def _unlock(self) -> None:
        """Whatever happened. Only a dead container's namespace, given by path, stays locked: its
        connections wait in the images, and the kernel would answer their peers with a reset."""
        if self.lock is None or self._held():
            return
        holds = self.gone and self.wanted.tcp_established and self._joined_network()
        try:
            if not holds:
                self.lock.remove()
            else:
                netlock.forget(self.lock.journal)
        except OSError as error:
            log.error(f"the network of {self.state.id} stays locked: {error}")

    def _held(self) -> bool:
        return self.frozen is not None and self.frozen.held

    def _joined_network(self) -> bool:
        entries = self.spec.get("linux", {}).get("namespaces") or []
        return any(each["type"] == "network" and each.get("path") for each in entries)

    def _after_kill(self) -> None:
        if not self._held():
            self._unlock()
            let_go(self.state, paused=self.paused)


def _is_hosts(netns: int) -> bool:
    return os.path.samestat(os.fstat(netns), os.stat("/proc/self/ns/net"))


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
