"""What can go wrong with a container on this host. Texts that runc has are runc's: its callers match them."""

from ocimig.errors import OcimigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocimig.runtime.schema import Problems


class NoSuchContainer(OcimigError):
    """No container has this name below this root."""

    message = "container does not exist"
    hint = "see: ocimig list"
    code = 10

    def __init__(self, *, id: str, root: str) -> None:
        super().__init__(id=id, root=root)


class ContainerExists(OcimigError):
    """The name is taken."""

    message = "container with given ID already exists"
    hint = "take another name, or first: ocimig delete {id}"

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)


class InvalidId(OcimigError):
    """The name holds a character that a name may not hold, or is too long."""

    message = "invalid container ID format"
    hint = "{id!r}: use at most 200 of A-Z a-z 0-9 _ + . - and neither dot nor dash in front"

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)


class Busy(OcimigError):
    """Another process is changing this container."""

    message = "container {id} is busy: another command is working on it"
    hint = "wait for it to end, then try again"
    code = 11

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)


class Held(OcimigError):
    """A migration gave the container away and does not know yet whether it runs on the other host."""

    message = "container {id} is held by migration {migration}, which is in doubt"
    hint = "settle it: ocimig migrate --resume {id}"
    code = 21

    def __init__(self, *, id: str, migration: str) -> None:
        super().__init__(id=id, migration=migration)


class StateUnreadable(OcimigError):
    """The state file is damaged or was written by a newer version."""

    message = "state of container {id} cannot be read: {reason}"
    hint = "remove the container with: ocimig delete --force {id}"

    def __init__(self, *, id: str, reason: str) -> None:
        super().__init__(id=id, reason=reason)


class NotRunning(OcimigError):
    """The container has no process that could do this."""

    message = "container not running"

    def __init__(self, *, id: str, status: str) -> None:
        super().__init__(id=id, status=status)


class NotPaused(OcimigError):
    """Only a paused container can be resumed."""

    message = "container not paused"

    def __init__(self, *, id: str, status: str) -> None:
        super().__init__(id=id, status=status)


class NotStopped(OcimigError):
    """The container still runs, so it is not deleted without --force."""

    message = "cannot delete container {id} that is not stopped: {status}"
    hint = "end it with: ocimig kill {id} KILL, or use: ocimig delete --force {id}"

    def __init__(self, *, id: str, status: str) -> None:
        super().__init__(id=id, status=status)


class AlreadyRunning(OcimigError):
    """A container is started once."""

    message = "cannot start an already running container"

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)


class AlreadyStopped(OcimigError):
    """A container that ended is not started again; it is created anew."""

    message = "cannot start a container that has stopped"

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)


class CannotStart(OcimigError):
    """The container is in a state out of which it cannot be started."""

    message = "cannot start a container in the {status} state"

    def __init__(self, *, id: str, status: str) -> None:
        super().__init__(id=id, status=status)


class PausedExec(OcimigError):
    """A process started in a frozen cgroup would hang at once."""

    message = "cannot exec in a paused container (use --ignore-paused to override)"

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)


class StoppedExec(OcimigError):
    """There are no namespaces left to start a process in."""

    message = "cannot exec in a stopped container"

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)


class UnknownSignal(OcimigError):
    """No signal has this name or number here."""

    message = 'unknown signal "{signal}"'
    hint = "use a number, a name with or without SIG, or RTMIN+n"

    def __init__(self, *, signal: str) -> None:
        super().__init__(signal=signal)


class StillThere(OcimigError):
    """Processes did not end after SIGKILL: each waits in the kernel, often for a disk or a network share."""

    message = "container {id}: processes {pids} did not end within {seconds} seconds of SIGKILL"
    hint = "see what they wait for in /proc/PID/stack, then delete again: nothing was removed yet"
    code = 11

    def __init__(self, *, id: str, pids: str, seconds: int) -> None:
        super().__init__(id=id, pids=pids, seconds=seconds)


class HookFailed(OcimigError):
    """A hook of config.json ended with an error, too late, or could not be started."""

    message = "error running {what} hook #{number}: {path}: {reason}"

    def __init__(self, *, what: str, number: int, path: str, reason: str) -> None:
        super().__init__(what=what, number=number, path=path, reason=reason)


class SocketFailed(OcimigError):
    """A socket that the caller named does not take what it should be given."""

    message = "cannot send the {what} to {path}: {reason}"
    hint = "the caller must listen there before it starts the runtime"

    def __init__(self, *, what: str, path: str, reason: str) -> None:
        super().__init__(what=what, path=path, reason=reason)


class PsFailed(OcimigError):
    """The ps program is missing or did not do as asked."""

    message = "ps: {reason}"
    hint = "install procps, or ask for process numbers only: ocimig ps --format json {id}"

    def __init__(self, *, id: str, reason: str) -> None:
        super().__init__(id=id, reason=reason)


