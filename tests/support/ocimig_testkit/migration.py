"""Hands without a kernel: a world that knows which copy runs, and channels that break where a test says."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ocimig.errors import OcimigError
from ocimig.migrate import agent, attach_source, facts, images
from ocimig.migrate.errors import LinkLost
from ocimig.migrate.hands import Brake, Frozen, Memory, Spec
from ocimig.migrate.journal import Journal
from ocimig.migrate.lazy.pull import Pull
from ocimig.migrate.memory.held import Held
from ocimig.migrate.move import MigrateOptions
from ocimig.migrate.transport import Connection, Target
from ocimig.migrate.transport.memory import MemoryChannel, MemoryConnection
from ocimig.migrate.wire import Frame, Wire
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store
from ocimig_testkit.migration_parts import Cut, FakeMemory

TARGET = Target("there")
OPTIONS = MigrateOptions(patience=1.0, doubt=0.3, reconnect=0.1)


class World:
    """Both hosts. `here` and `there` are what the copies do; two running at once is noted for ever."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.near = Store(str(directory / "near"))
        self.far = Store(str(directory / "far"))
        self.here = "running"
        self.there = "none"
        self.both = False
        self.log: list[str] = []
        self.facts: dict[str, Any] = {}
        self.failing: dict[str, BaseException] = {}
        self.memory = False  # whether memory travels by itself
        self.writes = 1 << 20  # pages it finds written after each round
        self.came = b""  # what followed while it ran there
        for store in (self.near, self.far):
            Path(store.root).mkdir()

    def do(self, what: str, *, here: str = "", there: str = "") -> None:
        """Something happens, unless a test wants it to fail."""
        self.log.append(what)
        if what in self.failing:
            raise self.failing[what]
        self.here = here or self.here
        self.there = there or self.there
        self.both = self.both or (self.here == "running" and self.there == "running")

    def running(self) -> list[str]:
        """Where a copy runs."""
        return [name for name in ("here", "there") if getattr(self, name) == "running"]


def host_facts(**changes: Any) -> dict[str, Any]:
    """A host on which everything is as it should be."""
    space = {
        "path": "/images", "exists": True, "empty": False, "parent": "/images", "directory": True,
        "problem": "", "free": 1 << 40, "inodes": 1 << 20, "memory": False,
    }  # fmt: skip
    bundle = {**space, "path": "/bundle", "exists": False, "parent": "/"}
    return {
        "ocimig": "1", "host": "there", "host_id": "b", "boot_id": "2", "uid": 0,
        "machine": "x86_64", "kernel": "6.1.0-1", "page_size": 4096, "cpu_flags": ["avx", "sse"],
        "clock": 0.0, "memory": {"available": 1 << 40, "swap": 0}, "pipe_max_size": 1 << 22,
        "cgroup": "v2", "lsm": ["apparmor"], "network_lock": "", "root": space, "images": [space],
        "criu": {"version": "4.2.1", "problem": "", "fix": ""}, "bundle": bundle, "taken": "",
        "epoch": 0, "missing": [], "network": None, **changes,
    }  # fmt: skip


def container_facts(**changes: Any) -> dict[str, Any]:
    """A container that can move."""
    return {
        "id": "c1", "pid": 1, "bundle": "/bundle", "rootfs": "/bundle/rootfs", "processes": 1,
        "memory": 1 << 20, "network": None, "own_network": False, "annotations": {}, "binds": [],
        "terminal": False, "pid_namespace": True, "objects": [], "connections": 0, "pipes": [],
        "files": {"bytes": 1 << 20, "inodes": 10}, **changes,
    }  # fmt: skip


class FakeBrake:
    """Slows nothing down."""

    def slow_down(self, share: float) -> None:
        """See Brake."""

    def restore(self) -> None:
        """See Brake."""


