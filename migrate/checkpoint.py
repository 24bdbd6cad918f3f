"""Checkpoint one container on this host. The order of things; what they are is decided elsewhere.

    before the freeze   CRIU started and warm, options and mounts decided, the lock journalled
    frozen              lock the network, list small tmpfs mounts and host files, CRIU dumps,
                        `on_frozen`, the manifest (unless the container runs on)
    after               killed and removed, or running and unlocked

Whatever fails: the container runs on, its network is unlocked, and of the images only the log is left.
"""

import errno
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ocimig import files, log
from ocimig.criu_images import binary, entries, features, image, options, rpc
from ocimig.criu_images.errors import BadImage, BadOption, CriuDied, CriuFailed, CriuStuck
from ocimig.criu_images.image import CheckpointImage, Manifest
from ocimig.errors import NoSpace
from ocimig.files import Fd
from ocimig.migrate import descriptors, external, mountinfo, netlock, tmpfs
from ocimig.migrate.errors import NotCheckpointable
from ocimig.migrate.signals import Deferred
from ocimig.runtime import cgroups, lifecycle
from ocimig.runtime import state as facts
from ocimig.runtime.cgroups import layout
from ocimig.runtime.errors import Busy, NoSuchContainer, NotRunning
from ocimig.runtime.linux import namespaces, proc
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store

LOG = "dump.log"
PARTIAL = ".partial"
GHOST_LIMIT = 64 << 20  # CRIU's own megabyte refuses every deleted log file
NAMESPACE_KEYS = {"network": "extRootNetNS", "pid": "extRootPidNS"}
_FREEZERS = ("freezer", "unified")


@dataclass(frozen=True, slots=True)
class CheckpointOptions:
    """As the options of `ocimig checkpoint`, which have runc's names and meaning.

    `seal` false leaves hashing and the manifest to whoever carries the files away. `keep` leaves the
    (stopped) container's record and cgroup in place. `before_freeze` is called when everything is warm.
    """

    image_path: str = "checkpoint"
    work_path: str = ""
    parent_path: str = ""
    leave_running: bool = False
    tcp_established: bool = False
    tcp_skip_in_flight: bool = False
    tcp_close: bool = False
    link_remap: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    lazy_pages: bool = False
    page_server: str = ""
    status_fd: int = -1
    file_locks: bool = False
    pre_dump: bool = False
    manage_cgroups_mode: str = ""
    empty_ns: tuple[str, ...] = ()
    auto_dedup: bool = False
    network_lock: str = ""
    seal: bool = True
    keep: bool = False
    before_freeze: Callable[[], None] | None = None


@dataclass(slots=True)
class Frozen:
    """The container while CRIU waits in post-dump: stopped, locked, all images written.

    Who sets `held` takes over: from then on nothing here thaws or unlocks it, whatever fails.
    """

    id: str
    pid: int
    image: CheckpointImage
    manifest: Manifest
    pids: list[int]
    times: dict[str, float] = field(default_factory=dict)
    held: bool = False


OnFrozen = Callable[[Frozen], None]


def checkpoint(
    store: Store,
    id: str,
    wanted: CheckpointOptions,
    *,
    on_frozen: OnFrozen | None = None,
    lock: bool = True,
) -> CheckpointImage:
    """Checkpoint a container; without `leave_running` it is gone afterwards.

    `on_frozen` is called while it is frozen: returning commits, raising lets it run on. `lock` false
    is for a caller that holds the container's lock already.
    """
    if not lock:
        return _Checkpoint(store, id, wanted, on_frozen).run()
    held = store.lock(id, wait=False)
    try:
        with held:
            work = _Checkpoint(store, id, wanted, on_frozen)
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


def foresee(state: ContainerState) -> dict[str, Any]:
    """The descriptors that a restore will need, as far as they can be known before the freeze."""
    mounts = {mount.id for mount in mountinfo.read(state.pid)}
    inside = [state.pid, *proc.descendants(state.pid)]
    return {
        "streams": state.descriptors or descriptors.streams(state.pid),
        "files": [file.to_json() for file in descriptors.host_files(inside, mounts, state.pid)],
    }


