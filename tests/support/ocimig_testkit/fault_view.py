"""What the kernel says of two hosts while a migration is hurt: who runs, and what is left. Changes nothing."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ocimig_testkit.hosts import Host

WORKLOAD = "workload"  # the name of the container's process
_WINDOW = 0.05  # seconds; it wakes up each millisecond
_AWAKE = 8  # times that it did so in a window in which it ran


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a host."""

    name: str
    parent: int
    argv: tuple[str, ...]


def pids(host: Host) -> list[int]:
    """Every process in the host's cgroup: sshd and what it holds open among them."""
    found: list[int] = []
    for directory, _, _ in os.walk(host.cgroups[0]):
        with contextlib.suppress(OSError):
            found += map(int, Path(directory, "cgroup.procs").read_text().split())
    return found


def look(host: Host) -> dict[int, Process]:
    """The processes of a host, zombies left out."""
    found = {}
    for pid in pids(host):
        with contextlib.suppress(OSError):
            before, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
            fields = rest.split()
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            if fields[0] not in "ZX":
                found[pid] = Process(before.partition("(")[2], int(fields[1]), tuple(argv))
    return found


def descendants(table: dict[int, Process], top: int) -> list[int]:
    """Every process below one."""
    found = [pid for pid, each in table.items() if each.parent == top]
    return found + [pid for child in found for pid in descendants(table, child)]


def signal_all(targets: Iterable[int], number: signal.Signals) -> None:
    """To each that still lives."""
    for pid in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Seen:
    """How often the container's process woke up by itself."""

    @staticmethod
    def of(host: Host) -> dict[int, int]:
        """By pid; without what CRIU still restores, which has another name."""
        found = {}
        for pid in pids(host):
            with contextlib.suppress(OSError, IndexError, StopIteration):  # it ended meanwhile
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                if lines[0].split()[1] == WORKLOAD:
                    line = next(each for each in lines if each.startswith("voluntary_ctxt"))
                    found[pid] = int(line.split()[1])
        return found


class Watch:
    """A `with` block around which a thread looks whether two copies ever run in one moment."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts
        self.two = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        before: dict[int, int] = {}
        while not self._over.wait(_WINDOW):
            now: dict[int, int] = {}
            for host in self.hosts:
                now |= Seen.of(host)
            awake = [pid for pid in now if now[pid] - before.get(pid, now[pid]) >= _AWAKE]
            if len(awake) > 1:
                self.two += f"{[(pid, now[pid] - before[pid]) for pid in awake]} "
            before = now

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()


def open_ends(host: Host) -> list[str]:
    """What a host still has of migrations beside the container: processes, and files but for their journals."""
    own = {each.pid for each in (host.holder, host.daemon) if each is not None}
    # sshd learns of the end of a connection that was cut by itself, in its own time
    found = [
        f"process {pid}: {each.name}"
        for pid, each in look(host).items()
        if pid not in own and each.name != WORKLOAD and not each.name.startswith("sshd")
    ]
    kept = {"journal", "criu"}
    for home in (host.root / ".migrations").glob("[!.]*"):
        found += [f"of a migration: {path}" for path in home.iterdir() if path.name not in kept]
    return found


def leftovers(host: Host, id: str) -> list[str]:
    """What of a container is on a host: processes, state, files, interfaces, cgroups, mounts, rules."""
    running = [pid for pid, each in look(host).items() if each.name == WORKLOAD]
    found = [f"process {pid}: the container's" for pid in running] + open_ends(host)
    found += [f"state {path.name}" for path in host.root.glob("[!.]*")]
    found += [f"bundle {path}" for path in host.bundles.iterdir()]
    if found:
        return found  # it is not over yet: the rest costs more to look at
    links = [line.split()[1] for line in host.run("ip", "-o", "link").splitlines()]
    found += [f"link {link}" for link in links if not link.startswith(("lo:", "br0:", "up0@"))]
    found += [f"cgroup {path}" for top in host.cgroups for path in top.rglob(f"*{id}*")]
    assert host.holder is not None
    mounts = Path(f"/proc/{host.holder.pid}/mountinfo").read_text().splitlines()
    found += [f"mount {line.split()[4]}" for line in mounts if id in line or "/srv/" in line]
    found += [f"rule {line}" for line in host.run("nft", "list", "ruleset").splitlines()]
    return found


def allowance(stand: Any) -> dict[str, list[str]]:
    """What holds the container back where it is: rules in its network, CPU limits of its cgroups."""
    host, id = stand.here, stand.id
    pid = next(iter(Seen.of(host)))
    rules = host.run("nsenter", f"--net=/proc/{pid}/ns/net", "nft", "list", "ruleset")
    limits = []
    for top in host.cgroups:
        for path in top.rglob(f"*{id}*"):
            for name in ("cpu.max", "cpu.cfs_quota_us", "freezer.state", "cgroup.freeze"):
                with contextlib.suppress(OSError):
                    limits.append(f"{name} {(path / name).read_text().strip()}")
    return {"rules": rules.splitlines(), "limits": sorted(limits)}


def portrait(host: Host) -> str:
    """Every process of a host, what it waits in, and both journals' last lines: for a case that went wrong."""
    lines = []
    for pid, each in look(host).items():
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            waits = Path(f"/proc/{pid}/wchan").read_text()
            lines.append(f"  {host.name} {pid} {each.name} of {each.parent}: {state} {waits}")
    for path in sorted((host.root / ".migrations").glob("*/journal"))[-1:]:
        lines += [f"  {host.name} {line[:200]}" for line in path.read_text().splitlines()]
    return "\n".join(lines)