class InvalidConfig(OcimigError):
    """A config.json or process.json cannot be used as it is; `problems` has (JSON path, words) each."""

    message = "invalid {path}: {summary}"
    hint = "change {path} and try again: nothing was made or changed"

    def __init__(self, *, path: str, summary: str, problems: "Problems | None" = None) -> None:
        super().__init__(path=path, summary=summary)
        self.problems = list(problems or ())

    @classmethod
    def of(cls, path: str, problems: "Problems") -> "InvalidConfig":
        """Name the first ten problems; `problems` keeps them all."""
        lines = [f"{where}: {words}" if where else words for where, words in problems[:10]]
        if len(problems) > len(lines):
            lines.append(f"and {len(problems) - len(lines)} more")
        return cls(path=path, summary="; ".join(lines), problems=problems)


class NoConfig(OcimigError):
    """There is no config.json where the bundle should have it."""

    message = "JSON specification file {path} not found"
    hint = "name the bundle with --bundle, or write one: ocimig spec"


class SeccompFailed(OcimigError):
    """The system call filter of linux.seccomp cannot be made here."""

    message = "linux.seccomp: {reason}"
    hint = "{advice}"

    def __init__(self, *, reason: str, advice: str = "") -> None:
        super().__init__(reason=reason, advice=advice)


class InitFailed(OcimigError):
    """A step of making the container's process did not succeed; nothing of it is left."""

    message = "unable to start container process: {what}{colon}{reason}"
    hint = "see each step with: ocimig --debug"

    def __init__(self, *, what: str, reason: str) -> None:
        super().__init__(what=what, reason=reason, colon=": " if reason else "")


class NoInit(OcimigError):
    """The compiled program that becomes the container's process is not where it belongs."""

    message = "{path} is missing"
    hint = "compile it with: make init"


class NoBundle(OcimigError):
    """The directory that should hold config.json and the root file system is not there."""

    message = "bundle {path}: {reason}"
    hint = "name a directory that holds config.json and the root file system"


class NoRootfs(OcimigError):
    """The root file system that config.json names is not a directory."""

    message = "root file system {path}: {reason}"
    hint = "root.path of config.json is relative to the bundle"


class ConsoleMismatch(OcimigError):
    """process.terminal and --console-socket do not go together as given."""

    message = "cannot {reason}"


class BadDescriptor(OcimigError):
    """--preserve-fds counts a descriptor that the caller did not open."""

    message = "unable to stat preserved-fd {number} (of {count})"


class CannotRunHere(OcimigError):
    """config.json asks for something that this host has not got."""

    message = "{what}: {reason}"
    hint = "{advice}"


class NoSubCgroup(OcimigError):
    """exec --cgroup names a cgroup that the container does not have below its own."""

    message = "cannot use cgroup {text}: {reason}"
    hint = "a process in the container must make it first, below /sys/fs/cgroup"


class NoCgroups(OcimigError):
    """No cgroup file system is mounted where this process can see it."""

    message = "cgroups are not mounted"
    hint = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"


class InvalidCgroupsPath(OcimigError):
    """linux.cgroupsPath cannot be used."""

    message = "invalid linux.cgroupsPath {path!r}: {reason}"


class CgroupNotEmpty(OcimigError):
    """A cgroup of that name is there and holds processes that are not the container's."""

    message = "container's cgroup is not empty: {count} process(es) found in {path}"
    hint = "choose another linux.cgroupsPath, or end these processes: {pids}"


class CgroupFrozen(OcimigError):
    """A cgroup of that name is there and frozen: a process put into it would never run."""

    message = "container's cgroup unexpectedly frozen: {path}"


class CgroupDenied(OcimigError):
    """A cgroup could not be made or joined."""

    message = "unable to apply cgroup configuration: {path}: {reason}"


class LimitRefused(OcimigError):
    """The kernel, or a rule of ours, does not take a value of linux.resources."""

    message = "cannot set {controller} limit: {reason}"


class DevicesRefused(OcimigError):
    """linux.resources.devices cannot be enforced."""

    message = "cannot set device rules: {reason}"


class FreezeFailed(OcimigError):
    """Some process of the container did not reach a state in which it can be frozen."""

    message = "unable to freeze {path} within {seconds} s{detail}"


class CgroupBusy(OcimigError):
    """A cgroup cannot be removed: something still runs in it."""

    message = "cannot remove cgroup {path}: {reason}"
    hint = "kill what runs there, then delete the container again"


class NoSystemd(OcimigError):
    """--systemd-cgroup was asked for and systemd does not answer."""

    message = "systemd not running on this host, cannot use systemd cgroups manager: {reason}"
    hint = "leave out --systemd-cgroup"


class UnitFailed(OcimigError):
    """systemd did not start, change or stop the container's unit."""

    message = "unable to {verb} unit {unit}: {reason}"
