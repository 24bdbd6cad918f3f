"""unshare(2), setns(2) and the table of namespaces. Never decides which a container gets."""

import ctypes

from ocimig.runtime.linux import syscalls

CLONE_NEWTIME = 0x80
CLONE_FS = 0x200  # root and working directory, which threads share otherwise
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# name in config.json -> (flag of unshare and setns, file in /proc/PID/ns)
NAMESPACES = {
    "cgroup": (CLONE_NEWCGROUP, "cgroup"),
    "ipc": (CLONE_NEWIPC, "ipc"),
    "mount": (CLONE_NEWNS, "mnt"),
    "network": (CLONE_NEWNET, "net"),
    "pid": (CLONE_NEWPID, "pid"),
    "time": (CLONE_NEWTIME, "time"),
    "user": (CLONE_NEWUSER, "user"),
    "uts": (CLONE_NEWUTS, "uts"),
}

_libc = syscalls.libc
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones. unshare(2)."""
    if _libc.unshare(flags):
        raise syscalls.oserror()


def setns(fd: int, nstype: int = 0) -> None:
    """Join a namespace, or with a pidfd and several flags all of them at once. setns(2)."""
    if _libc.setns(fd, nstype):
        raise syscalls.oserror()
