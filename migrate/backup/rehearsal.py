"""A snapshot is proven by restoring it: held, isolated, compared, and thrown away before it runs."""

import os
from collections.abc import Mapping
from typing import Any

from blake3 import blake3

from ocimig import files
from ocimig.criu_images import binary, kernel_writes
from ocimig.errors import OcimigError
from ocimig.migrate import network
from ocimig.migrate.backup.restore import WantedRestore, saved_network
from ocimig.migrate.backup.restore import restore_snapshot as restore
from ocimig.migrate.memory import spaces
from ocimig.migrate.store import segments
from ocimig.migrate.store.blobs import PAGE, ZEROS, Run
from ocimig.migrate.store.segments import Piece
from ocimig.migrate.store.snapshot import Snapshot
from ocimig.migrate.store.store import Store as Repository
from ocimig.runtime.linux import proc
from ocimig.runtime.store import Store

_nothing = bytes(PAGE)


class _Proven(Exception):
    """It stood, and was compared: `wrong` is what was not as it should be."""

    def __init__(self, *, wrong: str, pages: int) -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.pages = pages


def rehearse(containers: Store, repository: Repository, snapshot: Snapshot) -> tuple[str, int]:
    """Why the snapshot cannot be restored as it was, or nothing; and how many pages were compared.

    Its files go below the cache, its network is joined to nothing. The caller holds the store's shared
    lock. Nothing of it is left. Raises what only the person can change: no space, no CRIU.
    """
    id = f"verify-{snapshot.id}"
    place = os.path.join(repository.cache, "rehearsals", snapshot.id)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    files.remove_tree(place)
    os.makedirs(place, mode=0o700)

    def compare(pid: int, images: str) -> None:
        kernel = kernel_writes.areas(images, binary.find())
        wrong, pages = _compare(repository, snapshot, pid, kernel)
        raise _Proven(wrong=wrong, pages=pages)

    wanted = WantedRestore(
        id=id,
        bundle=os.path.join(place, "bundle"),
        stdio=(null, null, null),
        connect=_apart(snapshot, id),
        on_restored=compare,
    )
    try:
        restore(containers, repository, snapshot, wanted)
    except _Proven as proven:
        return proven.wrong, proven.pages
    except OcimigError as error:
        log = error.fields.get("log")
        return f"{error}{f'; log file: {log}' if log else ''}", 0
    finally:
        os.close(null)
        files.remove_tree(place)
    return "it ran before it was compared", 0


def _apart(snapshot: Snapshot, id: str) -> Any:
    """Its network, complete but joined to nothing."""
    saved = saved_network(snapshot)
    if saved is None:
        return None
    config = network.from_facts(saved)

    def connect(netns: int) -> dict[str, Any]:
        return network.connect(netns, config, id, attached=False)

    return connect


def _compare(
    repository: Repository, snapshot: Snapshot, pid: int, kernel: list[tuple[int, int]]
) -> tuple[str, int]:
    """What is wrong with the memory of the processes below `pid`, which stand still, but for where the
    kernel writes itself; pages compared."""
    pids = _inside([pid, *proc.descendants(pid)])
    compared = 0
    for name, listed in snapshot.spaces.items():
        if not spaces.is_process(name):
            continue
        inside = spaces.number(name)
        if inside not in pids:
            return f"process {inside} is not there", compared
        with open(f"/proc/{pids[inside]}/mem", "rb", buffering=0) as memory:
            for number, pack, entry in listed:
                for piece in segments.decode(number, repository.packs.blob(pack, entry)):
                    data = os.pread(memory.fileno(), piece.pages * PAGE, piece.address)
                    if wrong := _differs(repository, piece, data, kernel):
                        return f"process {inside}: {wrong}", compared
                    compared += piece.pages
    return "", compared


def _differs(
    repository: Repository, piece: Piece, data: bytes, kernel: list[tuple[int, int]]
) -> str:
    if len(data) != piece.pages * PAGE:
        return f"memory at {piece.address:#x} cannot be read"
    contents = at = None
    if piece.pack != ZEROS:
        contents = repository.packs.contents(piece.pack)
        at = repository.packs.position(Run(piece.pack, piece.first, piece.pages))
    for page in range(piece.pages):
        own = data[page * PAGE : (page + 1) * PAGE]
        if contents is None or at is None:
            same = own == _nothing
        else:
            same = blake3(own, key=repository.digest_key).digest() == contents.digest(at + page)
        address = piece.address + page * PAGE
        if not same and not _only_kernel(repository, piece, page, own, kernel):
            return f"the page at {address:#x} is another"
    return ""


def _only_kernel(
    repository: Repository, piece: Piece, page: int, own: bytes, kernel: list[tuple[int, int]]
) -> bool:
    """Whether a page is what it was but for what the kernel wrote."""
    address = piece.address + page * PAGE
    inside = [(at - address, size) for at, size in kernel if address <= at < address + PAGE]
    if not inside:
        return False
    is_, was = bytearray(own), bytearray(PAGE)
    if piece.pack != ZEROS:
        was[:] = repository.packs.blob(piece.pack, piece.first + page)
    for at, size in inside:
        stop = min(at + size, PAGE)
        is_[at:stop] = was[at:stop] = bytes(stop - at)
    return is_ == was


def _inside(pids: list[int]) -> Mapping[int, int]:
    """By their pid in the container."""
    found = {}
    for pid in pids:
        status = proc.status(pid)
        if status is not None and "VmSize" in status:
            found[int(status.get("NSpid", str(pid)).split()[-1])] = pid
    return found
