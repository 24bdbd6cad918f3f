"""What a test session left behind: found by its TOKEN and its directory, named, and swept."""

import os
import signal
import subprocess
from pathlib import Path

from ocimig_testkit.session import TOKEN

_CGROUPS = Path("/sys/fs/cgroup")


def mounts(below: Path) -> list[str]:
    """Mount points in this namespace below a directory, deepest last."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    inside = f"{below}/"
    return [point for point in points if point.startswith(inside)]


def cgroups() -> list[Path]:
    """Cgroups whose path carries the token, deepest first."""
    found = []
    for directory, _, _ in os.walk(_CGROUPS):
        if TOKEN in directory:
            found.append(Path(directory))
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def processes() -> dict[int, str]:
    """Processes that this session started and that still live: pid and command."""
    found = {}
    own = _ancestors()
    mark = f"OCIMIG_TEST_SESSION={TOKEN}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in own:
            continue
        try:
            marked = mark in (entry / "environ").read_bytes().split(b"\0")
            if marked or TOKEN in (entry / "cgroup").read_text():
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                command = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                if state != "Z":
                    found[int(entry.name)] = command.strip() or (entry / "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended while we looked, or is not ours
    return found


def _ancestors() -> set[int]:
    found, pid = set(), os.getpid()
    while pid > 0:
        found.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def network_namespaces() -> list[str]:
    """Named network namespaces of this session."""
    try:
        return [name for name in os.listdir("/run/netns") if name.startswith(TOKEN)]
    except FileNotFoundError:
        return []


def links() -> list[str]:
    """Network interfaces of the host that carry the token."""
    return [name for name in os.listdir("/sys/class/net") if name.startswith(TOKEN)]


def state() -> list[str]:
    """Directories of the session below the program's default root."""
    found = []
    for root in ("/run/ocimig", "/run/runc", "/run/crun", "/var/lib/ocimig"):
        try:
            found += [f"{root}/{name}" for name in os.listdir(root) if name.startswith(TOKEN)]
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


def sweep(below: Path) -> list[str]:
    """Name everything left and take it away, in the order that lets each go."""
    left = []
    for pid, command in processes().items():
        left.append(f"process {pid}: {command}")
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for name in network_namespaces():
        left.append(f"network namespace {name}")
        subprocess.run(["ip", "netns", "del", name], check=False)
    for name in links():
        left.append(f"network interface {name}")
        subprocess.run(["ip", "link", "del", name], check=False)
    for point in reversed(mounts(below)):
        # pytest removes its old directories later: a bind mount of the host must not be in there
        left.append(f"mount {point}")
        subprocess.run(["umount", "--lazy", point], check=False)
    for path in cgroups():
        left.append(f"cgroup {path}")
        try:
            path.rmdir()
        except OSError as error:
            left[-1] += f" ({error.strerror})"
    left += [f"state directory {path}" for path in state()]
    return left
