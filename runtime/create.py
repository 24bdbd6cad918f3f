"""create, start and run: from a bundle to a process. Decides the order; `plan` decides the steps."""

import errno
import os
import select

from ocimig import files
from ocimig.errors import SystemFailure
from ocimig.runtime import plan
from ocimig.runtime.errors import AlreadyRunning, AlreadyStopped, CannotStart
from ocimig.runtime.hand_over import check_terminal
from ocimig.runtime.making import Making, relay
from ocimig.runtime.state import CREATED, PAUSED, RUNNING, STOPPED, ContainerState, status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocimig.runtime.making import Connect
    from ocimig.runtime.notify import Notify
    from ocimig.runtime.store import Store


class CreateOptions:
    """How a container is made; see the options of `ocimig create`."""

    __slots__ = (
        "config", "console_socket", "detach", "keep", "no_new_keyring", "no_pivot", "no_subreaper",
        "pid_file", "pidfd_socket", "preserve_fds", "rootless", "systemd_cgroup",
    )  # fmt: skip

    def __init__(
        self,
        *,
        config: str = "",
        console_socket: str = "",
        pidfd_socket: str = "",
        pid_file: str = "",
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        preserve_fds: int = 0,
        systemd_cgroup: bool = False,
        rootless: bool = False,
        detach: bool = False,
        keep: bool = False,
        no_subreaper: bool = False,
    ) -> None:
        self.config = config
        self.console_socket = console_socket
        self.pidfd_socket = pidfd_socket
        self.pid_file = pid_file
        self.no_pivot = no_pivot
        self.no_new_keyring = no_new_keyring
        self.preserve_fds = preserve_fds
        self.systemd_cgroup = systemd_cgroup
        self.rootless = rootless
        self.detach = detach
        self.keep = keep
        self.no_subreaper = no_subreaper


def create(
    store: "Store",
    id: str,
    bundle: str,
    options: CreateOptions,
    *,
    connect: "Connect | None" = None,
) -> ContainerState:
    """Make a container whose process waits for `start`.

    `connect(pid)` is called when its namespaces exist, before any hook. Raises an OcimigError, with
    nothing left behind, when it cannot be made.
    """
    making = Making(store, id, bundle, options)
    terminal = bool(making.spec["process"].get("terminal"))
    check_terminal(terminal, True, options.console_socket)
    making.connect = connect
    making.make(fifo=True)
    return making.state


def explain(store: "Store", id: str, bundle: str, options: CreateOptions) -> "list[str]":
    """What `create` would do in the container, a line a step. Makes and changes nothing."""
    return Making(store, id, bundle, options).explain()


def start(store: "Store", id: str) -> None:
    """Let a created container's process execute; returns when it has."""
    state = store.load(id)
    now = status(state, store)
    if now != CREATED:
        raise {
            RUNNING: AlreadyRunning(id=id),
            PAUSED: AlreadyRunning(id=id),
            STOPPED: AlreadyStopped(id=id),
        }.get(now) or CannotStart(id=id, status=now)
    spec = store.config(id)
    notify = relay(store.path(id))
    if notify is not None:
        notify.bind()
    fifo = store.fifo(id)
    try:
        with files.Fd(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as fd:
            os.write(fd, b"\0")
            os.unlink(fifo)
            _until_closed(fd)
    except (FileNotFoundError, BrokenPipeError):
        raise AlreadyRunning(id=id) from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # nobody reads any more
            raise AlreadyStopped(id=id) from None
        raise SystemFailure.of(f"start {id}", error) from None
    _started(spec, state, notify)


def _until_closed(fd: int) -> None:
    """Wait until the other end of a fifo is closed: by execve(2), or by the end of the process."""
    poller = select.poll()
    poller.register(fd, 0)  # POLLERR comes unasked
    poller.poll()


def _started(spec: "dict[str, Any]", state: ContainerState, notify: "Notify | None") -> None:
    wanted = (spec.get("hooks") or {}).get("poststart") or []
    if wanted:
        from ocimig.runtime import hooks, lifecycle

        hooks.run_all(wanted, lifecycle.hook_document(state, RUNNING), "poststart")
    if notify is not None:
        with files.Fd(os.pidfd_open(state.pid)) as pidfd:
            notify.wait(state.pid, pidfd)
        notify.close()


def run(
    store: "Store",
    id: str,
    bundle: str,
    options: CreateOptions,
    *,
    connect: "Connect | None" = None,
) -> int:
    """create and start in one; without `detach` wait, delete the container (unless `keep`), and
    return the exit code of its process (128+N when a signal ended it)."""
    making = Making(store, id, bundle, options)
    terminal = bool(making.spec["process"].get("terminal"))
    check_terminal(terminal, options.detach, options.console_socket)
    from ocimig.runtime import foreground

    making.connect = connect
    if options.detach:
        making.make(fifo=False)
        _started(making.spec, making.state, making.notify)
        return 0
    # With a pid namespace of its own the orphans are its first process's.
    subreaper = not options.no_subreaper and "pid" not in plan.namespaces(making.spec)[0]
    with foreground.Foreground(terminal, subreaper=subreaper) as front:
        making.arm = front.arm
        making.make(fifo=False)
        try:
            front.attach(making.state.pid, making.master)
            making.master = -1
            _started(making.spec, making.state, making.notify)
            code = front.wait()
        finally:
            if not options.keep:
                making.undo()
    return code
