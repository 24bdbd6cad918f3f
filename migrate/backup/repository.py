"""A store as backup jobs see it: what jobs.backups.Repository asks for."""

from collections.abc import Iterator, Mapping, Sequence

from ocimig.errors import OcimigError
from ocimig.migrate.backup.create import BackupOptions, create
from ocimig.migrate.jobs.backups import Outcome, PruneReport
from ocimig.migrate.retention import HOST
from ocimig.migrate.store import prune, verify
from ocimig.migrate.store.errors import NoSuchSnapshot
from ocimig.migrate.store.snapshot import Snapshot
from ocimig.migrate.store.store import Store
from ocimig.runtime.store import Store as Containers


class Kept:
    """A snapshot as retention sees it: its host is one of its labels."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.id = snapshot.id
        self.container = snapshot.container
        self.time = snapshot.time
        self.tags = snapshot.tags
        self.labels: Mapping[str, str] = {**snapshot.labels, HOST: snapshot.host}


class StoreRepository:
    """See jobs.backups.Repository. The place of the store stays the caller's."""

    def __init__(self, containers: Containers, store: Store, tags: tuple[str, ...] = ()) -> None:
        self._containers = containers
        self._store = store
        self._options = BackupOptions(tags=tags)

    def create(self, containers: Sequence[str]) -> Iterator[Outcome]:
        """See Repository."""
        for id in containers:
            try:
                with self._store.place.lock(exclusive=False, purpose=f"backup of {id}"):
                    snapshot, notes = create(self._containers, id, self._store, self._options)
            except (OcimigError, OSError) as error:
                yield Outcome(id, error=str(error))
                continue
            yield Outcome(
                id,
                snapshot.id,
                frozen_seconds=snapshot.frozen_seconds,
                seconds=snapshot.seconds,
                bytes_read=snapshot.read_bytes,
                bytes_stored=snapshot.stored_bytes,
                warnings=tuple(notes),
            )

    def snapshots(self) -> Sequence[Kept]:
        """See Repository."""
        return [Kept(each) for each in self._store.snapshots()]

    def forget(self, ids: Sequence[str]) -> None:
        """See Repository."""
        for id in ids:
            try:
                self._store.forget(id)
            except NoSuchSnapshot:  # somebody else was faster
                continue

    def prune(self) -> PruneReport:
        """See Repository."""
        with self._store.place.lock(exclusive=True, purpose="prune"):
            self._store.packs.refresh()
            wanted, marks = prune.survey(self._store)
            return PruneReport(prune.perform(self._store, wanted, marks, lambda _: None).freed)

    def check(self, read_data: float) -> Sequence[str]:
        """See Repository."""
        with self._store.place.lock(exclusive=False, purpose="check"):
            return verify.verify(self._store, read_data=read_data, tell=lambda _: None).problems

    def rehearse(self, ids: Sequence[str]) -> Sequence[str]:
        """See Repository."""
        with self._store.place.lock(exclusive=False, purpose="check"):
            return [
                f"snapshot {id}: {reason}"
                for id in ids
                if (reason := verify.rehearse(self._store, self._store.find(id)))
            ]
