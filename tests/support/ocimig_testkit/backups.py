"""A repository in memory, and a job that uses it. Never touches a container."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocimig.migrate.jobs import config, state
from ocimig.migrate.jobs.backups import Outcome, PruneReport
from ocimig.migrate.jobs.job import Job
from ocimig.migrate.jobs.run import World
from ocimig.migrate.jobs.state import JobState
from ocimig.migrate.retention import Snapshot

HOST = "here"
START = 1_700_000_000.0  # seconds: a Tuesday in November 2023


@dataclass(frozen=True)
class Kept:
    """A snapshot."""

    id: str
    container: str
    time: float
    labels: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeRepository:
    """Keeps snapshots in a list, and a log of what it was asked to do.

    `fail` is what an operation raises, by its name or by the name of a container; `problems` is what
    a check finds.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.clock = clock or Clock()
        self.kept: list[Snapshot] = []
        self.asked: list[str] = []
        self.fail: dict[str, BaseException] = {}
        self.warn: tuple[str, ...] = ()
        self.problems: list[str] = []
        self.garbage = 0
        self.made = 0

    def _ask(self, what: str, *about: str) -> None:
        self.asked.append(" ".join([what, *about]))
        for name in (what, *about):
            if name in self.fail:
                raise self.fail[name]

    def create(self, containers: Sequence[str]) -> Iterator[Outcome]:
        """Each is saved now, at once."""
        for name in containers:
            self._ask("create", name)
            self.made += 1
            id = f"{name}-{self.made}"
            self.kept.append(Kept(id, name, self.clock(), {"host": HOST}))
            yield Outcome(name, id, "", 0.25, 2.0, 1000, 100, self.warn)

    def snapshots(self) -> Sequence[Snapshot]:
        """All, in no order that means anything."""
        self._ask("snapshots")
        return tuple(reversed(self.kept))

    def forget(self, ids: Sequence[str]) -> None:
        """They are gone, their data is garbage."""
        self._ask("forget", *ids)
        before = len(self.kept)
        self.kept = [snapshot for snapshot in self.kept if snapshot.id not in ids]
        self.garbage += 100 * (before - len(self.kept))

    def prune(self) -> PruneReport:
        """The garbage is gone."""
        self._ask("prune")
        freed, self.garbage = self.garbage, 0
        return PruneReport(freed)

    def check(self, read_data: float) -> Sequence[str]:
        """What is wrong."""
        self._ask("check", f"{read_data:g}")
        return self.problems

    def rehearse(self, ids: Sequence[str]) -> Sequence[str]:
        """What is wrong."""
        self._ask("rehearse", *ids)
        return self.problems

    def did(self, what: str) -> list[str]:
        """What it was asked of one kind."""
        return [each for each in self.asked if each.split()[0] == what]


def write_job(directory: Path, text: str, name: str = "nightly") -> Path:
    """A job's file, as only its owner may read and write it."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}.toml"
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def make_job(directory: Path, text: str, name: str = "nightly") -> Job:
    """The job of that text, with a repository and a container if it names none."""
    for key, line in (
        ("repository", 'repository = "/srv/backup"\n'),
        ("containers", 'containers = ["web"]\n'),
    ):
        if not re.search(rf"^\s*{key} =", text, re.MULTILINE):
            text = line + text
    return config.read(str(write_job(directory, text, name)))


def make_world(state: Path, repository: FakeRepository, **changed: Any) -> World:
    """What a run of a job acts on here: nothing but the repository and that directory."""
    known: dict[str, Any] = {
        "open": lambda job, passphrase: nullcontext(repository),
        "annotations": dict,
        "state_directory": str(state),
        "clock": repository.clock,
        "host": HOST,
    }
    return World(**{**known, **changed})


class Stand:
    """A job's surroundings: a clock, a repository, directories."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock()
        self.repository = FakeRepository(self.clock)
        self.told: list[str] = []
        self.states = directory / "state"
        self.world = make_world(self.states, self.repository, tell=self.told.append)
        self.log = directory / "log"

    def job(self, text: str = "", name: str = "nightly") -> Job:
        """A job; $LOG in its text is a file that hooks write to."""
        return make_job(self.directory, text.replace("$LOG", str(self.log)), name)

    def state(self) -> JobState:
        """What the runs of the job called nightly left."""
        return state.load("nightly", str(self.states))

    def lines(self) -> list[str]:
        """What hooks wrote."""
        return self.log.read_text().splitlines() if self.log.exists() else []
