"""Looking at the cgroups of a test: by the facts that a driver tells, and the files themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


class Told(Protocol):
    """What has facts: any cgroup driver."""

    def facts(self) -> dict[str, str]:
        """Controller → directory, and what else the driver needs to find it again."""
        ...


Open = Callable[..., Any]  # resources → a cgroup that the fixture removes
Spawn = Callable[..., int]  # argv → the pid of a process that the fixture ends


def directories(cgroup: Told) -> set[str]:
    """Every directory it has."""
    return {path for path in cgroup.facts().values() if path.startswith("/sys/fs/cgroup/")} - {
        cgroup.facts().get("mountpoint", "")
    }


def value(cgroup: Told, v1: str, v2: str) -> str:
    """What a file holds, named as in v1 and as in v2."""
    facts = cgroup.facts()
    where = facts.get(v1.partition(".")[0])
    if "mountpoint" in facts or where is None:
        return (Path(facts["unified"]) / v2).read_text().strip()
    return (Path(where) / v1).read_text().strip()


def ended(pid: int) -> bool:
    """Whether a child of ours has ended (it may still be a zombie)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
