"""The repository as a job sees it. Who keeps backups provides a `Repository`; jobs know nothing else of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ocimig.migrate.retention import Snapshot


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the backup of one container ended. Without an `error` there is a `snapshot`.

    Times in seconds, sizes in bytes; `frozen_seconds` is how long the container stood still.
    """

    name: str
    snapshot: str = ""
    error: str = ""
    frozen_seconds: float = 0.0
    seconds: float = 0.0
    bytes_read: int = 0
    bytes_stored: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What removing unused data gave back, in bytes."""

    bytes_freed: int = 0


class Repository(Protocol):
    """Where snapshots are kept. Every method may raise OcimigError or OSError."""

    def create(self, containers: Sequence[str]) -> Iterator[Outcome]:
        """Save containers; one outcome each, in order. A container that fails is an outcome with an
        error, and goes on running."""

    def snapshots(self) -> Sequence[Snapshot]:
        """Everything that is kept, of every container and host, in any order."""

    def forget(self, ids: Sequence[str]) -> None:
        """Remove snapshots, not yet their data. One that is gone already is fine."""

    def prune(self) -> PruneReport:
        """Remove data that no snapshot needs."""

    def check(self, read_data: float) -> Sequence[str]:
        """Problems in words: the structure always, and that fraction of the data, 0 to 1."""

    def rehearse(self, ids: Sequence[str]) -> Sequence[str]:
        """Problems in words of restoring these snapshots, found without running anything: all that a
        restore would read is read and compared."""
