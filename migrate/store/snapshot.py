"""One snapshot: what it is and which blobs it needs. Pure; docs/formats/store.md names every field."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import zstandard

from ocimig.migrate.memory import spaces
from ocimig.migrate.store import head, tree
from ocimig.migrate.store.blobs import ZEROS, Run
from ocimig.migrate.store.head import Head
from ocimig.migrate.store.seal import LAST, FileSeal, Sealer
from ocimig.migrate.store.tree import Node

VERSION = 1
LARGEST = 256 << 20
SEGMENTS = 1 << 33  # more than an address space of 2^57 bytes has

_HEX = re.compile(r"[0-9a-f]{16}")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,254}")
Segment = tuple[int, int, int]  # number, pack, entry


@dataclass(frozen=True, slots=True)
class Tree:
    """One directory tree: where it was, and its root's own line (see tree.py) as an object."""

    name: str
    path: str
    root: Mapping[str, Any]

    def node(self) -> Node:
        """Its root. Raises ValueError."""
        line = json.dumps(self.root, separators=(",", ":"), sort_keys=True).encode()
        return tree.decode(line, root=True)


@dataclass(frozen=True, slots=True)
class Image:
    """One file of CRIU's."""

    size: int
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A container at one instant. Times in seconds; see the format for the rest."""

    id: str
    container: str
    host: str
    time: float
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    images: Mapping[str, Image]
    spaces: Mapping[str, tuple[Segment, ...]]
    shared: Mapping[str, int]
    trees: tuple[Tree, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    hot: Mapping[str, list[tuple[int, int]]] = field(default_factory=dict)
    frozen_seconds: float = 0.0
    seconds: float = 0.0
    pages: int = 0
    read_bytes: int = 0
    stored_bytes: int = 0

    def runs(self) -> Iterator[Run]:
        """Everything that it names itself, which is not all that it needs: segments and directories
        name more."""
        for image in self.images.values():
            yield from image.runs
        for segments in self.spaces.values():
            for _, pack, entry in segments:
                yield Run(pack, entry, 1)
        for each in self.trees:
            yield from each.node().runs

    def encode(self) -> bytes:
        """As JSON."""
        document: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        document["version"] = VERSION
        document["images"] = {
            name: {"size": image.size, "runs": _listed(image.runs)}
            for name, image in self.images.items()
        }
        document["spaces"] = {
            name: [[number, head.hexadecimal(pack), entry] for number, pack, entry in segments]
            for name, segments in self.spaces.items()
        }
        document["trees"] = [
            {"name": each.name, "path": each.path, "root": each.root} for each in self.trees
        ]
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def decode(data: bytes) -> Snapshot:
    """Raises ValueError, with words, for anything that is not a snapshot of this version."""
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            raise ValueError("it is no object")  # noqa: TRY004 - every refusal is a ValueError
        if document.get("version") != VERSION:
            raise ValueError(
                f"its version is {document.get('version')}, this is a reader of {VERSION}"
            )
        return _snapshot(document)
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"it is not a snapshot: {type(error).__name__} {error}") from None


def _snapshot(document: dict[str, Any]) -> Snapshot:
    return Snapshot(
        id=head.hexadecimal(_number(document["id"])),
        container=_text(document["container"]),
        host=_text(document["host"]),
        time=_real(document["time"]),
        config=_object(document["config"]),
        manifest=_object(document["manifest"]),
        images={
            _image(name): Image(_count(image["size"]), runs_of(image["runs"]))
            for name, image in _object(document["images"]).items()
        },
        spaces={
            spaces.check(name): _segments(listed)
            for name, listed in _object(document["spaces"]).items()
        },
        shared={
            spaces.check(name): _count(size) for name, size in _object(document["shared"]).items()
        },
        trees=_trees(_list(document["trees"])),
        labels={
            _text(name): _text(value) for name, value in _object(document.get("labels", {})).items()
        },
        tags=tuple(_text(tag) for tag in _list(document.get("tags", []))),
        hot={
            _text(pid): [(_count(start), _count(end)) for start, end in runs]
            for pid, runs in _object(document.get("hot", {})).items()
        },
        frozen_seconds=_real(document.get("frozen_seconds", 0)),
        seconds=_real(document.get("seconds", 0)),
        pages=_count(document.get("pages", 0)),
        read_bytes=_count(document.get("read_bytes", 0)),
        stored_bytes=_count(document.get("stored_bytes", 0)),
    )


def _trees(listed: list[Any]) -> tuple[Tree, ...]:
    found = tuple(_tree(each) for each in listed)
    if len({each.name for each in found}) < len(found):
        raise ValueError("two of its trees have one name")
    return found


def _tree(each: dict[str, Any]) -> Tree:
    found = Tree(_text(each["name"]), _text(each["path"]), _object(each["root"]))
    if found.name in ("", ".", "..") or "/" in found.name or "\0" in found.name:
        raise ValueError(f"{found.name!r} is no name of a tree")
    found.node()
    return found


def _segments(listed: list[list[Any]]) -> tuple[Segment, ...]:
    found: list[Segment] = []
    before = -1
    for number, pack, entry in listed:
        if not before < _count(number) < SEGMENTS:
            raise ValueError("its segments are out of order")
        before = number
        found.append((number, _number(pack), _entry(entry)))
    return tuple(found)


def runs_of(listed: Iterable[Any]) -> tuple[Run, ...]:
    """Runs as JSON has them. Raises ValueError, TypeError."""
    found = []
    for pack, first, entries in listed:
        number = int(pack, 16) if _HEX.fullmatch(pack) else -1
        if number < 0 or not _count(entries) or _entry(first) + entries > 1 << 32:
            raise ValueError(f"{[pack, first, entries]} is no run")
        found.append(Run(number, first, entries))
    return tuple(found)


def _listed(runs: Iterable[Run]) -> list[list[Any]]:
    return [[head.hexadecimal(run.pack), run.first, run.entries] for run in runs]


def _number(text: Any) -> int:
    if not (isinstance(text, str) and _HEX.fullmatch(text)) or int(text, 16) == ZEROS:
        raise ValueError(f"{text!r} is no number")
    return int(text, 16)


def _entry(value: Any) -> int:
    if _count(value) >> 32:
        raise ValueError(f"{value} is no entry")
    return int(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{value!r} is no count")
    return value


def _real(value: Any) -> float:
    if type(value) not in (int, float) or not -1e12 < value < 1e12:
        raise ValueError(f"{value!r} is no number of seconds")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 65536:
        raise ValueError(f"{value!r:.80} is no text")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.80} is no object")  # noqa: TRY004 - every refusal is a ValueError
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.80} is no list")  # noqa: TRY004 - every refusal is a ValueError
    return value


def _image(name: str) -> str:
    if not _IMAGE.fullmatch(name):
        raise ValueError(f"{name!r:.80} is no name of an image")
    return name


def write(snapshot: Snapshot, start: Head, seals: Sealer) -> bytes:
    """The whole file of a snapshot."""
    start_bytes = start.bytes(head.SNAPSHOT)
    body = zstandard.ZstdCompressor(level=3).compress(snapshot.encode())
    return start_bytes + seals.of(start, head.SNAPSHOT).seal(LAST, body)


def read(data: bytes, name: str, seals: Sealer) -> Snapshot:
    """The snapshot of a file, which must be the one of that name. Raises ValueError."""
    parsed = head.parse(name, "snapshot")
    start = head.read(data[: head.SIZE], head.SNAPSHOT)
    if parsed is None or parsed[0] != start.number:
        raise ValueError("its name is another's")
    if head.digest_of(data).hex() != parsed[1]:
        raise ValueError("it was changed")
    if start.sealed != seals.sealed:
        raise ValueError("it is not sealed as its store is")
    seal: FileSeal = seals.of(start, head.SNAPSHOT)
    body = seal.open(LAST, memoryview(data)[head.SIZE :])
    try:
        size = zstandard.frame_content_size(body)
        if not 0 <= size <= LARGEST:
            raise ValueError("it is too large")
        snapshot = decode(zstandard.ZstdDecompressor().decompress(body, max_output_size=size))
    except zstandard.ZstdError as error:
        raise ValueError(f"it cannot be expanded: {error}") from None
    if snapshot.id != head.hexadecimal(start.number):
        raise ValueError("it is another snapshot")
    return snapshot
