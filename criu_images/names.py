"""What the numbers in images mean: words for states, families, flags, capabilities. Data only.

Numbers are the kernel's (x86-64 and arm64 agree on these) or, where an enum of CRIU's is meant, those of its
.proto files. A number without a word is shown as a number.
"""

from collections.abc import Mapping

CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
    "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
    "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
LIMITS = (
    "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO "
    "RTTIME"
).split()
TASK_STATES = {1: "running", 2: "dead", 3: "stopped", 4: "helper", 5: "thread", 6: "zombie"}
SECCOMP_MODES = {0: "disabled", 1: "strict", 2: "filter"}
MACHINES = {1: "x86_64", 2: "arm", 3: "aarch64", 4: "ppc64le", 5: "s390x", 6: "mips64",
            7: "loongarch64", 8: "riscv64"}  # fmt: skip
LSM = {0: "", 1: "selinux", 2: "apparmor"}
FILES = {
    1: "file", 2: "pipe", 3: "fifo", 4: "inet", 5: "unix", 6: "eventfd", 7: "epoll", 8: "inotify",
    9: "signalfd", 10: "packet", 11: "tty", 12: "fanotify", 13: "netlink", 14: "namespace",
    15: "tun", 16: "external", 17: "timerfd", 18: "memfd", 19: "bpf", 20: "pidfd",
}  # fmt: skip
SOCKETS = {"inet", "unix", "packet", "netlink"}
SOCKET_TYPES = {1: "stream", 2: "datagram", 3: "raw", 4: "rdm", 5: "seqpacket", 10: "packet"}
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp", 136: "udplite"}
TCP_STATES = {
    1: "established", 2: "syn-sent", 3: "syn-received", 4: "fin-wait-1", 5: "fin-wait-2",
    6: "time-wait", 7: "closed", 8: "close-wait", 9: "last-ack", 10: "listening", 11: "closing",
    12: "new-syn-received",
}  # fmt: skip
UNIX_STATES = {1: "established", 7: "closed", 10: "listening"}
NETLINK = {
    0: "route", 4: "sock_diag", 5: "nflog", 6: "xfrm", 7: "selinux", 8: "iscsi", 9: "audit",
    10: "fib_lookup", 11: "connector", 12: "netfilter", 15: "kobject_uevent", 16: "generic",
}  # fmt: skip
CLOCKS = {0: "realtime", 1: "monotonic", 7: "boottime", 8: "realtime-alarm", 9: "boottime-alarm"}
TERMINALS = {1: "pty", 2: "console", 3: "vt", 4: "controlling", 5: "external", 6: "serial"}
FILESYSTEMS = {
    0: "other", 1: "proc", 2: "sysfs", 3: "devtmpfs", 4: "binfmt_misc", 5: "tmpfs", 6: "devpts", 7: "simfs",
    8: "pstore", 9: "securityfs", 10: "fusectl", 11: "debugfs", 12: "cgroup", 13: "aufs",
    14: "mqueue", 15: "fuse", 17: "overlay", 18: "autofs", 19: "tracefs", 23: "cgroup2",
}  # fmt: skip
NAMESPACES = ("pid", "net", "ipc", "uts", "mnt", "user", "cgroup", "time")
_OPEN = {
    0o2000: "append", 0o4000: "nonblock", 0o10000: "dsync", 0o20000: "async", 0o40000: "direct",
    0o200000: "directory", 0o1000000: "noatime", 0o10000000: "path",
}  # fmt: skip
_MOUNT = {
    1: "ro", 2: "nosuid", 4: "nodev", 8: "noexec", 16: "sync", 64: "mand", 128: "dirsync",
    1024: "noatime", 2048: "nodiratime", 1 << 21: "relatime", 1 << 24: "strictatime",
}  # fmt: skip
_SPREADING = {1 << 17: "unbindable", 1 << 18: "private", 1 << 19: "slave", 1 << 20: "shared"}
# criu/include/image.h
_AREAS = {
    1 << 1: "[stack]", 1 << 2: "[vsyscall]", 1 << 3: "[vdso]", 1 << 5: "[heap]", 1 << 12: "[vvar]",
    1 << 13: "[aio]", 1 << 15: "[shadow stack]",
}  # fmt: skip
REGULAR = 1
FILE_PRIVATE, FILE_SHARED, ANON_SHARED, ANON_PRIVATE = 1 << 6, 1 << 7, 1 << 8, 1 << 9
SYSVIPC, AREA_SOCKET, AREA_MEMFD = 1 << 10, 1 << 11, 1 << 14


def word(names: Mapping[int, str], number: int) -> str:
    """The word for a number, or the number."""
    return names.get(number, str(number))


def capabilities(words: list[int]) -> list[str]:
    """The names in a mask that comes in parts of 32 bits, low ones first."""
    mask = 0
    for place, part in enumerate(words[:2]):
        mask |= (part & 0xFFFFFFFF) << 32 * place
    return [
        f"CAP_{CAPABILITIES[bit]}" if bit < len(CAPABILITIES) else f"CAP_{bit}"
        for bit in range(64)
        if mask >> bit & 1
    ]


def open_flags(flags: int) -> list[str]:
    """Of open(2), the way of access first: "r", "w" or "rw"."""
    way = ("r", "w", "rw", "none")[flags & 3]
    return [way, *(name for bit, name in _OPEN.items() if flags & bit)]


def mount_flags(flags: int, sb_flags: int) -> list[str]:
    """Of mount(2); read-only may be the file system's."""
    found = [name for bit, name in _MOUNT.items() if flags & bit]
    found += [name for bit, name in _SPREADING.items() if flags & bit]
    return found if "ro" in found or not sb_flags & 1 else ["ro", *found]


def protection(prot: int) -> str:
    """As in /proc/PID/maps."""
    return "".join(letter if prot & bit else "-" for bit, letter in ((1, "r"), (2, "w"), (4, "x")))


def area(status: int) -> str:
    """The name of a mapping that has no file, in brackets, or nothing."""
    return next((name for bit, name in _AREAS.items() if status & bit), "")
