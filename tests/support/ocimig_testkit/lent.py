"""A snapshot whose images were made by hand: some of its memory is in them, the rest in the store."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ocimig.migrate.store import stream, tree
from ocimig.migrate.store.snapshot import Snapshot, Tree
from ocimig.migrate.store.store import Store
from ocimig_testkit.images import HEAP, LAZY, PAGE, PRESENT, Checkpoint, plain
from ocimig_testkit.shelves import Content, write

SAVED, KEPT, ZERO = HEAP, HEAP + 2 * PAGE, HEAP + 3 * PAGE  # addresses of pages
WORDS = b"a word in the heap"


def node(name: str, kind: str, **more: Any) -> tree.Node:
    """A name of root's, of mode 0755."""
    return tree.Node(name.encode(), kind, 0o755, 0, 0, 0, **more)


def lent(
    store: Store, directory: Path, *, lost: bool = False, rootfs: str = "", **about: Any
) -> Snapshot:
    """A snapshot of one process with three pages: one that CRIU saved, one full of WORDS, one of zeros.

    With `lost` the store has the second one not. `rootfs` is where a link of that name leads in the
    bundle; without it rootfs is a directory with the file `motd` in it."""
    made = Checkpoint(directory)
    runs = [(SAVED, 1, PRESENT | LAZY), (KEPT, 2, LAZY)]
    made.memory(1, runs, [plain(HEAP, HEAP + 8 * PAGE)])
    made.fill(1, 0, b"saved by CRIU")
    images = {path.name: path.read_bytes() for path in directory.iterdir()}
    pages = {ZERO: bytes(PAGE)} | ({} if lost else {KEPT: WORDS.ljust(PAGE, b".")})
    writer = store.writer()
    try:
        told = {"id": "web", "created": "2026-01-02T03:04:05Z", "facts": {"streams": []}}
        given = {"config": {"root": {"path": "rootfs"}}, "manifest": told, **about}
        content = Content(pages={"p1": pages}, images=images)
        snapshot = write(writer, content, **given)

        def directory_of(name: str, *below: tree.Node) -> tree.Node:
            data = b"".join(tree.encode(each) for each in below)
            return node(name, tree.DIRECTORY, size=len(data), runs=stream.put_bytes(writer, data))

        motd = node("motd", tree.FILE, size=6, runs=stream.put_bytes(writer, b"hello\n"))
        inner = node("rootfs", tree.SYMLINK, target=rootfs.encode()) if rootfs else directory_of(
            "rootfs", motd
        )  # fmt: skip
        root = directory_of("", inner)
        writer.finish()
    finally:
        writer.close()
    trees = (Tree("bundle", "/b", json.loads(tree.encode(root))),)
    snapshot = dataclasses.replace(snapshot, trees=trees)
    store.add(snapshot)
    return snapshot
