"""Rules of config.json that tie fields together, in words. Pure; runs only on a document whose fields are right.

Where runc 1.5 refuses a combination with a known text, ours says the same after the path.
"""

from ocimig.runtime.schema import inside, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocimig.runtime.schema import Problems

    Doc = dict[str, Any]

IPC_SYSCTLS = frozenset(
    (
        "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
        "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
    )
)  # fmt: skip
# Files of /proc that lxcfs and others serve instead of the kernel, as runc allows them.
SERVED = frozenset(
    (
        "cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps",
        "sys/crypto/fips_enabled", "sys/kernel/ns_last_pid", "uptime",
    )
)  # fmt: skip
NEWEST_MINOR = 3
# Known and checked, but not done: refused, because a container that runs without them would not be
# the one that was asked for.
UNSUPPORTED = ("intelRdt", "memoryPolicy", "netDevices")


def check(spec: "Doc") -> "Problems":
    """Everything that is wrong between the fields of a whole document."""
    problems: Problems = []
    linux = spec.get("linux") or {}
    spaces = _namespaces(linux, problems)
    _version(spec["ociVersion"], problems)
    check_process(spec["process"], "process.", problems)
    _mounts(spec.get("mounts") or (), problems)
    _names(spec, linux, spaces, problems)
    _mappings(spec, linux, spaces, problems)
    _time(linux, spaces, problems)
    _cgroup_path(linux.get("cgroupsPath") or "", problems)
    for name in linux.get("sysctl") or ():
        if words := sysctl_refusal(name, spaces):
            problems.append((inside("linux.sysctl", name), words))
    _devices(linux, problems)
    _seccomp(linux.get("seccomp"), problems)
    _memory_policy(linux.get("memoryPolicy"), problems)
    _intel_rdt(linux.get("intelRdt"), problems)
    for name, device in (linux.get("netDevices") or {}).items():
        _network_device(name, device or {}, spaces, problems)
    for name in UNSUPPORTED:
        if linux.get(name):
            problems.append(("linux." + name, "is not supported by this runtime"))
    return problems


def _version(version: str, problems: "Problems") -> None:
    parts = version.split("-", 1)[0].split("+", 1)[0].split(".")
    if len(parts) != 3 or not all(part.isdecimal() and part.isascii() for part in parts):
        words = f"is {shown(version)}, which is not a version like 1.2.0"
    elif len(version) < 64 and int(parts[0]) == 1 and int(parts[1]) <= NEWEST_MINOR:
        return
    else:
        words = f"is {shown(version)}, supported are 1.0.0 to 1.{NEWEST_MINOR}.x"
    problems.append(("ociVersion", words))


def check_process(process: "Doc", prefix: str, problems: "Problems") -> None:
    """The rules of a process, here or in a process.json."""
    for number, entry in enumerate(process.get("env") or ()):
        if entry.find("=") < 1:
            words = "must be NAME=value, is " + shown(entry)
            problems.append((f"{prefix}env[{number}]", words))
    seen = set()
    for number, limit in enumerate(process.get("rlimits") or ()):
        where = f"{prefix}rlimits[{number}]"
        if limit["type"] in seen:
            problems.append((where + ".type", f"{limit['type']} is there twice"))
        seen.add(limit["type"])
        soft, hard = limit.get("soft") or 0, limit.get("hard") or 0
        if soft > hard:
            problems.append((where + ".soft", f"{soft} is above the hard limit {hard}"))
    if scheduler := process.get("scheduler"):
        _scheduler(scheduler, prefix + "scheduler", problems)
    affinity = process.get("execCPUAffinity") or {}
    for name in ("initial", "final"):
        if (cpus := affinity.get(name)) and not is_cpu_list(cpus):
            words = f"is {shown(cpus)}, must be a list of CPUs like 0-3,7"
            problems.append((f"{prefix}execCPUAffinity.{name}", words))


