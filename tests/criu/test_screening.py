"""CRIU's images as somebody else may have made them: refused before CRIU, which is root, reads them."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocimig.criu_images import binary, entries
from ocimig.criu_images.errors import BadImage
from ocimig.criu_images.screening import screen

pytestmark = pytest.mark.criu
HEAD = struct.pack("<II", 0x54564319, 0x50273030)
Write = Callable[..., None]


def message(module: str, name: str) -> Any:
    """An empty message of CRIU's."""
    return getattr(binary.image_messages(binary.find(), module), name)()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two processes: the second is the first one's child."""
    family(tmp_path, (1, 0), (7, 1))
    core(tmp_path, 1, 1 << 5, 2)
    core(tmp_path, 7, 1 << 5, 2)
    return tmp_path


def family(place: Path, *pairs: tuple[int, int]) -> None:
    """pstree.img of (pid, parent)."""
    packed = []
    for pid, parent in pairs:
        entry = message("pstree_pb2", "pstree_entry")
        entry.pid, entry.ppid, entry.pgid, entry.sid = pid, parent, 1, 1
        packed.append(entry.SerializeToString())
    entries.write(str(place / "pstree.img"), HEAD, packed)


def core(place: Path, pid: int, capabilities: int, mode: int) -> None:
    """core-PID.img of one thread with these capabilities and that mode of seccomp."""
    entry = message("core_pb2", "core_entry")
    entry.mtype = 1
    thread = entry.thread_core
    thread.futex_rla, thread.futex_rla_len, thread.seccomp_mode = 0, 0, mode
    thread.creds.cap_bnd.extend([capabilities & 0xFFFFFFFF, capabilities >> 32])
    for name in ("uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid", "secbits"):
        setattr(thread.creds, name, 0)
    entries.write(str(place / f"core-{pid}.img"), HEAD, [entry.SerializePartialToString()])


def look(place: Path) -> Any:
    """As an import does."""
    return screen(str(place), binary.find())


def test_what_the_processes_may_do_is_read_from_the_images(images: Path) -> None:
    """Every capability of every thread, and who has no filter."""
    found = look(images)
    assert (found.tasks, found.capabilities, found.unfiltered) == (2, {5}, 0)
    core(images, 7, 1 << 38 | 1 << 21, 0)
    found = look(images)
    assert (found.capabilities, found.unfiltered) == ({5, 21, 38}, 1)


@pytest.mark.parametrize(
    "pairs",
    [
        ((1, 0), (2, 3), (3, 2)),
        ((1, 0), (1, 0)),
        ((1, 0), (7, 99)),
        ((1, 0), (7, 7)),
        ((0, 0),),
        (),
    ],
    ids=["ring", "twice", "nobody's", "own", "zero", "none"],
)
def test_a_tree_that_cannot_be_is_refused(images: Path, pairs: tuple[tuple[int, int], ...]) -> None:
    """Parents that lead in a circle, or nowhere."""
    family(images, *pairs)
    with pytest.raises(BadImage):
        look(images)


@pytest.mark.parametrize("cut", [0, 3, 7, 9, 11, 20])
def test_a_torn_image_is_refused(images: Path, cut: int) -> None:
    """Wherever it ends."""
    path = images / "core-1.img"
    path.write_bytes(path.read_bytes()[:cut])
    if cut == 0:
        path.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(BadImage):
        look(images)


def test_an_entry_of_four_gigabytes_is_refused(images: Path) -> None:
    """Before room is made for it."""
    (images / "mm-1.img").write_bytes(HEAD + struct.pack("<I", 0xFFFFFFF0) + b"x" * 100)
    with pytest.raises(BadImage, match="middle of an entry"):
        look(images)


def test_a_link_or_an_odd_name_is_no_image(images: Path) -> None:
    """Names become arguments and paths."""
    (images / "mm-1.img").symlink_to("/etc/passwd")
    with pytest.raises(BadImage, match="no image"):
        look(images)
    (images / "mm-1.img").unlink()
    (images / "a b.img").write_bytes(HEAD)
    with pytest.raises(BadImage, match="no image"):
        look(images)
