"""What earlier runs of a job left: one JSON file a job, replaced whole. Facts only.

    <directory>/                   /var/lib/ocimig/jobs
        NAME.json           0600   version 1, below
        .NAME.lock          0600   flock(2), held by the run under way

Whether a job runs is never stored: somebody holds the lock. A file that says `running` while nobody
holds it is what a run that was killed left. Times are in seconds since 1970, UTC; lengths in seconds.
"""

import fcntl
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from ocimig import files, jsonio
from ocimig.migrate.jobs.errors import JobStateUnreadable

DIRECTORY = "/var/lib/ocimig/jobs"
VERSION = 1
NEVER, RUNNING = "never", "running"
SUCCESS, WARNINGS, PARTIAL, FAILED = "success", "warnings", "partial", "failed"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ContainerState:
    """The last backups of one container."""

    last_run: float = 0.0
    last_success: float = 0.0
    snapshot: str = ""
    error: str = ""
    seconds: float = 0.0
    frozen_seconds: float = 0.0
    bytes_read: int = 0
    bytes_stored: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class JobState:
    """The last run of a job, and what the next one needs to know. `checks` is when each was done."""

    started: float = 0.0
    ended: float = 0.0
    seconds: float = 0.0
    last_success: float = 0.0
    result: str = NEVER
    code: int = 0
    reason: str = ""
    failures: int = 0
    prune_pending: bool = False
    checks: Mapping[str, float] = field(default_factory=dict)
    containers: Mapping[str, ContainerState] = field(default_factory=dict)


def path(name: str, directory: str) -> str:
    """Where the state of a job is."""
    return os.path.join(directory, f"{name}.json")


def lock_path(name: str, directory: str) -> str:
    """The file that a run of the job locks."""
    return os.path.join(directory, f".{name}.lock")


def load(name: str, directory: str) -> JobState:
    """What is there; a job that never ran has the state of one. Raises JobStateUnreadable."""
    where = path(name, directory)
    try:
        document = jsonio.loads(files.read(where))
        if not isinstance(document, dict):
            raise TypeError("not a JSON object")
        version = document.get("version", VERSION)
        if version != VERSION:
            raise ValueError(f"version {version}, this program knows {VERSION}")
        return _state(document)
    except FileNotFoundError:
        return JobState()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    except (TypeError, ValueError, AttributeError) as error:
        reason = str(error)
    raise JobStateUnreadable(job=name, path=where, reason=reason)


def save(name: str, directory: str, state: JobState) -> None:
    """Write it, whole or not at all, so that it survives a power cut."""
    text = jsonio.dumps({"version": VERSION, "job": name, **asdict(state)}, indent=2)
    files.write_atomic(path(name, directory), text.encode() + b"\n")


def running(name: str, directory: str) -> bool:
    """Whether a run of the job is under way, by any process."""
    try:
        fd = os.open(lock_path(name, directory), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _state(document: dict[str, Any]) -> JobState:
    found = _typed(JobState, document)
    containers = {
        str(name): ContainerState(**_typed(ContainerState, each))
        for name, each in document.get("containers", {}).items()
    }
    checks = {str(name): float(when) for name, when in document.get("checks", {}).items()}
    return JobState(**{**found, "containers": containers, "checks": checks})


def _typed(kind: type[T], document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `kind` that the document has; a value of another type is refused."""
    found = {}
    plain = kind()
    for each in fields(kind):  # type: ignore[arg-type]
        if each.name not in document:
            continue
        value, default = document[each.name], getattr(plain, each.name)
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if not isinstance(value, type(default)):
            raise TypeError(f"{each.name} is a {type(value).__name__}")
        found[each.name] = value
    return found
