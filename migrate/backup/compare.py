"""How two snapshots of one store differ: files by name, memory by page. What they share is not read."""

from typing import Any

from ocimig.migrate.backup import walk
from ocimig.migrate.store import segments, tree
from ocimig.migrate.store.blobs import PAGE, ZEROS
from ocimig.migrate.store.packs import Packs
from ocimig.migrate.store.snapshot import Snapshot
from ocimig.migrate.store.store import Store

_Page = tuple[int, int]


def compare(store: Store, one: Snapshot, other: Snapshot) -> dict[str, Any]:
    """{"files": [{"path", "change", …}], "memory": [{"space", "same", "changed", "added", "removed"}]}

    Pages are compared by where they lie: the same bytes are stored once, so two places are two contents.
    Raises StoreDamaged, FileMissing, TreeDamaged, ValueError.
    """
    return {"files": _files(store, one, other), "memory": _memory(store.packs, one, other)}


def _files(store: Store, one: Snapshot, other: Snapshot) -> list[dict[str, Any]]:
    found = []
    before = {each.name: each for each in one.trees}
    for after in other.trees:
        if after.name not in before:
            continue
        for change in walk.diff(store.packs, before[after.name].node(), after.node()):
            word = "changed" if change.content else "metadata"
            if change.before is None or change.after is None:
                word = "added" if change.before is None else "removed"
            node = change.after or change.before
            assert node is not None
            path = f"{after.path}/{change.path}" if change.path else after.path
            found.append(
                {"path": path, "change": word, "type": node.type,
                 "size": node.size if node.type == tree.FILE else 0}
            )  # fmt: skip
    return found


def _memory(packs: Packs, one: Snapshot, other: Snapshot) -> list[dict[str, Any]]:
    found = []
    for space in sorted({*one.spaces, *other.spaces}):
        before = {number: (pack, entry) for number, pack, entry in one.spaces.get(space, ())}
        after = {number: (pack, entry) for number, pack, entry in other.spaces.get(space, ())}
        count = {"same": 0, "changed": 0, "added": 0, "removed": 0}
        for number in {*before, *after}:
            left = _pages(packs, number, before.get(number))
            right = (
                left
                if before.get(number) == after.get(number)
                else _pages(packs, number, after.get(number))
            )
            for page in {*left, *right}:
                count[_change(left.get(page), right.get(page))] += 1
        found.append({"space": space, **count})
    return found


def _change(left: _Page | None, right: _Page | None) -> str:
    if left is None or right is None:
        return "added" if left is None else "removed"
    return "same" if left == right else "changed"


def _pages(packs: Packs, number: int, place: tuple[int, int] | None) -> dict[int, _Page]:
    """Where each page of a segment lies."""
    if place is None:
        return {}
    found: dict[int, _Page] = {}
    for piece in segments.decode(number, packs.blob(*place)):
        first = piece.address // PAGE
        for page in range(piece.pages):
            lies = (ZEROS, 0) if piece.pack == ZEROS else (piece.pack, piece.first + page)
            found[first + page] = lies
    return found
