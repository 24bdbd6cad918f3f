"""Every field of config.json that is read, and what it must be, as tables. Never looks at two fields at once.

The names and their order follow the runtime specification 1.3; `rules` holds what ties fields together.
"""

from ocimig.runtime.schema import (
    INT64,
    MAX_PATH,
    UINT16,
    UINT32,
    UINT64,
    absolute,
    absolute_or_empty,
    any_path,
    argument,
    boolean,
    choice,
    integer,
    record,
    rows,
    short,
    string,
    table,
)

NAMESPACE_TYPES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
HOOK_KINDS = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip
RLIMITS = (
    "RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC",
    "RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
)  # fmt: skip
SECCOMP_ACTIONS = (
    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
)  # fmt: skip
SECCOMP_OPERATORS = (
    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
)  # fmt: skip
SECCOMP_ARCHITECTURES = (
    "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB", "SCMP_ARCH_X32",
    "SCMP_ARCH_X86", "SCMP_ARCH_X86_64",
)  # fmt: skip
SECCOMP_FLAGS = (
    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
)  # fmt: skip
SCHED_POLICIES = (
    "SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE",
    "SCHED_DEADLINE",
)  # fmt: skip
SCHED_FLAGS = (
    "SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
)  # fmt: skip
IO_CLASSES = ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")
MEMORY_MODES = (
    "MPOL_DEFAULT", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_WEIGHTED_INTERLEAVE", "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY", "MPOL_LOCAL",
)  # fmt: skip
MEMORY_FLAGS = ("MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES")
PROPAGATIONS = (
    "shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable",
)  # fmt: skip

INT64_ANY = integer(*INT64)
UINT16_ANY = integer(*UINT16)
UINT32_ANY = integer(*UINT32)
UINT64_ANY = integer(*UINT64)
ARGUMENTS = rows(argument)
CAPABILITIES = rows(short(64), limit=1024)
HOST_NAME = short(64)  # __NEW_UTS_LEN

USER = record(
    {
        # 2^32-1 is (uid_t) -1, which the set*id calls read as "leave it as it is"
        "uid": integer(0, UINT32[1] - 1),
        "gid": integer(0, UINT32[1] - 1),
        "umask": integer(0, 0o777),
        "additionalGids": rows(integer(0, UINT32[1] - 1), limit=65536),  # NGROUPS_MAX
        "username": string,
    }
)
PROCESS = record(
    {
        "terminal": boolean,
        "consoleSize": record({"height": UINT16_ANY, "width": UINT16_ANY}),
        "user": USER,
        "args": rows(argument, least=1),
        "env": ARGUMENTS,
        "cwd": absolute,
        "capabilities": record(
            dict.fromkeys(
                ("bounding", "effective", "inheritable", "permitted", "ambient"), CAPABILITIES
            )
        ),
        "rlimits": rows(
            record({"type": choice(RLIMITS), "hard": UINT64_ANY, "soft": UINT64_ANY}, ("type",))
        ),
        "noNewPrivileges": boolean,
        "apparmorProfile": short(MAX_PATH),
        "oomScoreAdj": integer(-1000, 1000),
        "scheduler": record(
            {
                "policy": choice(SCHED_POLICIES),
                "nice": integer(-(1 << 31), (1 << 31) - 1),
                "priority": integer(-(1 << 31), (1 << 31) - 1),
                "flags": rows(choice(SCHED_FLAGS)),
                "runtime": UINT64_ANY,
                "deadline": UINT64_ANY,
                "period": UINT64_ANY,
            },
            ("policy",),
        ),
        "selinuxLabel": short(MAX_PATH),
        "ioPriority": record({"class": choice(IO_CLASSES), "priority": integer(0, 7)}, ("class",)),
        "execCPUAffinity": record({"initial": string, "final": string}),
    },
    ("args", "cwd"),
)

MAPPINGS = rows(
    record(
        {"containerID": UINT32_ANY, "hostID": UINT32_ANY, "size": integer(1, UINT32[1])},
        ("size",),
    ),
    limit=340,  # lines that /proc/PID/uid_map takes since Linux 4.15
)
MOUNT = record(
    {
        "destination": any_path,
        "type": short(255),
        "source": short(MAX_PATH),
        "options": rows(short(MAX_PATH), limit=1024),
        "uidMappings": MAPPINGS,
        "gidMappings": MAPPINGS,
    },
    ("destination",),
)
HOOK = record(
    {"path": absolute, "args": ARGUMENTS, "env": ARGUMENTS, "timeout": integer(1, (1 << 31) - 1)},
    ("path",),
)

