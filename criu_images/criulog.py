"""CRIU's log in one line: what happened, what it means, what to do. Reads the log, never writes it."""

import os
import re
from dataclasses import dataclass

_ERROR = re.compile(r"^\((\d+\.\d+)\)\s+(?:(-?\d+):\s+)?Error \(([^)]*)\):\s*(.*)$")
_TAIL = 1 << 20
# Lines that CRIU calls errors and that stop nothing, or that only say that it stopped.
_NOISE = re.compile(
    r"rlimit: Can't setup RLIMIT_NOFILE|cgroupd: recv req error|(?:Restoring|Dumping) FAILED|"
    r"Can't make .*stats|RPC client reported script error|Killing processes because of failure"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A log explained. `known` is whether the cause is one of the table below."""

    words: str = ""
    remedy: str = ""
    line: str = ""
    known: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """A line that CRIU writes, what it means, what helps. Groups of `pattern` fill in both."""

    pattern: str
    words: str
    remedy: str = ""


# The first that matches an error line wins; errors are looked at in the order CRIU wrote them.
CAUSES = (
    Cause(r"No space left on device|ENOSPC", "no space left for the images",
          "free space, or choose another --image-path"),
    Cause(r"Connected TCP socket|inet: Connected TCP socket, consider using",
          "the container has an established TCP connection",
          "pass --tcp-established to keep it, or --tcp-close to drop it"),
    Cause(r"In-flight connection", "a TCP connection is half open", "pass --tcp-skip-in-flight"),
    Cause(r"[Ee]xternal socket is used|external stream not supported|Can't dump half of stream unix",
          "a unix socket has its other end outside the container", "pass --ext-unix-sk"),
    Cause(r"Some file locks are hold by dumping tasks|file lock", "the container holds file locks",
          "pass --file-locks"),
    Cause(r"ctty inheritance detected|A shell-job|Found dangling tty|Don't have tty to inherit",
          "a process is attached to a terminal outside the container", "pass --shell-job"),
    Cause(r"Can't dump ghost file .*of (\d+) size",
          "an open but deleted file is too large to be saved ({0} bytes)",
          "let the container close it, or pass --link-remap"),
    Cause(r"Can't create link remap for (\S+)|link-remap",
          "an open file was deleted while other names of it remain", "pass --link-remap"),
    Cause(r"Can't lookup mount=\d+ for fd=(\d+) path=(\S+)",
          "descriptor {0} is the file {1} outside the container's mounts"),
    Cause(r"mqueue isn't empty", "there are POSIX message queues in the container, which cannot be saved",
          "remove them (mq_unlink) in the program"),
    Cause(r"io_uring", "a process uses io_uring, which cannot be checkpointed",
          "turn io_uring off in the program, or deny it by seccomp"),
    Cause(r"[Uu]serfaultfd|anon_inode:\[userfaultfd\]",
          "a process uses userfaultfd, which cannot be checkpointed"),
    Cause(r"Unknown shit (\S+)? ?\((.*)\)|Can't dump file .*of that type \[\d+\] \((.*)\)",
          "a process has an object open that cannot be checkpointed ({1}{2})",
          "close it in the program"),
    Cause(r"Unsupported socket family|BUG! Unknown socket|sk.*unsupported|Unsupported packet socket",
          "a process has a kind of socket open that cannot be checkpointed"),
    Cause(r"(\d+) has (?:ptrace|tracer)|is being traced|Unable to seize.*Operation not permitted|"
          r"can't seize|already traced",
          "a process is being traced by a debugger", "detach the debugger"),
    Cause(r"Timeout reached", "the processes could not be stopped in time",
          "look for processes in uninterruptible sleep (state D)"),
    Cause(r"File fd/\d+ has bad size (\d+) \(expect (\d+)\)",
          "a file of the host has {0} bytes now and had {1} at the checkpoint"),
    Cause(r"File (\S+) has bad size (\d+) \(expect (\d+)\)",
          "the file {0} has {1} bytes now and had {2} at the checkpoint",
          "restore with the same files: they must not change in between"),
    Cause(r"File (\S+) has bad mode (\S+) \(expect (\S+)\)",
          "the file {0} has mode {1} now and had {2} at the checkpoint"),
    Cause(r"Can't open file (\S+) on restore|Can't open (\S+): No such file|openat (\S+) failed|"
          r"Can't link .* -> (\S+)",
          "the file {0}{1}{2}{3} of the checkpoint is missing in the root file system"),
    Cause(r"Can't fork for (\d+): File exists|Unable to create a thread.*File exists",
          "process number {0} is taken",
          "restore into a pid namespace of its own, or end the process that has the number"),
    Cause(r"Can't bind inet socket.*Address already in use|Address already in use",
          "an address of a socket is taken on this host", "is the container still running somewhere?"),
    Cause(r"Can't bind inet socket.*Cannot assign requested address|Cannot assign requested address",
          "an address of a TCP connection does not exist in the container's network",
          "give it the same address, or pass --tcp-close"),
    Cause(r"cpu.*(?:capabilities do not match|mismatch)|CPU (?:xfeatures|capabilities)",
          "this CPU lacks features that the container's processes use",
          "restore on a CPU of the same or a newer kind"),
    Cause(r"vdso: Unexpected rt vDSO area bounds", "this CRIU is too old for the running kernel",
          "run contrib/install-criu"),
    Cause(r"--track-mem.*not available|Tracking memory is not available|dirty tracking",
          "this kernel cannot track memory changes for CRIU (CONFIG_MEM_SOFT_DIRTY)"),
    Cause(r"Missing (\S+) in parent pagemap|Can't open parent|missing parent",
          "the parent checkpoint does not fit", "name the checkpoint this one was taken after"),
    Cause(r"mnt: Mount \d+ (\S+)? ?\(.*unreachable sharing|unreachable sharing",
          "a mount shares propagation with a mount outside the container"),
    Cause(r"No mapping for (\d+:\S+) mountpoint|no mapping for (\S+)|"
          r"mnt: No mapping for (\S+)", "the mount {0}{1}{2} was not declared"),
    Cause(r"Can't run iptables-restore|iptables-restore|ip6?tables.*failed",
          "the programs of CRIU's network lock are missing",
          "install iptables, or leave out --network-lock"),
    Cause(r"Read (\d+) bytes while (\d+) expected|Unexpected EOF on|Failed to read from image|"
          r"Images? .*magic doesn't match|no images found|Can't read page",
          "an image file is damaged", "verify the checkpoint"),
    Cause(r"Unable to find an external netns|external netns", "the network namespace was not given"),
    Cause(r"No such file or directory.*mountpoint|Can't mount at (\S+): No such file",
          "the mount point {0} is missing in the root file system"),
    Cause(r"apparmor|lsm.*profile|Can't restore lsm", "the security profile cannot be restored",
          "load the profile, or name another with --lsm-profile"),
    Cause(r"nested PID namespace|Nested (\S+) namespaces? .*not supported",
          "namespaces inside the container cannot be checkpointed"),
    Cause(r"Can't get rlimit", "this host withholds CAP_SYS_RESOURCE, and a process of the container is "
          "another user's", "compile what reads its limits another way: make init"),
    Cause(r"Operation not permitted", "the kernel did not permit an operation",
          "run as root with all capabilities"),
)  # fmt: skip


def errors(path: str) -> list[str]:
    """The texts of the error lines, in order, from the first and the last megabyte of the log."""
    try:
        with open(path, "rb") as log:
            data = log.read(_TAIL)
            size = os.fstat(log.fileno()).st_size
            if size > 2 * _TAIL:
                log.seek(size - _TAIL)
            data += log.read(_TAIL)
    except OSError:
        return []
    found = []
    for line in data.decode(errors="replace").splitlines():
        match = _ERROR.match(line)
        if match and not _NOISE.search(match[4]):
            found.append(f"{match[3].partition(':')[0]}: {match[4]}")
    return found


def explain(path: str, message: str = "") -> Finding:
    """The log at `path`, and the first error CRIU reported itself, as one finding."""
    lines = errors(path)
    if message and not lines and not _NOISE.search(message):
        lines = [message.strip()]
    for line in lines:
        for cause in CAUSES:
            match = re.search(cause.pattern, line)
            if match:
                groups = [group or "" for group in match.groups()] + [""] * 4
                return Finding(
                    cause.words.format(*groups), cause.remedy.format(*groups), line, known=True
                )
    if lines:
        return Finding(lines[0], "", lines[0])
    return Finding()
