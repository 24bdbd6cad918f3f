"""One checkpoint as a directory, as an archive and as a snapshot: what a look at it has to find is the same."""

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocimig.criu_images.opened import Images
from ocimig.files import Fd
from ocimig.migrate.archive import images as archives
from ocimig.migrate.archive import packing
from ocimig.migrate.archive.limits import Limits
from ocimig.migrate.backup.look import SnapshotImages
from ocimig.migrate.store import local
from ocimig.migrate.store.snapshot import Snapshot
from ocimig.migrate.store.store import Store
from ocimig_testkit.images import (
    HEAP,
    LAZY,
    PAGE,
    PRESENT,
    SHARED,
    STACK,
    Checkpoint,
    vma,
    write_pagemap,
)
from ocimig_testkit.shelves import Content, shelf, take

WORD = b"a word in the heap"
FAR = HEAP + (16 << 20)  # in another segment of the store


def page(data: bytes) -> bytes:
    """A page that begins with these bytes."""
    return data.ljust(PAGE, b".")


class Family:
    """Two processes. Of the first one CRIU saved one page; the rest, with its command line, was left out, and
    so was the object that it shares. `pages` is what was left out, by space and address."""

    def __init__(self, path: Path, word: bytes = WORD) -> None:
        self.path = path
        self.made = made = Checkpoint(path)
        made.tree((1, 0), (7, 1))
        areas = [
            vma(HEAP, HEAP + 8 * PAGE),
            vma(FAR - PAGE, FAR + PAGE),
            vma(HEAP + (32 << 20), HEAP + (32 << 20) + 2 * PAGE, SHARED, 12),
            vma(STACK - 3 * PAGE, STACK + PAGE),
        ]
        words = b"prog\0--name\0"
        runs = [
            (HEAP, 1, PRESENT), (HEAP + 2 * PAGE, 3, LAZY), (FAR - PAGE, 2, LAZY),
            (STACK - PAGE, 2, LAZY),
        ]  # fmt: skip
        made.memory(
            1, runs, areas, mm_arg_start=STACK - 5, mm_arg_end=STACK - 5 + len(words),
            mm_env_start=STACK + 64, mm_env_end=STACK + 72,
        )  # fmt: skip
        made.fill(1, 0, b"saved by CRIU")
        made.files(1, {0: {"type": 1, "reg": {"name": "/a", "pos": 5}}})
        write_pagemap(path / "pagemap-shmem-12.img", 12, [(0, 2, LAZY)])
        (path / "pages-12.img").write_bytes(b"")
        stack = bytearray(2 * PAGE)
        stack[PAGE - 5 : PAGE - 5 + len(words)] = words
        stack[PAGE + 64 : PAGE + 72] = b"A=b\0C=d\0"
        self.pages: dict[str, dict[int, bytes]] = {
            "p1": {
                HEAP + 2 * PAGE: page(word), HEAP + 3 * PAGE: bytes(PAGE),
                HEAP + 4 * PAGE: page(b"behind"), FAR - PAGE: page(b"x" * PAGE),
                FAR: page(b"across the border"), STACK - PAGE: bytes(stack[:PAGE]),
                STACK: bytes(stack[PAGE:]),
            },
            "s12": {0: page(b"shared by two"), PAGE: bytes(PAGE)},
        }  # fmt: skip

    def store(self, place: Path, *, lost: int = 0, word: bytes = b"") -> tuple[Store, Snapshot]:
        """A snapshot of it in the store there, which is made where it is missing. The page at `lost` is not
        in it; `word` is what the first page that was left out begins with."""
        cache = str(place.parent / "cache")
        if place.exists():
            store = Store.open(local.LocalPlace(str(place)), None, cache=cache)
        else:
            store = Store.init(local.create(str(place)), None, sealed="none", cache=cache)
        pages = {name: dict(found) for name, found in self.pages.items()}
        pages["p1"].pop(lost, None)
        if word:
            pages["p1"][HEAP + 2 * PAGE] = page(word)
        images = {each.name: each.read_bytes() for each in self.path.iterdir()}
        told = {"created": "2026-01-02T03:04:05Z", "criu": "4.2", "kernel": "6.1",
                "architecture": "x86_64"}  # fmt: skip
        with store.place.lock(exclusive=False, purpose="a test"):
            return store, take(store, Content(pages=pages, images=images), manifest=told)


def regular(path: Path) -> list[Path]:
    """The files in a directory that are nothing else, by name."""
    return sorted(each for each in path.iterdir() if each.is_file() and not each.is_symlink())


def packed(path: Path, out: Path, form: str = "none", parent: Path | None = None) -> Path:
    """The images as podman packs them; with those that they are based on."""
    plain = out.with_name(f"{out.name}.plain")
    with tarfile.open(plain, "w") as archive:

        def add(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))

        spec = {"ociVersion": "1.0.2", "annotations": {"io.container.manager": "libpod"}}
        add("spec.dump", json.dumps(spec).encode())
        add("config.dump", json.dumps({"id": "abc", "name": "web\x1b[2J"}).encode())
        # the last name first: no order is promised
        for each in reversed(regular(path)):
            add(f"checkpoint/{each.name}", each.read_bytes())
        if parent is not None:
            link = tarfile.TarInfo("checkpoint/parent")
            link.type, link.linkname = tarfile.SYMTYPE, "../pre-checkpoint"
            archive.addfile(link)
            for each in sorted(parent.iterdir()):
                add(f"pre-checkpoint/{each.name}", each.read_bytes())
    with Fd(os.open(plain, os.O_RDONLY)) as fd:
        packing.repack(fd, str(out), form, Limits(), str(plain))
    plain.unlink()
    return out


@contextmanager
def archived(path: Path) -> Iterator[Images]:
    """The images of a directory, as those of an archive."""
    with tempfile.TemporaryDirectory() as room:
        archive = packed(path, Path(room, "looked.tar"))
        with Fd(os.open(archive, os.O_RDONLY)) as fd, archives.opened(fd, "looked.tar") as found:
            yield found


@contextmanager
def stored(path: Path) -> Iterator[Images]:
    """The images of a directory, as those of a snapshot that has some of the memory that they leave out."""
    images = {each.name: each.read_bytes() for each in regular(path)}
    pages = {"p1": {HEAP + 3 * PAGE: page(WORD), STACK: page(WORD)}, "s12": {0: page(WORD)}}
    with tempfile.TemporaryDirectory() as room:
        store = shelf(Path(room))
        with SnapshotImages(store, take(store, Content(pages=pages, images=images))) as found:
            yield found
