"""A snapshot of one running container. The order of things; what each of them is, is decided elsewhere.

    while it runs   files and memory are read and stored, memory in rounds until little is left
    frozen          CRIU dumps all but memory; the pages and files that changed last are put aside
    it runs again   what was put aside is stored, and last of all the snapshot

Whatever fails: the container runs on, and the store is as it was but for packs that a later one may use.
"""

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ocimig import files, jsonio, log
from ocimig.migrate import checkpoint, dirty_rate, facts, failpoints, journal, rootfs, trackers
from ocimig.migrate.backup import known as known_files
from ocimig.migrate.backup.files import Capture
from ocimig.migrate.backup.memory import Aside, Before, Keeper, StoreSender
from ocimig.migrate.dump_request import CheckpointOptions
from ocimig.migrate.memory.runs import PAGE, total
from ocimig.migrate.restore_request import mapped
from ocimig.migrate.source import RealSource
from ocimig.migrate.source_memory import SourceMemory
from ocimig.migrate.store import head, stream, tree
from ocimig.migrate.store.errors import FileMissing, StoreDamaged
from ocimig.migrate.store.snapshot import Image, Snapshot, Tree
from ocimig.migrate.store.store import Store as Repository
from ocimig.migrate.store.writer import Writer
from ocimig.runtime.errors import Busy, NoSuchContainer
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store

ENOUGH = 1024  # pages that may be left for the freeze: they take about 2 ms
ROUNDS = 6
SLOWER = 0.6  # a round that leaves more than this part of what the one before left is the last
_HOME = ".backups"


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """As the options of `ocimig backup create`."""

    tags: tuple[str, ...] = ()
    tracker: str = ""  # "" is the best that works here, "none" leaves all memory to CRIU
    tcp_close: bool = False
    file_locks: bool = True
    link_remap: bool = True
    ext_unix_sk: bool = False


def create(
    containers: Store, id: str, repository: Repository, options: BackupOptions
) -> tuple[Snapshot, list[str]]:
    """Take a snapshot of a running container: it, and what a person should know of it.

    The caller holds the store's shared lock. Raises what load() of a migration's source and a checkpoint
    raise, and NoSpace, PlaceFailed of the store.
    """
    try:
        with journal.claim_container(containers, id), containers.lock(id, wait=False):
            source = RealSource()
            state, spec = source.load(containers, id)
            return _Create(containers, repository, options, state, spec).run(source)
    except BlockingIOError:
        raise Busy(id=id) from None
    except FileNotFoundError:
        if not containers.exists(id):
            raise NoSuchContainer(id=id, root=containers.root) from None
        raise