# -1 is a wildcard; the kernel packs a number into 12 and 20 bits, and refuses larger ones itself.
NUMBER = integer(-1, UINT32[1])
BLOCK = {"major": NUMBER, "minor": NUMBER}
WEIGHTS = rows(record({**BLOCK, "weight": UINT16_ANY, "leafWeight": UINT16_ANY}))
RATES = rows(record({**BLOCK, "rate": UINT64_ANY}))
RESOURCES = record(
    {
        "devices": rows(
            record(
                {
                    "allow": boolean,
                    "type": choice(("a", "b", "c"), empty=True),
                    "major": integer(*INT64),
                    "minor": integer(*INT64),
                    "access": short(16),
                }
            )
        ),
        "memory": record(
            {
                "limit": INT64_ANY,
                "reservation": INT64_ANY,
                "swap": INT64_ANY,
                "kernel": INT64_ANY,
                "kernelTCP": INT64_ANY,
                "swappiness": integer(0, 200),
                "disableOOMKiller": boolean,
                "useHierarchy": boolean,
                "checkBeforeUpdate": boolean,
            }
        ),
        "cpu": record(
            {
                "shares": UINT64_ANY,
                "quota": INT64_ANY,
                "burst": UINT64_ANY,
                "period": UINT64_ANY,
                "realtimeRuntime": INT64_ANY,
                "realtimePeriod": UINT64_ANY,
                "cpus": string,
                "mems": string,
                "idle": INT64_ANY,
            }
        ),
        "pids": record({"limit": INT64_ANY}),
        "blockIO": record(
            {
                "weight": UINT16_ANY,
                "leafWeight": UINT16_ANY,
                "weightDevice": WEIGHTS,
                "throttleReadBpsDevice": RATES,
                "throttleWriteBpsDevice": RATES,
                "throttleReadIOPSDevice": RATES,
                "throttleWriteIOPSDevice": RATES,
            }
        ),
        "hugepageLimits": rows(
            record({"pageSize": string, "limit": UINT64_ANY}, ("pageSize", "limit"))
        ),
        "network": record(
            {
                "classID": UINT32_ANY,
                "priorities": rows(
                    record({"name": string, "priority": UINT32_ANY}, ("name", "priority"))
                ),
            }
        ),
        "rdma": table(record({"hcaHandles": UINT32_ANY, "hcaObjects": UINT32_ANY})),
        "unified": table(string),
    }
)
SECCOMP = record(
    {
        "defaultAction": choice(SECCOMP_ACTIONS),
        "defaultErrnoRet": integer(0, 4095),
        "architectures": rows(choice(SECCOMP_ARCHITECTURES)),
        "flags": rows(choice(SECCOMP_FLAGS)),
        "listenerPath": absolute_or_empty,
        "listenerMetadata": string,
        "syscalls": rows(
            record(
                {
                    "names": rows(short(255), least=1),
                    "action": choice(SECCOMP_ACTIONS),
                    "errnoRet": integer(0, 4095),
                    "args": rows(
                        record(
                            {
                                "index": integer(0, 5),
                                "value": UINT64_ANY,
                                "valueTwo": UINT64_ANY,
                                "op": choice(SECCOMP_OPERATORS),
                            },
                            ("index", "value", "op"),
                        )
                    ),
                },
                ("names", "action"),
            )
        ),
    },
    ("defaultAction",),
)
LINUX = record(
    {
        "uidMappings": MAPPINGS,
        "gidMappings": MAPPINGS,
        "sysctl": table(short(MAX_PATH)),
        "resources": RESOURCES,
        "cgroupsPath": short(MAX_PATH),
        "namespaces": rows(
            record({"type": choice(NAMESPACE_TYPES), "path": absolute_or_empty}, ("type",))
        ),
        "devices": rows(
            record(
                {
                    "path": absolute,
                    "type": choice(("b", "c", "u", "p")),
                    "major": INT64_ANY,
                    "minor": INT64_ANY,
                    "fileMode": UINT32_ANY,
                    "uid": UINT32_ANY,
                    "gid": UINT32_ANY,
                },
                ("path", "type"),
            )
        ),
        "netDevices": table(record({"name": string})),
        "seccomp": SECCOMP,
        "rootfsPropagation": choice(PROPAGATIONS, empty=True),
        "maskedPaths": rows(absolute),
        "readonlyPaths": rows(absolute),
        "mountLabel": short(MAX_PATH),
        "intelRdt": record(
            {
                "closID": short(255),
                "schemata": rows(string),
                "l3CacheSchema": string,
                "memBwSchema": string,
                "enableMonitoring": boolean,
            }
        ),
        "memoryPolicy": record(
            {
                "mode": choice(MEMORY_MODES),
                "nodes": string,
                "flags": rows(choice(MEMORY_FLAGS)),
            },
            ("mode",),
        ),
        "personality": record(
            {"domain": choice(("LINUX", "LINUX32")), "flags": rows(string)}, ("domain",)
        ),
        "timeOffsets": table(record({"secs": INT64_ANY, "nanosecs": integer(0, 999_999_999)})),
    }
)
SPEC = record(
    {
        "ociVersion": string,
        "process": PROCESS,
        "root": record({"path": any_path, "readonly": boolean}, ("path",)),
        "hostname": HOST_NAME,
        "domainname": HOST_NAME,
        "mounts": rows(MOUNT, limit=10_000),
        "hooks": record(dict.fromkeys(HOOK_KINDS, rows(HOOK))),
        "annotations": table(string),
        "linux": LINUX,
    },
    ("ociVersion", "process", "root"),
)
