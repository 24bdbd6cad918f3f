"""What a host holds: counted after some moves and after many, it must be the same. Changes nothing."""

import os
from pathlib import Path

from stand import Host, Stand

from ocimig_testkit.hosts import own_cgroups


def count(stand: Stand) -> dict[str, int]:
    """Counts of both hosts, and of the container where it is now."""
    found: dict[str, int] = {}
    for host in (stand.pair.a, stand.pair.b):
        for name, number in _host(host).items():
            found[f"{name}, host {host.name}"] = number
    pid = stand.here.ocimig.pid(stand.id)
    found["descriptors of the container"] = len(os.listdir(f"/proc/{pid}/fd"))
    found["mappings of the container"] = len(Path(f"/proc/{pid}/maps").read_text().splitlines())
    found["mounts of the container"] = len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
    enter = ["nsenter", f"--net=/proc/{pid}/ns/net"]
    rules = stand.here.run(*enter, "nft", "list", "ruleset")
    found["firewall lines of the container"] = len(rules.splitlines())
    return found


def _host(host: Host) -> dict[str, int]:
    assert host.holder is not None
    seen = f"/proc/{host.holder.pid}/root"
    return {
        "processes": sum(1 for cgroup in _below(host) for _ in _pids(cgroup)),
        "cgroups": len(_below(host)),
        "mounts": len(host.run("cat", "/proc/self/mountinfo").splitlines()),
        "network interfaces": len(host.run("ip", "-o", "link").splitlines()),
        "firewall lines": len(host.run("nft", "list", "ruleset").splitlines()),
        "files": _files(str(host.directory)) + _files(f"{seen}/run") + _files("/dev/shm"),
        "descriptors of sshd": len(os.listdir(f"/proc/{host.daemon.pid}/fd")) if host.daemon else 0,
    }


def _below(host: Host) -> list[Path]:
    """The host's cgroups of one hierarchy: all have the same below."""
    top = own_cgroups()[0] / host.namespace
    return [Path(directory) for directory, _, _ in os.walk(top)]


def _pids(cgroup: Path) -> list[str]:
    return (cgroup / "cgroup.procs").read_text().split()


def _files(top: str) -> int:
    """Without the journals of migrations that ended: the newest fifty are kept for whoever asks."""
    return sum(len(set(names) - {"journal"}) for _, _, names in os.walk(top))


def compare(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """A line for each count that is not the same."""
    return [
        f"{name}: {before.get(name, 0)} before, {number} after"
        for name, number in after.items()
        if number != before.get(name, 0)
    ]
