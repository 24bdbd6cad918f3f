"""One directory as the lines of a stream: what is in it, sorted by name. Pure; docs/formats/store.md.

What is read may come from anywhere: every type, name, range and run is checked, ValueError says what is
wrong, and no more than one line of LONGEST_LINE bytes is ever held.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ocimig import jsonio
from ocimig.migrate.store import stream
from ocimig.migrate.store.blobs import ZEROS, Data, Run

FILE, DIRECTORY, SYMLINK, CHARACTER, BLOCK_DEVICE, FIFO, SOCKET = "f", "d", "l", "c", "b", "p", "s"
LONGEST_LINE = 64 << 20  # a file in 2.5 million runs
LONGEST_NAME, LONGEST_TARGET = 255, 4095  # NAME_MAX, PATH_MAX without its NUL
LARGEST_ATTRIBUTE = 1 << 16  # XATTR_SIZE_MAX
_ATTRIBUTES = 1 << 16  # XATTR_LIST_MAX holds fewer names
_ALWAYS = frozenset("gmntuw")
_MORE = {
    FILE: frozenset("rs"),
    DIRECTORY: frozenset("rz"),
    SYMLINK: frozenset(["to"]),
    CHARACTER: frozenset("d"),
    BLOCK_DEVICE: frozenset("d"),
    FIFO: frozenset(),
    SOCKET: frozenset(),
}


class Node(NamedTuple):
    """Everything about one name but what is below it. `mtime` is in nanoseconds, `mode` without the type."""

    name: bytes  # b"" of the root of a tree
    type: str
    mode: int
    uid: int
    gid: int
    mtime: int
    attributes: tuple[tuple[bytes, bytes], ...] = ()  # sorted
    size: int = 0  # bytes of the stream, of files and directories
    runs: tuple[Run, ...] = ()
    link: int = 0  # a number that all names of one file share; 0: it has one name
    target: bytes = b""
    device: tuple[int, int] = (0, 0)  # major, minor


def encode(node: Node) -> bytes:
    """A node as its line, with the line's end. The same node is the same line everywhere."""
    line: dict[str, Any] = {
        "g": node.gid,
        "m": node.mode,
        "n": _text(node.name),
        "t": node.type,
        "u": node.uid,
        "w": node.mtime,
    }
    if node.attributes:
        line["x"] = {_text(name): _base64(value) for name, value in sorted(node.attributes)}
    if node.link:
        line["l"] = node.link
    if node.type in (FILE, DIRECTORY):
        line["s" if node.type == FILE else "z"] = node.size
        line["r"] = [part for run in node.runs for part in (f"{run.pack:x}", *run[1:])]
    elif node.type == SYMLINK:
        line["to"] = _text(node.target)
    elif node.type in (CHARACTER, BLOCK_DEVICE):
        line["d"] = list(node.device)
    return jsonio.dumps(line, sort_keys=True).encode("ascii") + b"\n"


def decode(line: bytes, *, root: bool = False) -> Node:
    """The node of one line, with or without its end; only a `root` has no name.

    Raises ValueError for values that encode() does not write."""
    try:
        found = jsonio.loads(line.decode("ascii"))
    except UnicodeDecodeError:
        raise ValueError("it is not ASCII") from None
    if not isinstance(found, dict):
        raise ValueError("it is no object")  # noqa: TRY004
    kind = found.get("t")
    if not isinstance(kind, str) or kind not in _MORE:
        raise ValueError(f"{kind!r} is no type")
    there = found.keys()
    free = {"x"} if kind == DIRECTORY else {"x", "l"}
    if there - free != _ALWAYS | _MORE[kind]:
        raise ValueError(f"an entry of type {kind} has the fields {', '.join(sorted(there))}")
    node = Node(
        _name(_bytes(found["n"], "name"), root),
        kind,
        _number(found, "m", 0o7777),
        _number(found, "u", 0xFFFFFFFE),  # chown(2) takes the highest one as "leave it"
        _number(found, "g", 0xFFFFFFFE),
        _number(found, "w", (1 << 63) - 1, -(1 << 63)),
        _attributes(found["x"]) if "x" in found else (),
        link=_number(found, "l", (1 << 64) - 1, 1) if "l" in found else 0,
    )
    if kind in (FILE, DIRECTORY):
        return _with_stream(node, found)
    if kind == SYMLINK:
        return node._replace(target=_target(_bytes(found["to"], "target")))
    if "d" in found:
        return node._replace(device=_device(found["d"]))
    return node