class _Checkpoint:
    """One checkpoint in the making."""

    def __init__(
        self, store: Store, id: str, wanted: CheckpointOptions, on_frozen: OnFrozen | None
    ) -> None:
        self.store = store
        self.wanted = wanted
        self.on_frozen = on_frozen
        self.state: ContainerState = store.load(id)
        self.spec = store.config(id)
        self.final = CheckpointImage(os.path.abspath(wanted.image_path))
        self.partial = CheckpointImage(self.final.path(PARTIAL))
        self.work = os.path.abspath(wanted.work_path or wanted.image_path)
        self.gone = False
        self.times: dict[str, float] = {}
        self.manifest = Manifest(id)
        self.undecided: list[mountinfo.Mount] = []
        self.mount_ids: set[int] = set()
        self.lock: netlock.NetworkLock | None = None
        self.made = False
        self.pids: list[int] = []
        self.frozen: Frozen | None = None
        self.paused = facts.frozen(self.state)
        self.signals = Deferred()

    def run(self) -> CheckpointImage:
        self._refuse()
        if netlock.left_behind(self.store.path(self.state.id)) is not None:
            from ocimig.migrate import recover_lock

            recover_lock.recover(self.store, self.state)
        program = binary.find()
        with rpc.Session(program) as session, self.signals:
            session.start(own_group=not self.wanted.shell_job)
            able = features.ask(session)
            self._check(able)
            entries.warm(program)
            self.manifest = Manifest.new(self.state.id, able.version)
            self._prepare_directories()
            try:
                self._dump(session)
                self._finish()
            except BaseException as error:
                self._clean()
                full = _full(error, self.final.directory)
                if full is not None:
                    raise full from error
                raise
        return self.final

    # -- before ---------------------------------------------------------------------------------

    def _refuse(self) -> None:
        status = facts.status(self.state, self.store)
        if status == facts.CREATED:
            raise NotCheckpointable(
                reason="Container cannot be checkpointed in created state",
                remedy=f"first: ocimig start {self.state.id}",
            )
        if status not in {facts.RUNNING, facts.PAUSED}:
            raise NotRunning(id=self.state.id, status=status)
        if os.geteuid():
            raise NotCheckpointable(reason="criu needs root", remedy="run this as root")
        if os.path.isabs(self.wanted.parent_path):
            raise BadOption(option="parent-path", reason="it has to be relative to the image path")
        if self.wanted.network_lock not in {"", *options.LOCKS}:
            raise BadOption(option="network-lock", reason=f"no such method: {self.wanted.network_lock}",
                            remedy="use one of: " + ", ".join(options.LOCKS))  # fmt: skip
        options.empty_namespaces(self.wanted.empty_ns)
        self._refuse_namespaces()
        self._refuse_objects()

    def _refuse_objects(self) -> None:
        """What CRIU would give up on inside the freeze, with fewer words."""
        found = descriptors.unsupported([self.state.pid, *proc.descendants(self.state.pid)])
        if found:
            raise NotCheckpointable(
                reason="criu cannot save what these processes hold: " + ", ".join(found),
                remedy="turn it off in the program, or deny it by seccomp",
            )

    def _refuse_namespaces(self) -> None:
        for entry in self.spec.get("linux", {}).get("namespaces") or []:
            if entry.get("path") and entry["type"] in {"user", "mount", "time", "cgroup"}:
                raise NotCheckpointable(
                    reason=f"criu cannot restore into a {entry['type']} namespace given by path",
                    remedy="give the container its own",
                )

    def _check(self, able: features.Features) -> None:
        if self.wanted.pre_dump:
            features.require_memory_tracking(able)
        if self.wanted.lazy_pages:
            features.require_lazy_pages(able)

    def _prepare_directories(self) -> None:
        parent = self._parent()
        self.made = not os.path.isdir(self.final.directory)
        for directory in (self.final.directory, self.partial.directory, self.work):
            try:
                if directory == self.partial.directory:
                    files.remove_tree(directory)
                os.makedirs(directory, mode=0o700, exist_ok=True)
            except OSError as error:
                raise _full(error, directory) or NotCheckpointable(
                    reason=f"cannot make {directory}: {error.strerror}"
                ) from error
        if parent is not None and not parent.exists():
            raise BadImage(path=parent.directory, reason="it is no finished checkpoint to build on")

    def _parent(self) -> CheckpointImage | None:
        if not self.wanted.parent_path:
            return None
        path = os.path.join(self.final.directory, self.wanted.parent_path)
        return CheckpointImage(os.path.normpath(path))

    def _decide_mounts(self) -> list[external.External]:
        mounts = mountinfo.read(self.state.pid)
        self.mount_ids = {mount.id for mount in mounts}
        own = layout.own_paths(files.read(f"/proc/{self.state.pid}/cgroup"))
        found, self.undecided = external.decide(mounts, mountinfo.read(), self.spec, own)
        self.manifest.facts["root_slave"] = any(
            mount.slave for mount in mounts if mount.target == "/"
        )
        return found

    # -- the dump -------------------------------------------------------------------------------

    def _dump(self, session: rpc.Session) -> None:
        mounts = self._decide_mounts()
        self.manifest.facts["mounts"] = [mount.to_json() for mount in mounts]
        self.manifest.options = _kept_options(self.wanted)
        netns = os.open(f"/proc/{self.state.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        with (
            Fd(netns),
            Fd(os.open(self.partial.directory, os.O_RDONLY | os.O_DIRECTORY)) as images,
            Fd(os.open(self.work, os.O_RDONLY | os.O_DIRECTORY)) as work,
        ):
            asked = self._options(images, work, mounts, netns)
            request = session.request("PRE_DUMP" if self.wanted.pre_dump else "DUMP")
            asked.write(session.rpc, request.opts)
            log_path = os.path.join(self.work, LOG)
            watch = rpc.Watch(log_path, self.partial.directory, stop=self.signals.impatient)
            _remove(log_path)
            try:
                session.call(request, notify=self._callbacks(), watch=watch)
            except (CriuDied, CriuStuck) as error:
                if not self.gone or self._held():
                    self._after_kill()
                    raise
                # The checkpoint is whole and was acknowledged: one copy only, so this one ends.
                log.warning(f"{error}; the checkpoint is complete, the rest is ended here")
                lifecycle.end(self.state)
            finally:
                self._unlock()
        self._times_done()

    def _options(
        self, images: int, work: int, mounts: list[external.External], netns: int
    ) -> options.CriuOptions:
        wanted = self.wanted
        values: dict[str, Any] = {
            "pid": self.state.pid,
            "root": self.state.rootfs,
            "orphan_pts_master": True,
            "ghost_limit": GHOST_LIMIT,
            "timeout": options.FREEZE_SECONDS,
            "ext_masters": True,
        }
        for name in ("leave_running", "tcp_established", "tcp_skip_in_flight", "tcp_close",
                     "link_remap", "ext_unix_sk", "shell_job", "file_locks", "auto_dedup",
                     "lazy_pages"):  # fmt: skip
            if getattr(wanted, name):
                values[name] = True
        if wanted.parent_path:
            values["parent_img"] = os.path.join("..", wanted.parent_path)
        if wanted.parent_path or wanted.pre_dump:
            values["track_mem"] = True
        if wanted.status_fd >= 0:
            values["status_fd"] = wanted.status_fd
        freezer = self._freezer()
        if freezer:
            values["freeze_cgroup"] = freezer
        declared = [mount.declared() for mount in mounts]
        declared += self._namespaces(values)
        lock = wanted.network_lock
        if not lock:
            lock = self._own_lock(netns)
        return options.CriuOptions(
            images, work, LOG, values, tuple(declared),
            page_server=_address(wanted.page_server),
            cgroup_mode=wanted.manage_cgroups_mode or "ignore",
            lock=lock,
        )  # fmt: skip

    def _own_lock(self, netns: int) -> str:
        """Our own lock where the network is the container's; CRIU's, by connection, on the host's."""
        if _same(netns, "/proc/self/ns/net"):
            return "nftables"
        self.lock = netlock.NetworkLock(self.store.path(self.state.id), netns)
        return "skip"

    def _freezer(self) -> str:
        known = self.state.cgroups
        return next((known[name] for name in _FREEZERS if known.get(name)), "")

    def _namespaces(self, values: dict[str, Any]) -> list[str]:
        """The network is rebuilt, not saved: external where we can make it beforehand, else empty."""
        declared = []
        given = {each["type"]: each.get("path") or "" for each in self.spec["linux"]["namespaces"]}
        for name, key in NAMESPACE_KEYS.items():
            if name not in given:
                continue
            flag, file = namespaces.NAMESPACES[name]
            if given[name]:
                if not _same_path(given[name], f"/proc/self/ns/{file}"):
                    inode = os.stat(f"/proc/{self.state.pid}/ns/{file}").st_ino
                    declared.append(f"{file}[{inode}]:{key}")
            elif name == "network":
                if "user" in given:
                    values["empty_ns"] = flag
                else:
                    inode = os.stat(f"/proc/{self.state.pid}/ns/net").st_ino
                    declared.append(f"net[{inode}]:{key}")
        if self.wanted.empty_ns and not any(text.startswith("net[") for text in declared):
            values["empty_ns"] = options.empty_namespaces(self.wanted.empty_ns)
        self.manifest.facts["network_empty"] = "empty_ns" in values
        return declared

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
        if self.wanted.before_freeze is not None:
            self.wanted.before_freeze()
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
                    words = tmpfs.options(mount)
                    small.append(
                        external.External(f"m{mount.id}", "tmpfs", mount.target, options=words,
                                          attributes=external.attributes(mount), content=content)
                    )  # fmt: skip
        inside = [pid, *proc.descendants(pid)]
        held = descriptors.host_files(inside, self.mount_ids, pid)
        self.manifest.facts["mounts"] += [mount.to_json() for mount in small]
        self.manifest.facts["files"] = [file.to_json() for file in held]
        # Those it was given: what it has now may be a pipe of its own, which must stay its own.
        self.manifest.facts["streams"] = self.state.descriptors or descriptors.streams(pid)
        self.pids = inside
        self.times["looked"] = time.monotonic()
        return rpc.Answer([mount.declared() for mount in small] + [file.key for file in held])

    def _frozen(self, _: rpc.Notice) -> None:
        self.times["dumped"] = time.monotonic()
        self.signals.check(f"{self.state.id} runs on")
        if self.wanted.pre_dump:
            return
        self._write_documents()
        if any(file.get("several") for file in self.manifest.facts.get("files", [])):
            entries.loosen_host_files(self.partial.directory, binary.find())
        if not self.wanted.leave_running:
            # Frozen and not yet given up: what cannot be made durable now can still be taken back.
            self._seal()
        if self.on_frozen is not None or not self.wanted.leave_running:
            self._promote()
        if self.on_frozen is not None:
            self.frozen = self._value()
            self.on_frozen(self.frozen)
        self.gone = not self.wanted.leave_running
        self.times["done"] = time.monotonic()

    def _value(self) -> Frozen:
        return Frozen(
            self.state.id, self.state.pid, self.final, self.manifest, list(self.pids), self.times
        )

    def _write_documents(self) -> None:
        self.partial.write_json(image.CONFIG, self.spec)
        self.partial.write_json(image.DESCRIPTORS, self.manifest.facts.get("streams", []))
        kept = self.manifest.facts
        kept["state"] = {
            "rootfs": self.state.rootfs, "bundle": self.state.bundle,
            "annotations": self.state.annotations, "network": self.state.network,
            "oci_version": self.state.oci_version, "systemd_unit": self.state.systemd_unit,
            "cgroup_driver": self.state.cgroups.get("driver", ""),
        }  # fmt: skip

    # -- after ------------------------------------------------------------------------------------

    def _seal(self) -> None:
        if self.wanted.seal:
            place = self.partial if os.path.isdir(self.partial.directory) else self.final
            place.seal(self.manifest)

    def _promote(self) -> None:
        """Put the files where they were asked for; a checkpoint that was there gives way."""
        if not os.path.isdir(self.partial.directory):
            return
        parent = None
        if os.path.lexists(self.partial.path(image.PARENT)):
            parent = self.wanted.parent_path
            os.unlink(self.partial.path(image.PARENT))
        self.final.remove_files()
        if parent is not None:
            os.symlink(parent, self.final.path(image.PARENT))
        self.partial.move_to(self.final)

    def _finish(self) -> None:
        """What could wait. Where the container runs on, that is to hash and to move."""
        if self.wanted.pre_dump:
            self._write_documents()
        if not self.gone:
            self._seal()
            self._promote()
        os.rmdir(self.partial.directory)

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
        """CRIU died: the kernel let the processes go, but not their sockets, nor a v1 freezer."""
        if self._held():
            return
        self._unlock()
        group = cgroups.from_facts(self.state.cgroups) if self.state.cgroups else None
        pids = group.pids() if group is not None else [self.state.pid]
        netlock.clear_repair(pids)
        if group is not None and group.frozen() and not self.paused:
            group.thaw()

    def _times_done(self) -> None:
        """The late files of CRIU follow, and the times go into the log."""
        for name in ("stats-dump", "irmap-cache"):
            if os.path.exists(self.partial.path(name)) and os.path.isdir(self.final.directory):
                os.rename(self.partial.path(name), self.final.path(name))
        begin = self.times.get("begin", 0.0)
        shown = [f"{name} +{(when - begin) * 1e3:.1f} ms" for name, when in self.times.items()]
        log.debug("checkpoint: " + ", ".join(shown))

    def _clean(self) -> None:
        """Remove what we made: the images go, the log stays, an older checkpoint too."""
        if self._held():
            return  # they may be all that is left of it
        try:
            files.remove_tree(self.partial.directory)
            if self.on_frozen is not None and not self.gone:
                self.final.remove_files()
            if self.made:
                os.rmdir(self.final.directory)  # stays when the log is in it
        except OSError as error:
            log.debug(f"{self.final.directory}: {error}")


def _kept_options(wanted: CheckpointOptions) -> dict[str, Any]:
    """What a restore has to be asked for likewise."""
    names = ("tcp_established", "tcp_close", "tcp_skip_in_flight", "ext_unix_sk", "shell_job",
             "file_locks", "link_remap")  # fmt: skip
    return {name: True for name in names if getattr(wanted, name)}


def _address(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadOption(option="page-server", reason=f"{text!r} is not ADDRESS:PORT")
    return host, int(port)


def _same(fd: int, path: str) -> bool:
    here, there = os.fstat(fd), os.stat(path)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _same_path(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _full(error: BaseException, path: str) -> NoSpace | None:
    """NoSpace when that is what it was, said by the kernel to us or to CRIU."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(path=path)
    if isinstance(error, CriuFailed) and str(error.fields.get("cause", "")).startswith(
        "no space left"
    ):
        return NoSpace(path=path)
    return None
