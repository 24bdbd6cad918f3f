"""Trees in a store, looked at: every name of one, and what differs between two. Writes nothing.

Paths are relative, as Python has names of files; "" is the root. What is read is hostile until it was checked.
"""

import heapq
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ocimig.migrate.rootfs.paths import LONGEST
from ocimig.migrate.store import stream, tree
from ocimig.migrate.store.blobs import Origin, Run
from ocimig.migrate.store.errors import TreeDamaged
from ocimig.migrate.store.tree import Node

LONGEST_PATH = LONGEST + 1 + tree.LONGEST_NAME  # characters; what is deeper is an attack on memory


class Difference(NamedTuple):
    """A name that one of two trees does not have (None), or has otherwise."""

    path: str
    before: Node | None
    after: Node | None

    @property
    def content(self) -> bool:
        """Whether what is in a file, or a link's target, differs."""
        one, other = self.before, self.after
        if one is None or other is None or one.type != other.type:
            return True
        if one.type == tree.DIRECTORY:
            return False
        return (one.size, one.runs, one.target, one.device) != (
            other.size, other.runs, other.target, other.device,
        )  # fmt: skip


def inside(origin: Origin, path: str, node: Node) -> Iterator[tuple[str, Node]]:
    """What is in one directory, in the order of its names, each with its path. Bounded memory.

    Raises TreeDamaged, and what the origin does.
    """
    try:
        for below in tree.nodes(_parts(origin, node)):
            name = os.fsdecode(below.name)
            longer = f"{path}/{name}" if path else name
            if len(longer) > LONGEST_PATH:
                raise ValueError(f"a path in it is longer than {LONGEST_PATH} characters")
            yield longer, below
    except ValueError as error:
        raise TreeDamaged(path=path or "the root directory", reason=str(error)) from None


def _parts(origin: Origin, node: Node) -> Iterator[bytes]:
    at = 0
    for offset, data in stream.pieces(origin, node.runs, node.size):
        if offset != at:
            break
        at += len(data)
        yield bytes(data)
    if at != node.size:
        raise ValueError("there are zeros in it")


def walk(
    origin: Origin, root: Node, enter: Callable[[Node], bool] | None = None, path: str = ""
) -> Iterator[tuple[str, Node]]:
    """Every name of a tree, a directory before what is in it; not below directories that `enter` refuses.

    `path` is the one of the root, where it is below another.

    Raises TreeDamaged, and what the origin does.
    """
    yield path, root
    waiting = [(path, root)] if root.type == tree.DIRECTORY else []
    while waiting:
        path, node = waiting.pop()
        if enter is not None and not enter(node):
            continue
        found = []
        for below in inside(origin, path, node):
            yield below
            if below[1].type == tree.DIRECTORY:
                found.append(below)
        waiting += reversed(found)


def diff(origin: Origin, before: Node, after: Node) -> Iterator[Difference]:
    """What differs between two trees of one store; directories with one stream are not read.

    Of a directory that came or went, every name. Raises TreeDamaged, and what the origin does.
    """
    if _facts(before) != _facts(after):
        yield Difference("", before, after)
    waiting = [("", before, after)]
    while waiting:
        path, one, other = waiting.pop()
        if _stream(one) == _stream(other):
            continue
        found = []
        for below, left, right in _pairs(origin, path, one, other):
            if left is None or right is None or left.type != right.type:
                yield from _whole(origin, below, left, 0)
                yield from _whole(origin, below, right, 1)
                continue
            if _facts(left) != _facts(right):
                yield Difference(below, left, right)
            if left.type == tree.DIRECTORY:
                found.append((below, left, right))
        waiting += reversed(found)


def _pairs(
    origin: Origin, path: str, one: Node, other: Node
) -> Iterator[tuple[str, Node | None, Node | None]]:
    """The names of two directories, side by side."""
    sides = [((node, 0, name) for name, node in inside(origin, path, one)),
             ((node, 1, name) for name, node in inside(origin, path, other))]  # fmt: skip
    held: tuple[str, Node] | None = None
    for node, side, name in heapq.merge(*sides, key=lambda each: each[0].name):
        if side == 0:
            if held is not None:
                yield held[0], held[1], None
            held = name, node
        elif held is not None and held[1].name == node.name:
            yield name, held[1], node
            held = None
        else:
            if held is not None:
                yield held[0], held[1], None
                held = None
            yield name, None, node
    if held is not None:
        yield held[0], held[1], None


def _whole(origin: Origin, path: str, node: Node | None, side: int) -> Iterator[Difference]:
    if node is None:
        return
    for below, each in walk(origin, node, path=path):
        yield Difference(below, None, each) if side else Difference(below, each, None)


def _facts(node: Node) -> Node:
    """What makes a difference: not which names there are in a directory, nor which number a file has."""
    node = node._replace(link=min(node.link, 1))
    return node._replace(runs=(), size=0) if node.type == tree.DIRECTORY else node


def _stream(node: Node) -> tuple[int, tuple[Run, ...]]:
    return node.size, node.runs