def nodes(parts: Iterable[Data]) -> Iterator[Node]:
    """The nodes of a whole directory's stream, which comes in parts. Raises ValueError as decode() does,
    and where names are not in order, are there twice, or the last line has no end."""
    last = b""
    for line in _lines(parts):
        node = decode(line)
        if node.name <= last:
            raise ValueError(f"{shown(node.name)} does not come after {shown(last)}")
        last = node.name
        yield node


def _lines(parts: Iterable[Data]) -> Iterator[bytes]:
    held: list[bytes] = []
    length = 0
    for part in parts:
        *ends, rest = bytes(part).split(b"\n")
        for end in ends:
            yield b"".join((*held, end))
            held, length = [], 0
        held.append(rest)
        length += len(rest)
        if length > LONGEST_LINE:
            raise ValueError(f"a line is longer than {LONGEST_LINE} bytes")
    if length:
        raise ValueError("its last line has no end")


def shown(name: bytes) -> str:
    """A name for people."""
    return repr(name.decode("utf-8", "surrogateescape"))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _bytes(value: object, what: str) -> bytes:
    """The bytes behind a text; only the one text that _text() makes of them will do."""
    if not isinstance(value, str):
        raise ValueError(f"a {what} is no text")  # noqa: TRY004
    try:
        raw = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"the {what} {value!r} stands for no bytes") from None
    if _text(raw) != value:
        raise ValueError(f"the {what} {value!r} is written in another way than it has to be")
    return raw


def _name(raw: bytes, root: bool) -> bytes:
    if root and not raw:
        return raw
    if raw in (b"", b".", b".."):
        raise ValueError(f"{shown(raw)} is no name")
    if b"/" in raw or b"\0" in raw:
        raise ValueError(f"there is a slash or a NUL in the name {shown(raw)}")
    if len(raw) > LONGEST_NAME:
        raise ValueError(f"a name is longer than {LONGEST_NAME} bytes")
    return raw


def _target(raw: bytes) -> bytes:
    if not 1 <= len(raw) <= LONGEST_TARGET or b"\0" in raw:
        raise ValueError("the target of a link cannot be one")
    return raw


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r:.40} is no whole number")
    return value


def _number(found: dict[str, Any], name: str, most: int, least: int = 0) -> int:
    value = _whole(found[name])
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}, which is not from {least} to {most}")
    return value


def _device(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("the number of a device is no pair")
    major, minor = map(_whole, value)
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):  # what the kernel's dev_t holds
        raise ValueError(f"there is no device {major}:{minor}")
    return major, minor


def _attributes(value: object) -> tuple[tuple[bytes, bytes], ...]:
    if not isinstance(value, dict) or not 1 <= len(value) <= _ATTRIBUTES:
        raise ValueError("attributes are no object, or none, or too many")
    found = []
    for name, text in value.items():
        raw = _bytes(name, "attribute's name")
        if not 1 <= len(raw) <= LONGEST_NAME or b"\0" in raw:
            raise ValueError("the name of an attribute cannot be one")
        if not isinstance(text, str) or len(text) > 2 * LARGEST_ATTRIBUTE:
            raise ValueError(f"the attribute {name} is no text, or too long")
        try:
            content = base64.b64decode(text.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise ValueError(f"the attribute {name} is no base64") from None
        if len(content) > LARGEST_ATTRIBUTE or _base64(content) != text:
            raise ValueError(f"the attribute {name} is too long, or no base64 as it has to be")
        found.append((raw, content))
    return tuple(sorted(found))


def _with_stream(node: Node, found: dict[str, Any]) -> Node:
    size = _number(found, "s" if node.type == FILE else "z", stream.LARGEST_FILE)
    flat = found["r"]
    if not isinstance(flat, list) or len(flat) % 3:
        raise ValueError("runs are no triples")
    parts = iter(flat)
    runs = tuple(_run(*each) for each in zip(parts, parts, parts, strict=True))
    if wrong := stream.fault(runs, size):
        raise ValueError(wrong)
    return node._replace(size=size, runs=runs)


def _run(pack: object, first: object, entries: object) -> Run:
    if not isinstance(pack, str) or not 1 <= len(pack) <= 16 or pack.strip("0123456789abcdef"):
        raise ValueError(f"{pack!r:.40} is no number of a pack")
    run = Run(int(pack, 16), _whole(first), _whole(entries))
    if f"{run.pack:x}" != pack:
        raise ValueError(f"the number of a pack {pack} begins with zeros")
    if run.pack == ZEROS:
        if run.first or not 1 <= run.entries <= stream.blocks(stream.LARGEST_FILE):
            raise ValueError("a run of zeros is not one that can be")
    elif not 0 <= run.first < 1 << 32 or not 1 <= run.entries <= (1 << 32) - run.first:
        raise ValueError(f"{run.entries} entries of a pack from {run.first} on cannot be")
    return run
