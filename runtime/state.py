"""The facts of one container, and the status derived from them. Never stores a status.

state.json, version 1: one JSON object with the names of `ContainerState.__slots__` and "version".
A reader ignores what it does not know and keeps it for the next writer, and puts a default where a
name is missing; a larger version is refused.
"""

import os
import time

from ocimig import jsonio
from ocimig.runtime.linux import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocimig.runtime.store import Store

VERSION = 1

CREATING = "creating"
CREATED = "created"
RUNNING = "running"
PAUSED = "paused"
STOPPED = "stopped"


class ContainerState:
    """Facts only: what cannot be found out again by looking at the host.

    `pid` is 0 before the container's process exists and after it was checkpointed away. It means
    something only with `start_time` (ticks since boot) and `boot_id`: numbers are used again.
    `creator_pid` and `creator_start` tell a container in the making from one whose maker died.
    `mounts` are mounts on the host that belong to the container and go with it; `shared` are directories
    that go with the last of those that stand on them (see shared.py).
    `extra` holds fields that this version does not know.
    """

    __slots__ = (
        "annotations",
        "boot_id",
        "bundle",
        "cgroups",
        "checkpointed",
        "created",
        "creator_pid",
        "creator_start",
        "descriptors",
        "extra",
        "id",
        "image",
        "mounts",
        "network",
        "oci_version",
        "owner",
        "pid",
        "rootfs",
        "shared",
        "start_time",
        "systemd_unit",
    )

    def __init__(
        self,
        id: str,
        *,
        pid: int = 0,
        start_time: int = 0,
        boot_id: str = "",
        bundle: str = "",
        rootfs: str = "",
        cgroups: "dict[str, str] | None" = None,
        created: str = "",
        owner: int = -1,
        annotations: "dict[str, str] | None" = None,
        oci_version: str = "",
        descriptors: "list[str] | None" = None,
        image: str = "",
        network: "dict[str, Any] | None" = None,
        systemd_unit: str = "",
        checkpointed: bool = False,
        creator_pid: int = 0,
        creator_start: int = 0,
        mounts: "list[str] | None" = None,
        shared: "list[str] | None" = None,
        extra: "dict[str, Any] | None" = None,
    ) -> None:
        self.id = id
        self.pid = pid
        self.start_time = start_time
        self.boot_id = boot_id or proc.boot_id()
        self.bundle = bundle
        self.rootfs = rootfs
        self.cgroups = cgroups or {}
        self.created = created or now()
        self.owner = os.geteuid() if owner < 0 else owner
        self.annotations = annotations or {}
        self.oci_version = oci_version
        self.descriptors = descriptors or []
        self.image = image
        self.network = network
        self.systemd_unit = systemd_unit
        self.checkpointed = checkpointed
        self.creator_pid = creator_pid
        self.creator_start = creator_start
        self.mounts = mounts or []
        self.shared = shared or []
        self.extra = extra or {}

    def adopt(self, pid: int) -> None:
        """Take `pid` as the container's process, with the start time it has now.

        Raises ProcessLookupError when there is no such process.
        """
        stat = proc.stat(pid)
        if stat is None:
            raise ProcessLookupError(pid)
        self.pid, self.start_time, self.boot_id = pid, stat.start_time, proc.boot_id()
        self.checkpointed = False

    def to_json(self) -> str:
        """The state as one line of JSON."""
        document: dict[str, Any] = {"version": VERSION, **self.extra}
        for name in self.__slots__:
            if name != "extra":
                document[name] = getattr(self, name)
        return jsonio.dumps(document)

    @classmethod
    def from_json(cls, text: "str | bytes") -> "ContainerState":
        """Read state.json. Raises ValueError in words when it is not one."""
        document = jsonio.loads(text)
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 - the file is wrong, not the caller
        version = document.pop("version", VERSION)
        if not isinstance(version, int) or version > VERSION:
            raise ValueError(f"version {version}, this is a reader of version {VERSION}")
        identity = document.pop("id", None)
        if not isinstance(identity, str):
            raise ValueError("no id in it")  # noqa: TRY004
        # `boot_id` is given so that a file without one is of no boot, not of this one
        state = cls(identity, boot_id="unknown", created="unknown", owner=0)
        for name, value in document.items():
            if name not in cls.__slots__ or name == "extra":
                state.extra[name] = value
                continue
            usual = getattr(state, name)
            wanted = dict | None if name == "network" else type(usual)
            if not isinstance(value, wanted):
                raise ValueError(f"{name} is a {type(value).__name__}")  # noqa: TRY004
            setattr(state, name, value)
        return state


def now() -> str:
    """This moment as RFC 3339 with nanoseconds."""
    seconds, fraction = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"


def alive(state: ContainerState) -> bool:
    """Whether the container's own process, not another with its number, has not ended."""
    return _lives(state.pid, state.start_time, state.boot_id)


def _lives(pid: int, start_time: int, boot_id: str) -> bool:
    if pid <= 0:
        return False
    stat = proc.stat(pid)
    return (
        stat is not None
        and stat.start_time == start_time
        and not stat.ended
        and boot_id == proc.boot_id()
    )


def status(state: ContainerState, store: "Store") -> str:
    """What the container is now, from /proc, the start fifo and the freezer."""
    if state.pid == 0:
        creating = not state.checkpointed and _lives(
            state.creator_pid, state.creator_start, state.boot_id
        )
        return CREATING if creating else STOPPED
    if not alive(state):
        return STOPPED
    if frozen(state):
        return PAUSED
    return CREATED if os.path.exists(store.fifo(state.id)) else RUNNING


def frozen(state: ContainerState) -> bool:
    """Whether the freezer of the container's cgroup holds its processes."""
    if not state.cgroups:
        return False
    from ocimig.runtime import cgroups

    return cgroups.frozen(state.cgroups)
