"""A backup job as values: what its file says, with the defaults filled in. Never reads and never acts."""

import fnmatch
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ocimig.migrate.retention import Policy

BEFORE, AFTER = "before", "after"
JOB, ACTION, CONTAINER, ERROR = "job", "action", "container", "error"
CREATE, FORGET, PRUNE, CHECK = "create", "forget", "prune", "check"
ACTIONS = (CREATE, FORGET, PRUNE, CHECK)
FINISH, FAIL = "finish", "fail"
REPOSITORY, DATA, RESTORE = "repository", "data", "restore"
CONTINUE, STOP = "continue", "stop"


@dataclass(frozen=True, slots=True)
class Check:
    """One look at the repository. `frequency` in seconds, 0 is every run; `part` of the data, 0 to 1."""

    name: str
    frequency: float = 0.0
    part: float = 1.0


@dataclass(frozen=True, slots=True)
class Hook:
    """Commands before or after something. `timeout` in seconds, for each command."""

    side: str
    level: str
    run: tuple[str, ...]
    when: tuple[str, ...] = ACTIONS
    states: tuple[str, ...] = (FINISH, FAIL)
    timeout: float = 3600.0


@dataclass(frozen=True, slots=True)
class Ping:
    """Addresses that hear how it goes; empty ones do not. `timeout` in seconds."""

    start: str = ""
    finish: str = ""
    fail: str = ""
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """One job. Times in seconds; a `timeout` of 0 is none."""

    name: str
    path: str
    repository: str
    containers: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    schedule: str = ""
    randomized_delay: float = 0.0
    timezone: str = ""
    policy: Policy = field(default_factory=Policy)
    checks: tuple[Check, ...] = ()
    hooks: tuple[Hook, ...] = ()
    ping: Ping = field(default_factory=Ping)
    passcommand: str = ""
    passphrase_file: str = ""
    key_file: str = ""
    tags: tuple[str, ...] = ()
    on_failure: str = CONTINUE
    timeout: float = 0.0
    metrics_directory: str = ""

    def wanted(self) -> str:
        """What it saves, in words."""
        labels = [f"{key}={value}" for key, value in self.labels]
        return " ".join([*self.containers, *(f"annotation {each}" for each in labels)])

    def to_dict(self) -> dict[str, Any]:
        """The job for `job show`: keys as in its file where they are the same."""
        return {**asdict(self), "policy": self.policy.describe()}


def select(job: Job, here: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """The containers that the job saves, in order and each once; `here` is names and annotations.

    A name that is written out is meant, here or not. Of the labels all must match; the value may
    hold * and ?.
    """
    found = list(job.containers)
    if job.labels:
        found += [
            name
            for name, annotations in sorted(here.items())
            if all(
                key in annotations and fnmatch.fnmatchcase(annotations[key], value)
                for key, value in job.labels
            )
        ]
    return tuple(dict.fromkeys(found))