def _scheduler(scheduler: "Doc", where: str, problems: "Problems") -> None:
    policy, nice = scheduler["policy"], scheduler.get("nice") or 0
    if policy in ("SCHED_OTHER", "SCHED_BATCH") and not -20 <= nice <= 19:
        problems.append((where + ".nice", f"must be from -20 to 19 with {policy}, is {nice}"))
    if scheduler.get("priority") and policy not in ("SCHED_FIFO", "SCHED_RR"):
        problems.append((where + ".priority", "is only possible with SCHED_FIFO and SCHED_RR"))
    for name in ("runtime", "deadline", "period"):
        if scheduler.get(name) and policy != "SCHED_DEADLINE":
            problems.append((f"{where}.{name}", "is only possible with SCHED_DEADLINE"))


def is_cpu_list(cpus: str) -> bool:
    """True for a list such as 0-3,7 (the kernel's cpulist format without strides)."""
    for part in cpus.split(","):
        first, dash, last = part.strip().partition("-")
        for number in (first, last) if dash else (first,):
            if not (number.isascii() and number.isdecimal() and len(number) < 6):
                return False
        if dash and int(first) > int(last):
            return False
    return True


def _namespaces(linux: "Doc", problems: "Problems") -> "dict[str, str]":
    """The namespaces asked for: type -> path, empty for a new one."""
    spaces: dict[str, str] = {}
    for number, row in enumerate(linux.get("namespaces") or ()):
        if row["type"] in spaces:
            words = f"malformed spec file: duplicated ns {row['type']}"
            problems.append((f"linux.namespaces[{number}].type", words))
        spaces[row["type"]] = row.get("path") or ""
    if "mount" not in spaces:
        words = "has no mount namespace: a container would change the mounts of this host"
        problems.append(("linux.namespaces", words))
    return spaces


def _names(spec: "Doc", linux: "Doc", spaces: "dict[str, str]", problems: "Problems") -> None:
    for name in ("hostname", "domainname"):
        if spec.get(name) and "uts" not in spaces:
            problems.append((name, f"unable to set {name} without a private UTS namespace"))


def _mounts(mounts: "Any", problems: "Problems") -> None:
    for number, mount in enumerate(mounts):
        where = f"mounts[{number}]"
        options = mount.get("options") or ()
        if _inside_proc(mount["destination"]):
            words = f"{shown(mount['destination'])} cannot be mounted on because it is inside /proc"
            problems.append((where + ".destination", words))
        uids, gids = mount.get("uidMappings"), mount.get("gidMappings")
        if bool(uids) != bool(gids):
            words = "id-mapped mounts must have both uid and gid mappings specified"
            problems.append((where + (".uidMappings" if uids else ".gidMappings"), words))
        mapped = uids or gids or "idmap" in options or "ridmap" in options
        bind = mount.get("type") == "bind" or "bind" in options or "rbind" in options
        if mapped and not bind:
            problems.append((where, "id-mapped mounts are only supported for bind-mounts"))
        if sum(map(len, options)) + len(options) > 4096:
            problems.append(
                (where + ".options", "are longer than the 4096 bytes that mount(2) takes")
            )


