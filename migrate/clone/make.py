"""Copies of one checkpoint. What fails before a copy runs leaves nothing of that copy; its source is only read."""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ocimig import files, jsonio, log
from ocimig.criu_images.errors import CriuFailed
from ocimig.criu_images.image import CONFIG, CheckpointImage, Manifest
from ocimig.files import Fd
from ocimig.migrate import journal, network, network_arp, restore
from ocimig.migrate.clone import keeper, merge, plan
from ocimig.migrate.clone.errors import NotClonable
from ocimig.migrate.clone.layer import Layer
from ocimig.migrate.lazy import hurry
from ocimig.migrate.network import NetworkConfig
from ocimig.migrate.restore_request import Connect, RestoreOptions, of_bundle
from ocimig.runtime import state as facts
from ocimig.runtime.errors import ContainerExists, NoSuchContainer, StateUnreadable
from ocimig.runtime.linux import namespaces
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint that was found whole, and the root file system that its copies lie over. `ground` is the
    directory that goes with the last copy; "" where the images and the files are somebody's own."""

    image: str
    manifest: Manifest
    config: dict[str, Any]
    bundle: str
    root: str
    ground: str = ""

    @property
    def network(self) -> dict[str, Any] | None:
        """The facts of the network that ocimig had built for it, if it had."""
        return (self.manifest.facts.get("state") or {}).get("network") or None


@dataclass(frozen=True, slots=True)
class CloneOptions:
    """As the options of `ocimig clone`. Output of the copies goes to files in `output` ("" is nowhere), logs
    of CRIU below `work_path` ("" is the copy's state directory). Memory comes when it is touched; with `fill` all of
    it comes while the copy runs, with `whole` before. With `merge` equal pages of copies are the kernel's to merge."""

    output: str = ""
    work_path: str = ""
    whole: bool = False
    fill: bool = False
    systemd_cgroup: bool = False
    merge: bool = False


def find(image_path: str, bundle: str = "") -> Source:
    """Read a checkpoint and compare it with its digests, once for all copies. Raises NotClonable and what a
    restore raises of images that are not whole."""
    image = CheckpointImage(os.path.abspath(image_path))
    manifest = image.verify()
    config = image.config()
    plan.require(image.directory, config)
    saved = (manifest.facts.get("state") or {}).get("bundle") or "."
    place = os.path.abspath(bundle or str(saved))
    named, _ = of_bundle(place)
    root = os.path.realpath(os.path.join(place, named or config["root"]["path"]))
    if not os.path.isdir(root):
        raise NotClonable(
            image=image.directory,
            reason=f"its root file system {root} does not exist",
            remedy="name the bundle that has it: --bundle DIR",
        )
    return Source(image.directory, manifest, config, place, root)


def writers(store: Store, source: Source) -> list[str]:
    """The containers that run on the root file system that copies of `source` are going to lie over."""
    found = []
    for id in store.ids():
        try:
            state = store.load(id)
        except (NoSuchContainer, StateUnreadable):
            continue
        if state.rootfs == source.root and facts.alive(state):
            found.append(id)
    return found


def clone(
    store: Store,
    source: Source,
    name: str,
    options: CloneOptions,
    joined: NetworkConfig | None = None,
) -> int:
    """Start one copy; it runs when this returns its pid. `joined` is its network, None for nothing but loopback.

    Raises ContainerExists, and NotCloned: then nothing of it is left."""
    journal.check_fence(store, name)
    if store.exists(name):
        raise ContainerExists(id=name)
    said = keeper.apart(lambda say: _live(store, source, name, options, joined, say))
    return int(said["pid"])


def _live(
    store: Store,
    source: Source,
    name: str,
    options: CloneOptions,
    joined: NetworkConfig | None,
    say: keeper.Said,
) -> None:
    """In a process of its own: start it, say its pid, and stay as long as it needs somebody."""
    layer = Layer(store.path(name))
    config = plan.configuration(source.config, name, bundle=source.bundle, root=layer.root)
    with (
        Fd(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) as null,
        Fd(_output(options, name)) as out,
    ):
        work_path = options.work_path and os.path.join(options.work_path, name)
        wanted = RestoreOptions(
            image_path=source.image,
            work_path=work_path or os.path.join(layer.state, "criu"),
            bundle=layer.bundle,
            tcp_close=True,  # a connection has one other end, and would be in several places
            detach=True,
            systemd_cgroup=options.systemd_cgroup,
            stdio=(null, out, out),
            lazy_pages=not options.whole and plan.comes_late(source.manifest, config),
            on_demand=not options.fill,
            own_streams=True,
            connect=_connector(joined, name),
            verify=False,  # find() has
            claimed=True,
            mounts=(layer.root,),
            shared=(source.ground,) if source.ground else (),
        )
        store.claim(name)
        with restore.Restoration(store, name, wanted) as work:
            # First the facts: whoever deletes it finds the mount, wherever we are ended.
            first = ContainerState(
                name, bundle=layer.bundle, mounts=[*wanted.mounts], shared=[*wanted.shared]
            )
            store.save(first, sync=False)
            listener = hurry.listen(layer.state)
            layer.make(source.root)
            if options.merge:
                merge.mark()
            path = os.path.join(layer.bundle, CONFIG)
            files.write_atomic(path, jsonio.dumps(config, indent=2).encode(), sync=False)
            work.prepare(config, foreseen=source.manifest.facts)
            keeper.settle_in()  # its cgroup, which may be beside ours, has been made
            pid = _run(work, name, keep_log=bool(options.work_path))
            if options.merge:
                _say_unmarked(pid, name)
            pages, work.pages = work.pages, None
    say({"pid": pid})
    if pages is not None:
        keeper.keep(pages, pid, layer.state, listener)


def _run(work: restore.Restoration, name: str, *, keep_log: bool) -> int:
    def restored(pid: int) -> None:
        if plan.renamed(work.spec):
            rename_host(pid, name)

    try:
        state = work.run(on_restored=restored)
    except CriuFailed as error:
        raise error if keep_log else _without_log(error) from error
    work.settle()
    return state.pid


def _say_unmarked(pid: int, name: str) -> None:
    with suppress(ProcessLookupError, FileNotFoundError):  # it may have ended already
        if not merge.marked(pid):
            log.warning(
                f"{name} is not marked for KSM: the kernel forgot it at an exec (6.7 does not)"
            )


def _without_log(error: CriuFailed) -> CriuFailed:
    """The log goes with the copy that failed."""
    step, cause = str(error.fields["step"]), str(error.fields["cause"])
    return CriuFailed(step=step, cause=cause, remedy="to keep CRIU's log: --work-path DIR")


def rename_host(pid: int, name: str) -> None:
    """Give the host of a process another name, in the process's own UTS namespace."""
    with (
        Fd(os.open("/proc/thread-self/ns/uts", os.O_RDONLY | os.O_CLOEXEC)) as own,
        Fd(os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY | os.O_CLOEXEC)) as its,
    ):
        namespaces.setns(its, namespaces.CLONE_NEWUTS)
        try:
            socket.sethostname(name)
        finally:
            namespaces.setns(own, namespaces.CLONE_NEWUTS)


def _output(options: CloneOptions, name: str) -> int:
    if not options.output:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.makedirs(options.output, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(os.path.join(options.output, f"{name}.log"), flags, 0o600)


def _connector(config: NetworkConfig | None, name: str) -> Connect | None:
    if config is None:
        return None
    wanted = config

    def connect(netns: int) -> dict[str, Any]:
        made = network.connect(netns, wanted, name)
        network_arp.announce(netns, network.from_facts(made)).close()
        return made

    return connect
