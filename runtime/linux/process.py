"""Calls about processes: pidfds, signals, prctl, descriptors, sealed memory. Never decides whom to signal.

Reaches ctypes only from the functions that need it: `kill` and `state` do without.
"""

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # signal without its enums, which cost 4 ms

CLOSE_RANGE_UNSHARE = 0x2
CLOSE_RANGE_CLOEXEC = 0x4
CLOSE_RANGE_LAST = 0xFFFFFFFF

MFD_CLOEXEC = 0x1
MFD_ALLOW_SEALING = 0x2
MFD_EXEC = 0x10

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_GET_NAME = 16
PR_SET_NAME = 15
PR_GET_SECCOMP = 21
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_IS_SET = 1
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_LOWER = 3
PR_CAP_AMBIENT_CLEAR_ALL = 4
PR_SET_MEMORY_MERGE = 67  # since Linux 6.4
PR_GET_MEMORY_MERGE = 68

# Taken from the interpreter, which was compiled against this architecture's numbers.
SIGNALS: "dict[str, int]" = {
    name: int(getattr(_signal, name))
    for name in dir(_signal)
    if name.startswith("SIG") and not name.startswith("SIG_")
}
SIGNALS.setdefault("SIGIOT", SIGNALS["SIGABRT"])
SIGNALS.setdefault("SIGPOLL", SIGNALS["SIGIO"])

SIGHUP = SIGNALS["SIGHUP"]
SIGINT = SIGNALS["SIGINT"]
SIGKILL = SIGNALS["SIGKILL"]
SIGTERM = SIGNALS["SIGTERM"]
SIGCHLD = SIGNALS["SIGCHLD"]
SIGWINCH = SIGNALS["SIGWINCH"]
_LAST = SIGNALS["SIGRTMAX"]

# The interpreter ignores these two, and a program that is started would go on ignoring them.
IGNORED_BY_PYTHON = (SIGNALS["SIGPIPE"], SIGNALS["SIGXFSZ"])


def signal_number(text: str) -> int:
    """The number of "9", "KILL", "sigkill", "RTMIN+3" or "SIGRTMAX-1". Raises ValueError."""
    if text.isascii() and text.isdigit() and int(text) <= _LAST:
        return int(text)
    name = text.upper()
    if not name.startswith("SIG"):
        name = "SIG" + name
    if name in SIGNALS:
        return SIGNALS[name]
    for base, sign in (("SIGRTMIN", "+"), ("SIGRTMAX", "-")):
        offset = name.removeprefix(base + sign)
        if offset != name and offset.isascii() and offset.isdigit():
            number = SIGNALS[base] + int(sign + offset)
            if SIGNALS["SIGRTMIN"] <= number <= SIGNALS["SIGRTMAX"]:
                return number
    raise ValueError(f"no signal is called {text!r}")


def signal_name(number: int) -> str:
    """ "SIGKILL" for 9; the number where it has no name of its own."""
    for name, value in SIGNALS.items():
        if value == number and name not in {"SIGCLD", "SIGIOT", "SIGPOLL"}:
            return name
    low = SIGNALS["SIGRTMIN"]
    return f"SIGRTMIN+{number - low}" if low < number < _LAST else str(number)


def pidfd_open(pid: int, flags: int = 0) -> int:
    """A descriptor of the process that has `pid` now; it never becomes another's. Since Linux 5.3."""
    return os.pidfd_open(pid, flags)


def pidfd_send_signal(pidfd: int, sig: int) -> None:
    """Signal the process behind the descriptor, or raise ProcessLookupError when it is gone."""
    _signal.pidfd_send_signal(pidfd, sig)


def pidfd_wait(pidfd: int, timeout: "float | None") -> bool:
    """Wait until the process ends (it may still be a zombie); False when `timeout` seconds passed."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(None if timeout is None else max(0, round(timeout * 1000))))


def pidfd_getfd(pidfd: int, targetfd: int, flags: int = 0) -> int:
    """Our own copy of a descriptor of another process. Since Linux 5.6."""
    from ocimig.runtime.linux import syscalls

    return syscalls.call(syscalls.NR_pidfd_getfd, pidfd, targetfd, flags)


def close_range(first: int, last: int = CLOSE_RANGE_LAST, flags: int = 0) -> None:
    """Close, or with CLOSE_RANGE_CLOEXEC mark, every descriptor from `first` to `last`. Since 5.9."""
    from ocimig.runtime.linux import syscalls

    syscalls.call(syscalls.NR_close_range, first, last, flags)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2) with number arguments; returns what the call returns."""
    import ctypes

    from ocimig.runtime.linux import syscalls

    arguments = (ctypes.c_ulong(value) for value in (arg2, arg3, arg4, arg5))
    result = syscalls.libc.prctl(option, *arguments)
    if result < 0:
        raise syscalls.oserror()
    return int(result)


def memfd_create(name: str, flags: int = MFD_CLOEXEC) -> int:
    """A file in memory. memfd_create(2)."""
    return os.memfd_create(name, flags)