class _Create:
    def __init__(
        self,
        containers: Store,
        repository: Repository,
        options: BackupOptions,
        state: ContainerState,
        spec: dict[str, Any],
    ) -> None:
        self.containers = containers
        self.repository = repository
        self.options = options
        self.state = state
        self.spec = spec
        self.home = os.path.join(containers.root, _HOME, state.id)
        whose = head.digest_of(os.path.realpath(containers.root).encode()).hex()[:8]
        self.room = os.path.join(
            repository.cache, "work", f"{state.id}.{whose}"
        )  # for what is large
        self.notes: list[str] = []
        self.began = time.monotonic()
        self.frozen_at = 0.0  # seconds since 1970
        self.times: dict[str, float] = {}
        self.number = head.fresh_number()
        self.hot: Mapping[str, Any] = {}
        self.manifest: dict[str, Any] = {}
        self.pages = 0

    def run(self, source: RealSource) -> tuple[Snapshot, list[str]]:
        """See create()."""
        for place in (self.home, self.room):
            files.remove_tree(place)  # what a crash left; the lock is ours
            os.makedirs(place, mode=0o700)
        try:
            with ExitStack() as stack:
                writer = self.repository.writer()
                stack.callback(writer.close)
                snapshot = self._take(source, writer, stack)
            self.repository.add(snapshot)
        finally:
            files.remove_tree(self.home)
            files.remove_tree(self.room)
        return snapshot, self.notes

    def _take(self, source: RealSource, writer: Writer, stack: ExitStack) -> Snapshot:
        captures = [
            (name, path, stack.enter_context(self._capture(writer, name, path)))
            for name, path in source.trees(self.state)
        ]
        for _, _, capture in captures:
            capture.scan(lambda: rootfs.shared_mappings(source.pids(self.state)))
        keeper = Keeper(writer, self.repository.digest_key, self._before())
        aside = Aside(self.room, keeper)
        stack.callback(aside.close)
        trees = [capture for _, _, capture in captures]
        memory = self._memory(keeper, aside)
        try:
            self._rounds(memory, trees)
            self._freeze(memory, trees)
            kept = memory.held() if memory is not None else []
            sizes = {space: os.fstat(fd).st_size for space, fd, _ in kept if space[0] == "s"}
        finally:
            if memory is not None:
                memory.close()
        aside.take_up()
        kept_trees = []
        for name, path, capture in captures:
            captured = capture.finish()
            keeper.read_bytes += captured.data
            kept_trees.append(Tree(name, path, jsonio.loads(tree.encode(captured.root))))
        self.pages = sum(total(runs) for _, _, runs in kept) // PAGE
        spaces = keeper.segments({space: runs for space, _, runs in kept if runs})
        images = self._images(writer)
        written = writer.finish()
        for (name, _, capture), each in zip(captures, kept_trees, strict=True):
            known_files.save(self._cache(name), head.hexadecimal(self.number), capture.known())
            self.notes += [f"{each.path}: {capture.blind}"] if capture.blind else []
        return self._snapshot(
            spaces, sizes, kept_trees, images, keeper.read_bytes, written.stored_bytes
        )

    def _snapshot(
        self,
        spaces: dict[str, tuple[tuple[int, int, int], ...]],
        sizes: dict[str, int],
        trees: list[Tree],
        images: dict[str, Image],
        read: int,
        stored: int,
    ) -> Snapshot:
        times = self.times
        return Snapshot(
            id=head.hexadecimal(self.number),
            container=self.state.id,
            host=facts.host_name(),
            time=self.frozen_at,
            config=self.spec,
            manifest=self.manifest,
            images=images,
            spaces=spaces,
            shared=sizes,
            trees=tuple(trees),
            labels={k: str(v) for k, v in (self.spec.get("annotations") or {}).items()},
            tags=self.options.tags,
            hot={pid: list(runs) for pid, runs in self.hot.items()},
            frozen_seconds=times.get("released", times["done"]) - times["begin"],
            seconds=time.monotonic() - self.began,
            pages=self.pages,
            read_bytes=read,
            stored_bytes=stored,
        )

    # ---- files

    def _cache(self, tree_name: str) -> str:
        return os.path.join(self.repository.cache, "files", f"{self.state.id}.{tree_name}")

    def _capture(self, writer: Writer, name: str, path: str) -> Capture:
        os.makedirs(os.path.dirname(self._cache(name)), mode=0o700, exist_ok=True)
        there = self.repository.names()
        known = known_files.load(self._cache(name), lambda id: id in there)
        return Capture(writer, path, room=self.room, known=known)

    # ---- memory

    def _before(self) -> Before | None:
        """The latest snapshot of this container that can be read."""
        latest = None
        for each in self.repository.snapshots():
            if each.container == self.state.id:
                latest = each
        if latest is None:
            return None
        try:
            for number in {pack for listed in latest.spaces.values() for _, pack, _ in listed}:
                self.repository.packs.contents(number)
        except (FileMissing, StoreDamaged) as error:
            log.warning(f"all memory is stored anew: {error}")
            return None
        return Before(self.repository.packs, latest)

    def _memory(self, keeper: Keeper, aside: Aside) -> SourceMemory | None:
        if self.options.tracker == "none" or mapped(self.spec):
            self.notes.append("all memory is saved in the freeze")
            return None
        tracker = trackers.choose(
            self.options.tracker, pause=lambda: dirty_rate.paused(self.state), shared=True
        )
        return SourceMemory(self.state.pid, tracker, StoreSender(keeper, tracker.sent), aside)

    def _rounds(self, memory: SourceMemory | None, captures: list[Capture]) -> None:
        before = 0
        for number in range(ROUNDS if memory is not None else 0):
            assert memory is not None
            left = memory.round().dirty_pages
            for capture in captures:
                capture.listen()
            if left <= ENOUGH or (number and left > SLOWER * before):
                break
            before = left

    # ---- the freeze

    def _freeze(self, memory: SourceMemory | None, captures: list[Capture]) -> None:
        def before_freeze() -> None:
            if memory is not None:
                memory.round()
            for capture in captures:
                capture.listen()

        def on_frozen(frozen: checkpoint.Frozen) -> None:
            self.frozen_at = time.time()
            for capture in captures:
                capture.freeze(frozen.pids)
            self.manifest = jsonio.loads(frozen.manifest.to_json())
            self.times = frozen.times
            failpoints.here("backup", "frozen")

        checkpoint.checkpoint(
            self.containers,
            self.state.id,
            CheckpointOptions(
                image_path=os.path.join(self.home, "images"),
                work_path=os.path.join(self.home, "criu"),
                leave_running=True,
                tcp_established=not self.options.tcp_close,
                tcp_close=self.options.tcp_close,
                file_locks=self.options.file_locks,
                link_remap=self.options.link_remap,
                ext_unix_sk=self.options.ext_unix_sk,
                seal=False,
                keep=True,
                before_freeze=before_freeze,
            ),
            on_frozen=on_frozen,
            lock=False,
            memory=memory,
        )
        if memory is not None:
            self.hot = memory.hot()
            self.notes += memory.notes

    def _images(self, writer: Writer) -> dict[str, Image]:
        found = {}
        with os.scandir(os.path.join(self.home, "images")) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                if not entry.is_file(follow_symlinks=False) or entry.name.endswith(".log"):
                    continue
                with files.Fd(os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
                    size = os.fstat(fd).st_size
                    stored = stream.put_file(writer, fd, size)
                    found[entry.name] = Image(size, stored.runs)
        return found
