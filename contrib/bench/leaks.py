"""What a host holds: looked at after some moves and after many, it must be the same. Changes nothing."""

import os
from pathlib import Path

from stand import Host, Stand

from ocimig_testkit.hosts import own_cgroups

Held = dict[str, list[str]]


def look(stand: Stand) -> Held:
    """What both hosts hold, and the container where it is now; each kind by names."""
    found: Held = {}
    for host in (stand.pair.a, stand.pair.b):
        found |= {f"{kind}, host {host.name}": names for kind, names in _host(host).items()}
    pid = stand.here.ocimig.pid(stand.id)
    found["descriptors of the container"] = _targets(pid)
    found["mappings of the container"] = Path(f"/proc/{pid}/maps").read_text().splitlines()
    found["mounts of the container"] = _mounts(pid)
    rules = stand.here.run("nsenter", f"--net=/proc/{pid}/ns/net", "nft", "list", "ruleset")
    found["firewall lines of the container"] = rules.splitlines()
    return found


def _host(host: Host) -> Held:
    assert host.holder is not None
    assert host.daemon is not None
    run = f"/proc/{host.holder.pid}/root/run"
    return {
        "processes": [pid for cgroup in _below(host) for pid in _pids(cgroup)],
        "cgroups": list(map(str, _below(host))),
        "mounts": _mounts(host.holder.pid),
        "network interfaces": host.run("ip", "-o", "link").splitlines(),
        "firewall lines": host.run("nft", "list", "ruleset").splitlines(),
        "files": _files(str(host.directory)) + _files(run),
        "descriptors of sshd": _targets(host.daemon.pid),
    }


def _below(host: Host) -> list[Path]:
    """The host's cgroups of one hierarchy: all have the same below."""
    top = own_cgroups()[0] / host.namespace
    return [Path(directory) for directory, _, _ in os.walk(top)]


def _pids(cgroup: Path) -> list[str]:
    return (cgroup / "cgroup.procs").read_text().split()


def _targets(pid: int) -> list[str]:
    directory = f"/proc/{pid}/fd"
    return [f"{name} {os.readlink(f'{directory}/{name}')}" for name in os.listdir(directory)]


def _mounts(pid: int) -> list[str]:
    """Without those of others: a host sees what is mounted on this machine meanwhile."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return [
        line.split()[4]
        for line in lines
        if not any(field.startswith("master:") for field in line.split()[6:])
    ]


def _files(top: str) -> list[str]:
    """Without the journals of migrations that ended: the newest fifty are kept for whoever asks."""
    return [
        os.path.join(directory, name)
        for directory, _, names in os.walk(top)
        for name in names
        if name != "journal"
    ]


def compare(before: Held, after: Held) -> list[str]:
    """A line for each kind of which there is more or less."""
    said = []
    for kind, names in after.items():
        earlier = before.get(kind, [])
        if len(names) != len(earlier):
            new = [name for name in names if name not in set(earlier)]
            said.append(f"{kind}: {len(earlier)} before, {len(names)} after: {', '.join(new[:4])}")
    return said
