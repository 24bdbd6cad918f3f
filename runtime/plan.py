"""From a configuration to the steps that make the container. Pure: opens nothing, asks the host nothing.

Everything the plan needs to know of the host comes in as `Facts`. What it returns can be printed
(`ocimig create --explain`) before anything runs.
"""

from ocimig.runtime import mounts, steps, sync
from ocimig.runtime.steps import Source, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Numbers of <linux/sched.h>; written here because `linux.namespaces` loads ctypes and a plan needs none.
CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
# In the order in which they are joined: the user namespace gives the right to join the others.
FLAGS = {
    "user": CLONE_NEWUSER,
    "mount": CLONE_NEWNS,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "network": CLONE_NEWNET,
    "pid": CLONE_NEWPID,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}
CLOCKS = ("monotonic", "boottime")
POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4,
    "SCHED_IDLE": 5, "SCHED_DEADLINE": 6,
}  # fmt: skip
SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 1, "SCHED_FLAG_RECLAIM": 2, "SCHED_FLAG_DL_OVERRUN": 4,
    "SCHED_FLAG_KEEP_POLICY": 8, "SCHED_FLAG_KEEP_PARAMS": 16, "SCHED_FLAG_UTIL_CLAMP_MIN": 32,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
}  # fmt: skip
IOPRIO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
PERSONAS = {"LINUX": 0, "LINUX32": 8}
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FIFO = Source("fd", "exec.fifo")
NULL = Source("null", "/dev/null")


class Facts:
    """What the plan has to know of the host and of how it was called."""

    __slots__ = (
        "apparmor",
        "bundle",
        "caps",
        "cgroup_fork",
        "cgroup_joins",
        "cgroup_mounts",
        "env",
        "fifo",
        "keyring",
        "no_pivot",
        "persona",
        "rootfs",
        "seccomp",
        "seccomp_flags",
        "setgroups",
        "start_hooks",
    )  # fmt: skip

    def __init__(self, bundle: str, rootfs: str) -> None:
        self.bundle = bundle
        self.rootfs = rootfs
        self.apparmor = "/proc/thread-self/attr/apparmor/exec"
        self.caps: tuple[int, int, int, int, int] | None = None
        self.cgroup_joins: list[tuple[str, str]] = []  # files to write, and what, to be in it
        self.cgroup_fork = ""  # the v2 directory to be forked into
        self.cgroup_mounts: dict[int, list[Step]] = {}  # index of the mount -> its steps
        self.env: list[str] = []  # what the runtime adds: LISTEN_FDS, NOTIFY_SOCKET
        self.fifo = True
        self.keyring = ""  # name of a new session keyring, "" for none
        self.no_pivot = False
        self.seccomp = b""
        self.seccomp_flags = 0
        self.setgroups = True  # false where a user namespace denies setgroups(2)
        self.start_hooks: list[dict[str, Any]] = []
        self.persona: dict[str, Any] | None = None  # linux.personality


def plan(spec: "dict[str, Any]", facts: Facts) -> "list[Step]":
    """All steps from the first namespace to execve(2)."""
    new, joined = namespaces(spec)
    found = [steps.enter_cgroup(path, value) for path, value in facts.cgroup_joins]
    found += _enter(spec, new, joined)
    found.append(steps.fork(facts.cgroup_fork))
    if "cgroup" in new:  # its root is the cgroup that we are in now
        found.append(steps.unshare(CLONE_NEWCGROUP, "cgroup"))
    found.append(steps.setsid())
    if facts.keyring:
        found.append(steps.keyring(facts.keyring))
    if spec.get("hostname"):
        found.append(steps.hostname(spec["hostname"]))
    if spec.get("domainname"):
        found.append(steps.domainname(spec["domainname"]))
    if "network" in new:
        found.append(steps.loopback())
    own_mounts = "mount" in new or "mount" in joined
    found += _file_system(spec, facts, own_mounts, "user" in new or "user" in joined)
    found += process(spec["process"], facts)
    return found


