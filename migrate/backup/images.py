"""CRIU's images of a snapshot as files: as its dump left them, or whole, with all of its memory in them."""

import os

from ocimig import files
from ocimig.criu_images import assemble, image
from ocimig.criu_images.image import CheckpointImage, Manifest
from ocimig.files import Fd
from ocimig.migrate.lazy import images as lazy
from ocimig.migrate.memory import spaces
from ocimig.migrate.memory.held import Held
from ocimig.migrate.memory.runs import Run as Range
from ocimig.migrate.store import segments, stream
from ocimig.migrate.store.blobs import PAGE, ZEROS, Run
from ocimig.migrate.store.errors import StoreDamaged
from ocimig.migrate.store.packs import Piece
from ocimig.migrate.store.snapshot import Segment, Snapshot
from ocimig.migrate.store.store import Store

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write(repository: Store, snapshot: Snapshot, directory: str) -> None:
    """Every image, and a manifest without digests, into a new directory. Raises StoreDamaged."""
    os.makedirs(directory, mode=0o700)
    for name, each in snapshot.images.items():
        with Fd(os.open(os.path.join(directory, name), _NEW, 0o600)) as fd:
            if reason := stream.fault(each.runs, each.size):
                raise damaged(repository, snapshot, f"{name}: {reason}")
            stream.write_file(repository.packs, each.runs, each.size, fd)
    told = _manifest(snapshot)
    # which there are: those of a container with mapped users are copied by this list
    told.files = {name: {"size": each.size} for name, each in snapshot.images.items()}
    path = CheckpointImage(directory).path(image.MANIFEST)
    files.write_atomic(path, told.to_json().encode(), sync=False)


def whole(repository: Store, snapshot: Snapshot, directory: str) -> CheckpointImage:
    """A sealed checkpoint in a new directory, as if CRIU had saved all of the memory; one address space
    at a time is held in memory. Raises StoreDamaged, BadImage."""
    write(repository, snapshot, directory)
    held = Held()
    try:
        for space, withheld in _withheld(directory):
            fill(held, repository, snapshot, space)
            if held.covers(space, withheld):
                raise damaged(repository, snapshot, f"it lacks memory of {space}")
            put = assemble.fill if spaces.is_process(space) else assemble.fill_shared
            put(directory, spaces.number(space), held.fd(space))
            held.forget(space)
    finally:
        held.close()
    made = CheckpointImage(directory)
    made.write_json(image.CONFIG, dict(snapshot.config))
    made.seal(_manifest(snapshot))
    return made


def fill(held: Held, repository: Store, snapshot: Snapshot, space: str) -> None:
    """All pages of a space, into the file that holds it. Raises StoreDamaged."""
    listed: tuple[Segment, ...] = snapshot.spaces.get(space, ())
    pieces: list[Piece] = []
    zeros: list[Range] = []
    for number, pack, entry in listed:
        blob = repository.packs.blob(pack, entry)
        try:
            found = segments.decode(number, blob)
        except ValueError as error:
            raise damaged(repository, snapshot, str(error)) from None
        for piece in found:
            if piece.pack == ZEROS:
                zeros.append((piece.address, piece.address + piece.pages * PAGE))
            else:
                pieces.append(Piece(Run(piece.pack, piece.first, piece.pages), piece.address))
    held.fill(space, repository.packs.spread(pieces), zeros)


def damaged(repository: Store, snapshot: Snapshot, reason: str) -> StoreDamaged:
    """The error about a snapshot."""
    return repository.damaged(f"snapshot {snapshot.id}", reason)


def _withheld(directory: str) -> list[tuple[str, list[Range]]]:
    """What these images leave to others, by space."""
    private = [
        (spaces.of_process(pid), each.withheld)
        for pid, each in lazy.read(directory)
        if each.withheld
    ]
    shared = [(spaces.of_shared(inode), runs) for inode, runs in lazy.read_shared(directory)]
    return [*private, *shared]


def _manifest(snapshot: Snapshot) -> Manifest:
    """As the dump's, of the files nothing; memory based on an earlier dump there is none."""
    told = snapshot.manifest
    known = {name: told[name] for name in Manifest.__slots__ if name in told}
    return Manifest(**{"id": snapshot.container, **known, "files": {}, "parent": None})