def _inside_proc(path: str) -> bool:
    """Whether it covers a part of /proc that the kernel alone may serve (CVE-2019-16884)."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    return len(parts) > 1 and parts[0] == "proc" and "/".join(parts[1:]) not in SERVED


def _mappings(spec: "Doc", linux: "Doc", spaces: "dict[str, str]", problems: "Problems") -> None:
    maps = {name: linux.get(name) or () for name in ("uidMappings", "gidMappings")}
    if "user" not in spaces:
        for name, rows in maps.items():
            if rows:
                words = (
                    "user namespace mappings specified, "
                    "but user namespace isn't enabled in the config"
                )
                problems.append(("linux." + name, words))
        return
    if not spaces["user"]:
        for name, rows in maps.items():
            if not rows:
                words = f"is missing: a new user namespace needs {name}"
                problems.append(("linux." + name, words))
    user = spec["process"].get("user") or {}
    for name, mine in (("uidMappings", "uid"), ("gidMappings", "gid")):
        _mapping(maps[name], "linux." + name, problems)
        wanted = user.get(mine) or 0
        if maps[name] and not _maps(maps[name], wanted):
            words = f"{wanted} is not mapped in linux.{name}"
            problems.append((f"process.user.{mine}" if mine in user else f"linux.{name}", words))
    for number, gid in enumerate(user.get("additionalGids") or ()):
        if maps["gidMappings"] and not _maps(maps["gidMappings"], gid):
            where = f"process.user.additionalGids[{number}]"
            problems.append((where, f"{gid} is not mapped in linux.gidMappings"))


def _maps(rows: "Any", wanted: int) -> bool:
    return any(0 <= wanted - (row.get("containerID") or 0) < row["size"] for row in rows)


def _mapping(rows: "Any", where: str, problems: "Problems") -> None:
    for side in ("containerID", "hostID"):
        taken: list[tuple[int, int, int]] = []
        for number, row in enumerate(rows):
            first = row.get(side) or 0
            taken.append((first, first + row["size"], number))
            if first + row["size"] > 1 << 32:
                problems.append((f"{where}[{number}]", f"reaches beyond {side} 4294967295"))
        taken.sort()
        for at, after in enumerate(taken[1:]):
            before = taken[at]
            if after[0] < before[1]:
                words = f"overlaps row {before[2]} in {side}"
                problems.append((f"{where}[{after[2]}]", words))


def _time(linux: "Doc", spaces: "dict[str, str]", problems: "Problems") -> None:
    offsets = linux.get("timeOffsets")
    if not offsets:
        return
    if "time" not in spaces:
        words = "time namespace offsets specified, but time namespace isn't enabled in the config"
        problems.append(("linux.timeOffsets", words))
    elif spaces["time"]:
        words = "time namespace enabled, but both namespace path and time offsets specified"
        problems.append(("linux.timeOffsets", words + " -- you may only provide one"))
    for clock in offsets:
        if clock not in ("monotonic", "boottime"):
            where = inside("linux.timeOffsets", clock)
            problems.append((where, "is not a clock that a time namespace shifts"))


def _cgroup_path(path: str, problems: "Problems") -> None:
    if ".." in path.split("/"):
        problems.append(("linux.cgroupsPath", f"must not climb with .., is {shown(path)}"))


def sysctl_name(written: str) -> str:
    """A sysctl's name with dots, as sysctl(8) reads it: a first slash makes slashes the separators."""
    dot, slash = written.find("."), written.find("/")
    if slash < 0 or 0 <= dot < slash:
        return written
    return written.translate({0x2E: "/", 0x2F: "."})


def sysctl_refusal(written: str, spaces: "dict[str, str]") -> str:
    """Why a sysctl may not be set with these namespaces, or an empty string."""
    name = sysctl_name(written)
    parts = name.split(".")
    if not all(parts) or any(
        piece in ("", ".", "..") for part in parts for piece in part.split("/")
    ):
        return "is not the name of a sysctl"
    if name in IPC_SYSCTLS or name.startswith("fs.mqueue."):
        return (
            "" if "ipc" in spaces else f'sysctl "{name}" is not allowed in the hosts ipc namespace'
        )
    if name.startswith("net."):
        return (
            "" if "network" in spaces else f'sysctl "{name}" not allowed in host network namespace'
        )
    if name.startswith("user."):
        if "user" in spaces:
            return ""
        return f"setting ucounts without a user namespace not allowed: {name}"
    if "uts" in spaces and name == "kernel.domainname":
        return ""
    if "uts" in spaces and name == "kernel.hostname":
        return f'sysctl "{name}" is not allowed as it conflicts with the OCI "hostname" field'
    return f'sysctl "{name}" is not in a separate kernel namespace'