def namespaces(spec: "dict[str, Any]") -> "tuple[list[str], dict[str, str]]":
    """The namespaces to make, and those to join with their paths, both in the order of FLAGS."""
    asked = {
        entry["type"]: entry.get("path") or ""
        for entry in spec.get("linux", {}).get("namespaces") or []
    }
    new = [name for name in FLAGS if name in asked and not asked[name]]
    return new, {name: asked[name] for name in FLAGS if asked.get(name)}


def _enter(spec: "dict[str, Any]", new: "list[str]", joined: "dict[str, str]") -> "list[Step]":
    found = []
    for name, path in joined.items():
        found.append(steps.join(Source("namespace", path), FLAGS[name], name))
        if name == "user":
            found.append(steps.become_root(0))
    if "user" in new:
        found.append(steps.unshare(CLONE_NEWUSER, "user"))
        found.append(steps.become_root(sync.MAPS))
    others = [name for name in new if name not in {"user", "cgroup"}]
    if others:
        flags = sum(FLAGS[name] for name in others)
        found.append(steps.unshare(flags, " ".join(others)))
    if clock_offsets(spec):
        found.append(steps.sync(sync.OFFSETS, "the clocks of the time namespace"))
    return found


def clock_offsets(spec: "dict[str, Any]") -> str:
    """linux.timeOffsets as /proc/PID/timens_offsets takes them, or "". time_namespaces(7)."""
    offsets = spec.get("linux", {}).get("timeOffsets") or {}
    return "".join(
        f"{clock} {offsets[clock].get('secs') or 0} {offsets[clock].get('nanosecs') or 0}\n"
        for clock in CLOCKS
        if clock in offsets
    )


def _file_system(
    spec: "dict[str, Any]", facts: Facts, own_mounts: bool, mapped: bool
) -> "list[Step]":
    linux = spec.get("linux", {})
    propagation = linux.get("rootfsPropagation") or ""
    default = _propagation(propagation)
    found = []
    if own_mounts:
        # Nothing mounted from here on may reach the host; what the host mounts later may come in.
        found.append(steps.propagate(mounts.MS_REC | mounts.MS_SLAVE, "a slave of the host's"))
        tree = Source("tree", facts.rootfs, recursive=True)
        # pivot_root(2) refuses a shared root: "shared" is set after it
        before = default & ~mounts.MS_REC
        found.append(
            steps.root(tree, True, mounts.MS_PRIVATE if before & mounts.MS_SHARED else before)
        )
    else:
        found.append(steps.root(Source("path", facts.rootfs), False, 0))
    for index, mount in enumerate(spec.get("mounts") or []):
        if index in facts.cgroup_mounts:
            found += facts.cgroup_mounts[index]
        else:
            found.append(mounts.plan_mount(mount, facts.bundle, default))
    if own_mounts and mounts.makes_dev(spec):
        found.append(steps.sync(sync.LIMITS, "the limits of the cgroup"))
        found += mounts.plan_devices(spec, mapped)
    found.append(steps.sync(sync.HOOKS, "network and hooks of the runtime"))
    hooks = spec.get("hooks") or {}
    found += [steps.hook("createContainer", hook) for hook in hooks.get("createContainer") or []]
    found += _process_files(spec["process"])
    found += labels(spec["process"], facts)
    for name, value in (linux.get("sysctl") or {}).items():
        found.append(steps.write("/proc/sys/" + sysctl_path(name), value))
    found += [steps.mask(mounts.destination(path), NULL) for path in linux.get("maskedPaths") or []]
    found += [steps.readonly(mounts.destination(path)) for path in linux.get("readonlyPaths") or []]
    if own_mounts and spec["root"].get("readonly"):
        found.append(steps.attributes("/", mounts.MOUNT_ATTR_RDONLY))
    found.append(steps.pivot(steps.CHROOT if facts.no_pivot or not own_mounts else steps.PIVOT))
    if own_mounts and default & (mounts.MS_SHARED | mounts.MS_UNBINDABLE):
        found.append(steps.propagate(default, propagation))
    return found


def _propagation(word: str) -> int:
    if not word:
        return mounts.MS_REC | mounts.MS_PRIVATE
    if word[:1] == "r" and word[1:] in mounts.PROPAGATION:
        return mounts.MS_REC | mounts.PROPAGATION[word[1:]]
    return mounts.PROPAGATION[word]