class FakeSource:
    """The source's hands."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.held = False
        self.notes: list[str] = []

    def load(self, store: Store, id: str) -> tuple[ContainerState, Spec]:
        """See Source."""
        return ContainerState(
            id, pid=1, start_time=1, bundle="/bundle", rootfs="/bundle/rootfs"
        ), {}

    def container(self, state: ContainerState, spec: Spec) -> dict[str, Any]:
        """See Source."""
        return container_facts(**self.world.facts)

    def host(self, store: Store, request: Mapping[str, Any]) -> dict[str, Any]:
        """See Source."""
        home = str(self.world.directory / "near-images")
        space = {**host_facts()["images"][0], "path": home}
        return host_facts(host="here", host_id="a", boot_id="1", images=[space])

    def trees(self, state: ContainerState) -> list[tuple[str, str]]:
        """See Source."""
        return [("bundle", "/bundle")]

    def send_files(
        self, wire: Wire, tree: str, path: str, state: ContainerState, pids: list[int]
    ) -> None:
        """See Source."""
        wire.send("tree", {"files": 1}, b"content")
        wire.expect("tree-done", timeout=2)

    def memory(
        self, state: ContainerState, options: MigrateOptions, streams: Sequence[Wire]
    ) -> Memory | None:
        """See Source."""
        return FakeMemory(self.world.writes) if self.world.memory else None

    def knows_files(self, tree: str) -> bool:
        """See Source."""
        return False

    def forget_files(self) -> None:
        """See Source."""

    def pids(self, state: ContainerState) -> list[int]:
        """See Source."""
        return []

    def dirty_rate(self, store: Store, id: str, options: MigrateOptions) -> None:
        """See Source."""

    def close(self) -> None:
        """See Source."""

    def brake(self, state: ContainerState, entry: Journal) -> Brake:
        """See Source."""
        return FakeBrake()

    def foresee(self, state: ContainerState, spec: Spec) -> dict[str, Any]:
        """See Source."""
        return {"config": spec, "foreseen": {}}

    def dump(
        self,
        store: Store,
        state: ContainerState,
        entry: Journal,
        options: MigrateOptions,
        on_frozen: Callable[[Frozen], None],
        memory: Memory | None = None,
        before_freeze: Callable[[], None] | None = None,
    ) -> None:
        """See Source. As CRIU does, a refusal lets it run again, unless it is held."""
        if before_freeze is not None:
            before_freeze()
        self.world.do("dump", here="frozen")
        directory = Path(entry.facts["images"])
        directory.mkdir(parents=True)
        (directory / "pages-1.img").write_bytes(b"memory" * 1000)
        (directory / "core-1.img").write_bytes(b"registers")
        try:
            request = {"post_copy": memory is not None and memory.post_copy}
            on_frozen(Frozen(str(directory), time.monotonic(), request=request))
        except BaseException:
            if not self.held:
                self.world.do("unfreeze", here="running")
            raise
        self.world.do("end", here="gone")

    def hold(self, store: Store, state: ContainerState, migration: str) -> None:
        """See Source."""
        self.held = True
        self.world.do("hold")

    def keep_memory(self, store: Store, state: ContainerState, memory: Memory) -> None:
        """See Source."""

    def kill(self, state: ContainerState) -> None:
        """See Source."""
        self.world.do("kill", here="gone")

    def let_run(self, store: Store, entry: Journal) -> bool:
        """See Source."""
        if self.world.here != "gone":
            self.world.do("let run", here="running")
        return self.world.here != "gone"

    def discard_images(self, entry: Journal) -> None:
        """See Source."""
        for path in images.paths(entry.facts["images"]):
            (Path(entry.facts["images"]) / path).unlink()

    def remove(self, store: Store, entry: Journal) -> list[str]:
        """See Source."""
        self.world.do("remove", here="gone")
        self.discard_images(entry)
        return []


class FakeDestination:
    """The destination's hands."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.held = Held()
        self.pull = Pull(self.held)

    def check_free(self, store: Store, id: str, wanted: Mapping[str, Any]) -> None:
        """See Destination."""
        self.world.do("check free")

    def reserve(self, store: Store, entry: Journal, wanted: Mapping[str, Any]) -> None:
        """See Destination."""
        Path(entry.facts["images"]).parent.mkdir(parents=True, exist_ok=True)
        self.world.do("reserve", there="reserved")

    def receive_files(self, wire: Wire, entry: Journal, header: Mapping[str, Any]) -> None:
        """See Destination."""
        wire.expect("tree", timeout=2)
        self.world.do("files")
        wire.send("tree-done")

    def warm(self, store: Store, entry: Journal, foreseen: Mapping[str, Any]) -> dict[str, Any]:
        """See Destination."""
        self.world.do("warm")
        return {"memory": self.world.memory}

    def follow(self, wire: Wire, frame: Frame) -> None:
        """See Destination."""
        self.pull.run(wire, frame, silence=2)

    def lost(self) -> str:
        """See Destination. As the page handler does, it ends what cannot go on."""
        if self.pull.failure and self.world.there == "running":
            self.world.do("lose", there="ended")
        return self.pull.failure

    def followed(self) -> str:
        """See Destination."""
        self.world.do("released without memory")
        while not self.pull.wait(0.01):
            pass
        for run in self.held.runs("p1"):
            self.world.came += os.pread(self.held.fd("p1"), run[1] - run[0], run[0])
        return self.lost()

    def pages(self, wire: Wire, frame: Frame) -> None:
        """See Destination."""

    def restore(
        self,
        store: Store,
        entry: Journal,
        request: Mapping[str, Any],
        receiver: images.Receiver,
        on_restored: Callable[[int], None],
    ) -> int:
        """See Destination. As CRIU does, a refusal kills what was built."""
        self.world.do("restore", there="held")
        try:
            on_restored(4242)
            self.world.do("resume", there="running")
        except BaseException:
            self.world.do("kill restored", there="none")
            raise
        return 4242

    def restored(self, pid: int) -> None:
        """See Destination."""
        self.world.do("restored")

    def release(self) -> None:
        """See Destination."""
        self.world.do("release")

    def settled(self, entry: Journal) -> None:
        """See Destination."""
        self.world.do("settled")

    def finish(self, entry: Journal) -> None:
        """See Destination."""
        self.world.do("finish")

    def runs(self, store: Store, entry: Journal) -> bool:
        """See Destination."""
        return self.world.there == "running"

    def adopt(self, store: Store, entry: Journal) -> None:
        """See Destination."""
        self.world.do("adopt")

    def discard(self, store: Store, entry: Journal) -> None:
        """See Destination."""
        self.world.do("discard", there="none")


