"""Snapshots of containers that never were: what is in them is known, whatever happened to the store."""

import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocimig.migrate.backup import walk
from ocimig.migrate.store import head, segments, stream, tree
from ocimig.migrate.store.blobs import BLOCK, PAGE, ZEROS, Run
from ocimig.migrate.store.place import Place
from ocimig.migrate.store.segments import Space
from ocimig.migrate.store.snapshot import Image, Snapshot, Tree
from ocimig.migrate.store.store import Store
from ocimig.migrate.store.writer import Writer
from ocimig_testkit.places import Disk, MemoryPlace

_BASE = 0x7F0000000000


@dataclass
class Content:
    """What a snapshot holds: pages by space and address, CRIU's files and the container's by name."""

    pages: dict[str, dict[int, bytes]] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def some(dice: random.Random, pages: int = 24) -> Content:
    """A small container. Those of one `dice` share much with each other, as snapshots do."""
    choice = [bytes(PAGE), *(_page(number) for number in range(40))]
    found = {}
    for space in ("p1", "p7"):
        start = _BASE + dice.choice([0, segments.SPAN - 4 * PAGE])  # across a border, too
        found[space] = {start + number * PAGE: dice.choice(choice) for number in range(pages)}
    files = {f"f{number}": _bytes(dice.randrange(6)) for number in range(5)}
    return Content(found, {"core-1.img": dice.randbytes(300), "pages.img": _bytes(3)}, files)


def _page(number: int) -> bytes:
    return random.Random(number).randbytes(PAGE // (1 + number % 2)) * (1 + number % 2)


def _bytes(number: int) -> bytes:
    sizes = (0, 1, 4096, BLOCK, BLOCK + 1, 150_000)
    return random.Random(number).randbytes(sizes[number])


def take(store: Store, content: Content, **about: Any) -> Snapshot:
    """Store it, and a snapshot of it. Raises what the store does."""
    writer = store.writer()
    try:
        snapshot = write(writer, content, **about)
        writer.finish()
    finally:
        writer.close()
    store.add(snapshot)
    return snapshot


def write(writer: Writer, content: Content, **about: Any) -> Snapshot:
    """What is in it, into a store; finish() is the caller's."""
    spaces = {}
    for name, pages in content.pages.items():
        space = Space()
        for address, page in pages.items():
            space.put(address, 1, *_placed(writer, page))
        runs = [(address, address + PAGE) for address in sorted(pages)]
        spaces[name] = tuple((number, *writer.put(blob)) for number, blob in space.encode(runs))
    images = {
        name: Image(len(data), stream.put_bytes(writer, data))
        for name, data in content.images.items()
    }
    lines = b"".join(
        tree.encode(
            _node(name, tree.FILE, size=len(data), runs=stream.put_bytes(writer, data))
        )
        for name, data in sorted(content.files.items())
    )  # fmt: skip
    root = _node("", tree.DIRECTORY, size=len(lines), runs=stream.put_bytes(writer, lines))
    given = {
        "container": "web", "host": "h", "time": 1.7e9, "config": {"ociVersion": "1.0.2"},
        "manifest": {}, "shared": {}, **about,
    }  # fmt: skip
    return Snapshot(
        id=head.hexadecimal(head.fresh_number()),
        images=images,
        spaces=spaces,
        trees=(Tree("bundle", "/b", json.loads(tree.encode(root))),),
        **given,
    )


def _placed(writer: Writer, page: bytes) -> tuple[int, int]:
    return writer.put(page) if any(page) else (ZEROS, 0)


def _node(name: str, kind: str, *, size: int, runs: tuple[Run, ...]) -> tree.Node:
    return tree.Node(os.fsencode(name), kind, 0o755, 0, 0, 0, size=size, runs=runs)


def content_of(store: Store, snapshot: Snapshot) -> Content:
    """What a restore would read. Raises StoreDamaged, FileMissing, ValueError."""
    packs = store.packs
    pages: dict[str, dict[int, bytes]] = {}
    for name, listed in snapshot.spaces.items():
        found = pages[name] = {}
        for number, pack, entry in listed:
            for piece in segments.decode(number, packs.blob(pack, entry)):
                for count in range(piece.pages):
                    found[piece.address + count * PAGE] = (
                        bytes(PAGE)
                        if piece.pack == ZEROS
                        else packs.blob(piece.pack, piece.first + count)
                    )
    images = {name: _whole(store, each.runs, each.size) for name, each in snapshot.images.items()}
    files = {
        path: _whole(store, node.runs, node.size)
        for each in snapshot.trees
        for path, node in walk.walk(packs, each.node())
        if node.type == tree.FILE
    }
    return Content(pages, images, files)


def _whole(store: Store, runs: tuple[Run, ...], size: int) -> bytes:
    found = bytearray(size)
    for offset, data in stream.pieces(store.packs, runs, size):
        found[offset : offset + len(data)] = data
    return bytes(found)


def shelf(cache: Path, place: Place | None = None) -> Store:
    """A new store, in memory unless said otherwise."""
    return Store.init(place or MemoryPlace(), None, sealed="none", cache=str(cache))


def again(store: Store, cache: Path, disk: Disk | None = None) -> Store:
    """The same store as another process finds it; `disk` is what a crash left of it."""
    place = store.place if disk is None else MemoryPlace(disk)
    return Store.open(place, None, cache=str(cache))


def check(store: Store, wanted: Mapping[str, Content]) -> None:
    """Every snapshot is there, no other, and each is what it was."""
    assert set(store.names()) == set(wanted)
    for snapshot in store.snapshots():
        assert content_of(store, snapshot) == wanted[snapshot.id]