def _process_files(process: "dict[str, Any]") -> "list[Step]":
    found = []
    cwd = mounts.destination(process["cwd"])
    if cwd != "/":
        found.append(steps.mkdir(cwd))
    if process.get("terminal"):
        size = process.get("consoleSize") or {}
        uid = process["user"]["uid"]
        found.append(steps.console(size.get("height") or 0, size.get("width") or 0, True, uid))
    return found


def sysctl_path(name: str) -> str:
    """ "net.ipv4.ip_forward" and "net/ipv4/ip_forward" as a path; a name with "/" keeps its dots."""
    first = min((name.find(mark) for mark in "./" if mark in name), default=-1)
    if first >= 0 and name[first] == "/":
        return name
    return name.translate({ord("."): "/", ord("/"): "."})


def process(process: "dict[str, Any]", facts: Facts) -> "list[Step]":
    """The last steps, which `exec` takes too: who the process is, and what it executes."""
    found = scheduling(process)
    if facts.persona:
        found.append(steps.personality(PERSONAS[facts.persona["domain"]]))
    found.append(steps.cwd(process["cwd"], False))
    quiet = bool(process.get("noNewPrivileges"))
    seccomp = [steps.seccomp(facts.seccomp, facts.seccomp_flags)] if facts.seccomp else []
    if quiet:
        found.append(steps.no_new_privs())
    # Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before the user; with it, last,
    # so that it need not allow what is done here. A listener must reach us before the start.
    listener = bool(facts.seccomp_flags & SECCOMP_FILTER_FLAG_NEW_LISTENER)
    if not quiet or listener:
        found += seccomp
    user = process["user"]
    env = environment(process, facts)
    if "HOME=" in env:
        found.append(steps.home(user["uid"]))
    groups = list(user.get("additionalGids") or []) if facts.setgroups else None
    found.append(steps.credentials(user["uid"], user["gid"], groups, facts.caps))
    found.append(steps.umask(user["umask"] if user.get("umask") is not None else 0o022))
    found.append(steps.cwd(process["cwd"], True))
    path = next((word[5:] for word in reversed(env) if word.startswith("PATH=")), PATH)
    found.append(steps.lookup(process["args"][0], path))
    found.append(steps.ready(sync.READY, FIFO if facts.fifo else None))
    if facts.fifo:
        found.append(steps.wait_fifo(FIFO))
    found += [steps.hook("startContainer", hook) for hook in facts.start_hooks]
    if quiet and not listener:
        found += seccomp
    found.append(steps.execute(process["args"], env))
    return found


def environment(process: "dict[str, Any]", facts: Facts) -> "list[str]":
    """env of the config (of a name given twice the last counts) and ours; "HOME=" where it is missing."""
    found: dict[str, str] = {}
    for word in [*(process.get("env") or []), *facts.env]:
        name = word.partition("=")[0]
        found.pop(name, None)
        found[name] = word
    found.setdefault("HOME", "HOME=")
    return list(found.values())


def labels(process: "dict[str, Any]", facts: Facts) -> "list[Step]":
    """Security labels that execve(2) gives; written while /proc is still the host's."""
    found = []
    if process.get("apparmorProfile"):
        found.append(steps.write(facts.apparmor, f"exec {process['apparmorProfile']}"))
    if process.get("selinuxLabel"):
        found.append(steps.write("/proc/thread-self/attr/exec", process["selinuxLabel"]))
    return found


def scheduling(process: "dict[str, Any]") -> "list[Step]":
    """Scheduling policy and I/O priority."""
    found = []
    if scheduler := process.get("scheduler"):
        flags = sum(SCHED_FLAGS[name] for name in scheduler.get("flags") or [])
        numbers = (
            scheduler.get(key) or 0 for key in ("nice", "priority", "runtime", "deadline", "period")
        )
        nice, priority, runtime, deadline, period = numbers
        policy = POLICIES[scheduler["policy"]]
        found.append(steps.scheduler((policy, flags, nice, priority, runtime, deadline, period)))
    if priority_ := process.get("ioPriority"):
        value = IOPRIO_CLASSES[priority_["class"]] << 13 | (priority_.get("priority") or 0)
        found.append(steps.ioprio(value))
    return found