class Link:
    """Connections to an agent in a thread; the first one may be cut, later ones as `later` says."""

    def __init__(self, world: World, monkey: Any, *, later: bool = True) -> None:
        self.world = world
        self.writes = -1
        self.reads = -1
        self.later = later
        self.made = 0
        self.channel: Cut | None = None
        self.agents: list[threading.Thread] = []
        self.agent: agent.Agent | None = None  # the first one
        self.stream: Cut | None = None  # the first that was attached
        self.stream_writes = -1
        self.stream_reads = -1
        monkey.setattr(facts, "host", self.facts)
        monkey.setattr(facts, "image_homes", lambda _store: [self.images])

    @property
    def images(self) -> str:
        """Where the far side keeps images."""
        return str(self.world.directory / "far-images")

    def facts(self, store: Store, request: Mapping[str, Any]) -> dict[str, Any]:
        """The far host."""
        space = {**host_facts()["images"][0], "path": self.images}
        return host_facts(images=[space], **self.world.facts.get("far", {}))

    def __call__(self) -> Connection:
        """Connect once more."""
        self.made += 1
        first = self.made == 1
        if not first and not self.later:
            raise LinkLost(host="there", reason="no route")
        return _Line(self, first)

    def run(
        self, argv: Sequence[str], channel: MemoryChannel, _say: Callable[[bytes], None]
    ) -> int:
        """`ocimig agent`."""
        self.agents.append(threading.current_thread())
        if attach_source.OPTION in argv:
            wire = Wire(channel)
            with suppress(OcimigError):
                wire.greet()
                wire.expect("attach", timeout=2)
                wire.send("attached")
                assert self.agent is not None
                self.agent._stream(wire)
            return 0
        serving = agent.Agent(Wire(channel), self.world.far, FakeDestination(self.world))
        self.agent = self.agent or serving
        serving.serve()
        return 0

    def settle(self) -> None:
        """Wait for the agents to end."""
        for thread in self.agents:
            thread.join(5)
            assert not thread.is_alive()


class _Line(MemoryConnection):
    def __init__(self, link: Link, first: bool) -> None:
        super().__init__(link.run)
        self._link = link
        self._first = first

    def open(self, argv: Sequence[str], *, separate: bool = False) -> Any:
        """See Connection."""
        channel = super().open(argv, separate=separate)
        if not self._first:
            return channel
        if attach_source.OPTION in argv:
            link = self._link
            link.stream = Cut(channel, writes=link.stream_writes, reads=link.stream_reads)
            return link.stream
        self._link.channel = Cut(channel, writes=self._link.writes, reads=self._link.reads)
        return self._link.channel
