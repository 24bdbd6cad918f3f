"""Capability names, numbers and masks, and which of them this kernel and this process have. Reads only."""

import os

# <linux/capability.h>, by number
NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
CAPS: "dict[str, int]" = {name: number for number, name in enumerate(NAMES)}

CAP_NET_ADMIN = CAPS["CAP_NET_ADMIN"]
CAP_SYS_ADMIN = CAPS["CAP_SYS_ADMIN"]
CAP_SYS_RESOURCE = CAPS["CAP_SYS_RESOURCE"]
CAP_CHECKPOINT_RESTORE = CAPS["CAP_CHECKPOINT_RESTORE"]


def last_cap() -> int:
    """The highest capability that this kernel knows."""
    try:
        with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
            return int(file.read())
    except OSError:
        return CAP_CHECKPOINT_RESTORE  # /proc/sys may be hidden from a nested container


def mask(names: "list[str] | tuple[str, ...]") -> "tuple[int, list[str]]":
    """The bits of `names`, and those names that this kernel does not know."""
    bits, unknown = 0, []
    known = CAPS.get
    for name in names:
        number = known(name)
        if number is None:
            unknown.append(name)
        else:
            bits |= 1 << number
    if bits >> CAPS["CAP_AUDIT_READ"] + 1:
        # only the newest ones can be missing from a kernel: ask it only then
        above = bits >> (last := last_cap() + 1) << last
        unknown += names_of(above)
        bits &= ~above
    return bits, unknown


def names_of(bits: int) -> "list[str]":
    """The names of a mask, lowest number first; a number without a name is CAP_41 and so on."""
    names = []
    number = 0
    while bits >> number:
        if bits >> number & 1:
            names.append(NAMES[number] if number < len(NAMES) else f"CAP_{number}")
        number += 1
    return names


def of_process(pid: "int | str" = "self") -> "dict[str, int]":
    """The five masks of a process: {"CapInh": …, "CapPrm": …, "CapEff": …, "CapBnd": …, "CapAmb": …}."""
    fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 65536)
    finally:
        os.close(fd)
    lines = (line.partition(b":") for line in text.split(b"\n") if line.startswith(b"Cap"))
    return {name.decode(): int(value, 16) for name, _, value in lines}


def bounding_set() -> int:
    """What a child of this process could ever have, in this user namespace."""
    return of_process()["CapBnd"]