def _devices(linux: "Doc", problems: "Problems") -> None:
    for number, device in enumerate(linux.get("devices") or ()):
        where = f"linux.devices[{number}]"
        if ".." in device["path"].split("/"):
            problems.append((where + ".path", "must not climb with .."))
        if device["type"] == "p":
            continue
        for name, bits in (("major", 12), ("minor", 20)):
            value = device.get(name) or 0
            if not 0 <= value < 1 << bits:
                problems.append(
                    (f"{where}.{name}", f"must be from 0 to {(1 << bits) - 1}, is {value}")
                )
    rules = (linux.get("resources") or {}).get("devices") or ()
    for number, rule in enumerate(rules):
        access = rule.get("access") or ""
        if access.strip("rwm"):
            words = f"must be made of the letters r, w and m, is {shown(access)}"
            problems.append((f"linux.resources.devices[{number}].access", words))
        for name in ("major", "minor"):
            if not -1 <= (rule.get(name) or 0) < 1 << 32:
                words = "must be from -1 to 4294967295"
                problems.append((f"linux.resources.devices[{number}].{name}", words))


def _seccomp(seccomp: "Doc | None", problems: "Problems") -> None:
    if not seccomp:
        return
    where, default = "linux.seccomp", seccomp["defaultAction"]
    notify = default == "SCMP_ACT_NOTIFY"
    if notify:
        problems.append(
            (where + ".defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action")
        )
    with_errno = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
    if seccomp.get("defaultErrnoRet") is not None and default not in with_errno:
        problems.append((where + ".defaultErrnoRet", f"{default} has no errno"))
    for number, call in enumerate(seccomp.get("syscalls") or ()):
        action, here = call["action"], f"{where}.syscalls[{number}]"
        if call.get("errnoRet") is not None and action not in with_errno:
            problems.append((here + ".errnoRet", f"{action} has no errno"))
        if action == "SCMP_ACT_NOTIFY":
            notify = True
            if "write" in call["names"]:
                words = "SCMP_ACT_NOTIFY cannot be used for the write syscall"
                problems.append((here + ".names", words))
        if "" in call["names"]:
            problems.append((here + ".names", "empty string is not a valid syscall"))
    listener = seccomp.get("listenerPath")
    if notify and not listener:
        problems.append((where + ".listenerPath", "is missing: SCMP_ACT_NOTIFY needs a listener"))
    if seccomp.get("listenerMetadata") and not listener:
        problems.append((where + ".listenerMetadata", "is only possible with a listenerPath"))


def _memory_policy(policy: "Doc | None", problems: "Problems") -> None:
    if not policy:
        return
    mode, nodes = policy["mode"], policy.get("nodes") or ""
    where = "linux.memoryPolicy.nodes"
    if nodes and not is_cpu_list(nodes):
        problems.append((where, f"is {shown(nodes)}, must be a list of nodes like 0-1,3"))
    elif nodes and mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
        problems.append((where, f"must be empty with {mode}"))
    elif not nodes and mode not in ("MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED"):
        problems.append((where, f"is missing: {mode} needs at least one node"))


def _intel_rdt(rdt: "Doc | None", problems: "Problems") -> None:
    group = (rdt or {}).get("closID") or ""
    if group in (".", "..") or (len(group) > 1 and "/" in group):
        problems.append(("linux.intelRdt.closID", f"is {shown(group)}, must be one directory name"))


def _network_device(
    name: str, device: "Doc", spaces: "dict[str, str]", problems: "Problems"
) -> None:
    where = inside("linux.netDevices", name)
    if "network" not in spaces:
        problems.append((where, "unable to move network devices without a NET namespace"))
    for path, word in ((where, name), (where + ".name", device.get("name") or name)):
        # dev_valid_name() of the kernel; 16 bytes with the NUL
        if len(word.encode()) > 15 or word in (".", "..") or set(word) & set("/: \t\n"):
            problems.append((path, f"invalid network device name {shown(word)}"))
