"""Restore one container on this host. Also what a migration does on the far side, in two parts:

    Restoration.prepare   name, cgroup, CRIU started and warm in its own mount namespace: no image needed
    Restoration.run       verify, lay out the mounts, restore, `on_restored`, let it run

Whatever fails before the container runs: no process, cgroup, mount or record of it is left.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from typing import Any

from ocimig import files, log
from ocimig.criu_images import binary, features, options, rpc
from ocimig.criu_images.errors import CriuDied, CriuFailed
from ocimig.criu_images.image import CheckpointImage, Manifest
from ocimig.errors import OcimigError
from ocimig.files import Fd
from ocimig.migrate import failpoints, journal, restore_request, restore_room, stage
from ocimig.migrate.errors import RestoreFailed
from ocimig.migrate.external import External
from ocimig.migrate.restore_network import RestoredNetwork
from ocimig.migrate.restore_request import LOG, Held, RestoreOptions
from ocimig.runtime import cgroups, console, hooks, lifecycle
from ocimig.runtime.errors import ConsoleMismatch
from ocimig.runtime.state import ContainerState, now
from ocimig.runtime.store import Store

__all__ = ["Restoration", "RestoreOptions", "restore", "restore_and_wait"]
OnRestored = Callable[[int], None]


def restore(
    store: Store, id: str, wanted: RestoreOptions, *, on_restored: OnRestored | None = None
) -> ContainerState:
    """Restore a container; it runs when this returns. `on_restored(pid)` is called when it is whole
    and not yet running: raising there kills it and leaves nothing."""
    journal.check_fence(store, id)
    with Restoration(store, id, wanted) as work:
        state = work.run(on_restored=on_restored)
        work.settle()
        return state


def restore_and_wait(
    store: Store, id: str, wanted: RestoreOptions, *, on_restored: OnRestored | None = None
) -> int:
    """Restore; without `detach` stand in front of it as `run` does, delete it at its end, and return
    its exit code. `on_restored` as for restore()."""
    from ocimig.runtime import foreground

    journal.check_fence(store, id)
    if wanted.detach:
        restore(store, id, wanted, on_restored=on_restored)
        return 0
    if wanted.console_socket:
        raise ConsoleMismatch(reason="use console socket if ocimig will not detach or allocate tty")
    with Restoration(store, id, wanted) as work:
        terminal = work.terminal
        with foreground.Foreground(terminal, subreaper=not wanted.no_subreaper) as front:
            state = work.run(on_restored=on_restored)
            try:
                front.attach(state.pid, work.take_master())
                work.settle()
                work.end_criu()
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
        self.network: RestoredNetwork | None = None
        self.claimed = wanted.claimed
        self.settled = False
        self.limited = False
        self.times: dict[str, float] = {}
        self.binds: dict[str, str] = {}
        self.held = Held()
        self.sources = stage.Sources()
        self.pages = wanted.page_handler
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
        root, self.binds = restore_request.of_bundle(place)
        rootfs = os.path.realpath(os.path.join(place, root or spec["root"]["path"]))
        if not os.path.isdir(rootfs):
            raise RestoreFailed(reason=f"root file system {rootfs} does not exist")
        if not self.claimed:
            self.store.claim(self.id)
        self.claimed = True
        self.state = ContainerState(
            self.id, bundle=place, rootfs=rootfs, annotations=spec.get("annotations"), image=self.image.directory,
            oci_version=spec.get("ociVersion", ""), mounts=[*self.wanted.mounts], shared=[*self.wanted.shared],
        )  # fmt: skip
        self.store.save(self.state, sync=False)
        self.store.save_config(self.id, spec, sync=False)
        self._make_cgroup()
        self.network = RestoredNetwork(spec, self.wanted, self.store.path(self.id))
        self.network.make()
        self.state.network = self.network.facts
        known = foreseen if foreseen is not None else self.manifest.facts
        self._start(known)
        if "mounts" in known:
            self._stage(known, early=True)
        self.times["warm"] = time.monotonic()

    def _usual_bundle(self) -> str:
        """The working directory when it is a bundle, as runc has it; else the one it had."""
        if os.path.exists("config.json"):
            return "."
        return str((self.manifest.facts.get("state") or {}).get("bundle") or ".")

    def _make_cgroup(self) -> None:
        assert self.state is not None
        linux = dict(self.spec.get("linux") or {})
        linux["resources"] = restore_room.wide(linux.get("resources") or {})
        self.group = cgroups.open_cgroup(linux, self.id, systemd=self.wanted.systemd_cgroup)
        self.state.cgroups = self.group.facts()
        self.store.save(self.state, sync=False)
        self.group.create(0)
        self.state.cgroups = self.group.facts()
        self.group.apply(linux["resources"])

    def _start(self, facts: Mapping[str, Any]) -> None:
        group = self.group
        assert group is not None
        own_view = "cgroup" in restore_request.spaces(self.spec)

        def enter() -> None:
            group.add(os.getpid())
            stage.enter(cgroup_namespace=(lambda: None) if own_view else None)

        netns = self.network.namespace if self.network is not None else -1
        restore_request.collect(self.held, self.spec, netns, self.wanted, facts)
        self.session = rpc.Session(binary.find())
        shell = self.wanted.shell_job
        self.session.start(
            hand_over=self.held.fds, stage=enter, own_group=not shell,
            stdin=self.wanted.stdio[0] if shell else -1,
        )  # fmt: skip
        able = features.ask(self.session)
        if self.wanted.lazy_pages:
            features.require_lazy_pages(able)

    # -- with the images ------------------------------------------------------------------------------

    def run(self, *, on_restored: OnRestored | None = None) -> ContainerState:
        """Restore from the image; the container runs when this returns."""
        self._on_restored = on_restored
        self.manifest = self.image.verify() if self.wanted.verify else self.image.manifest()
        if self.wanted.empty_ns:
            options.empty_namespaces(self.wanted.empty_ns)
        if self.session is None:
            self.prepare(self.image.config())
        elif not restore_request.keys(self.manifest.facts) <= set(self.held.keys):
            self.session.close()
            self.held.close()
            self.sources.close()
            self.held, self.sources = Held(), stage.Sources()
            self._start(self.manifest.facts)
        assert self.session is not None
        assert self.state is not None
        assert self.network is not None
        externals = self._stage(self.manifest.facts)
        stage.make_mount_points(self.state.rootfs, restore_request.targets(self.spec, externals))
        if restore_request.keeps_connections(self.wanted, self.manifest):
            self.network.lock()
        self.times["staged"] = time.monotonic()
        readonly = bool(self.spec["root"].get("readonly"))
        with stage.put_root(self.state.rootfs) if readonly else nullcontext():
            self._call(self.session, self.sources.paths(externals))
        self.times["done"] = time.monotonic()
        self._limit(restore_room.processor)
        self.network.unlock()
        self._show_times()
        return self.state

    def _stage(self, facts: Mapping[str, Any], *, early: bool = False) -> list[External]:
        """Lay out what CRIU binds from; what lies there already as it should stays."""
        assert self.session is not None
        assert self.state is not None
        externals = restore_request.externals(facts, self.binds)
        notify = os.path.join(self.store.path(self.id), "notify")
        where = stage.Places(self.state.bundle, self.state.cgroups, notify)
        self.sources.add_root(self.state.rootfs, slave=bool(facts.get("root_slave")))
        self.sources.add(externals, where, early=early)
        if restore_request.mapped(self.spec) and not early:
            self.sources.add_images(self.image.directory, self.manifest, self.spec["linux"])
        self.sources.attach(self.session.pid)
        return externals

    def _call(self, session: rpc.Session, sources: Mapping[str, str]) -> None:
        work_path = os.path.abspath(self.wanted.work_path or self.image.directory)
        os.makedirs(work_path, mode=0o700, exist_ok=True)
        log_path = os.path.join(work_path, LOG)
        if self.wanted.lazy_pages and self.pages is None:
            self._serve_pages(work_path)
        with (
            Fd(os.open(self.image.directory, os.O_RDONLY | os.O_DIRECTORY)) as images,
            Fd(os.open(work_path, os.O_RDONLY | os.O_DIRECTORY)) as work,
        ):
            request = session.request("RESTORE")
            restore_request.criu_options(
                self.wanted, self.manifest, self.spec,
                images=images, work=work, sources=sources, held=self.held,
            ).write(session.rpc, request.opts)  # fmt: skip
            callbacks = {
                "setup-namespaces": self._set_up,
                "orphan-pts-master": self._take_terminal,
                "post-restore": self._restored,
                "pre-resume": self._release,
            }
            try:
                os.unlink(log_path)
            except FileNotFoundError:
                pass
            try:
                session.call(request, notify=callbacks, watch=rpc.Watch(log_path))
            except (CriuDied, CriuFailed) as error:
                # Without its memory the container was ended, and CRIU, which sat in its cgroup, with it.
                if self.pages is not None and (lost := self.pages.outcome.reason):
                    raise RestoreFailed(reason=f"its memory cannot come: {lost}") from error
                raise

    def _serve_pages(self, work_path: str) -> None:
        """Be the server of lazy pages ourselves, unless somebody is that already."""
        from ocimig.migrate.lazy import local

        def lost(reason: str) -> None:
            log.error(f"container {self.id} is ended: {reason}")
            lifecycle.end(self.store.load(self.id))

        if not local.served_by_another(work_path):
            self.pages = local.serve(self.image.directory, work_path, lost)

    # -- CRIU's questions -------------------------------------------------------------------------------

    def _set_up(self, notice: rpc.Notice) -> None:
        """The namespaces exist, nothing is in them."""
        assert self.state is not None
        self.pid = notice.pid
        self.state.adopt(notice.pid)
        if self.network is not None and self.network.take_over(notice.pid):
            self.state.network = self.network.facts
            if restore_request.keeps_connections(self.wanted, self.manifest):
                self.network.lock()
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
        self.state.descriptors = self.held.streams(notice.pid)
        self.store.save(self.state, sync=False)
        if self.wanted.pid_file:
            files.write_atomic(self.wanted.pid_file, str(notice.pid).encode(), 0o644, sync=False)
        if self.pages is not None:
            self.pages.mark(self.store.path(self.id))
            self.pages.fill(ahead=not self.wanted.on_demand)
        if self._on_restored is not None:
            self._on_restored(notice.pid)
        self.times["released"] = time.monotonic()

    def _release(self, _: rpc.Notice) -> None:
        # Without CRIU it would run by now. Before, the kernel would acknowledge what it then never sees.
        failpoints.here("destination", "unlocking")
        if self.network is not None:
            self.network.release()
        failpoints.here("destination", "unlocked")

    # -- the end ------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """The container runs and is nobody's to undo."""
        self.settled = True
        if self.network is not None:  # it may run although CRIU died on the way out
            self.network.unlock()

    def end_criu(self) -> None:
        """Wait for CRIU's process, which has done its work; the room that it had is taken back."""
        if self.session is not None:
            self.session.close()
        if self.settled and not self.limited:
            self.limited = True
            self._limit(restore_room.exact)

    def _limit(self, some: restore_room.Limits) -> None:
        if self.group is not None:
            restore_room.take_back(self.group, some, self.spec, self.id)

    def take_master(self) -> int:
        """The master of the container's terminal (or -1), which is the caller's from now on."""
        master, self.master = self.master, -1
        return master

    def _close(self) -> None:
        self.end_criu()
        if self.session is not None:
            self.session.__exit__()
        if self.pages is not None and self.wanted.page_handler is None:
            if self.settled:
                self.pages.filled()
            self.pages.close()
        self.sources.close()
        self.held.close()
        if self.network is not None:
            self.network.close()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def _undo(self) -> None:
        """Kill CRIU and what it made, remove what we made. What hinders is a warning."""
        if self.session is not None:
            self.session.kill()
        if self.group is not None:
            try:
                self.group.kill_all(9)
            except (OcimigError, OSError) as error:
                log.warning(f"container {self.id}: {error}")
        _reap(self.pid)
        if self.network is not None:
            self.network.abandon()
        if self.claimed:
            try:
                lifecycle.delete(self.store, self.id, force=True)
            except OcimigError as error:
                log.warning(f"container {self.id}: not all of it could be removed: {error}")

    def _show_times(self) -> None:
        begin = self.times.get("begin", 0.0)
        shown = [f"{name} +{(when - begin) * 1e3:.1f} ms" for name, when in self.times.items()]
        log.debug("restore: " + ", ".join(shown))


def _reap(pid: int) -> None:
    """Our child, not yet waited for: the number cannot be another's."""
    with suppress(ChildProcessError, ProcessLookupError):
        if pid and not os.waitpid(pid, os.WNOHANG)[0]:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
