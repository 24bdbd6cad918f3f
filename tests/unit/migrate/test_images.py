"""Images on their way: every byte arrives or the file is refused."""

import threading
from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate import images
from ocimig.migrate.errors import BrokenFrame
from ocimig.migrate.transport import memory
from ocimig.migrate.wire import Frame, Wire


def carry(source: Path, target: Path, *, limit: int = 1 << 30) -> images.Receiver:
    """Send one directory and receive it."""
    here, there = memory.pair()
    sender = threading.Thread(target=images.send, args=(Wire(here), str(source)))
    sender.start()
    receiver = images.Receiver(str(target), limit=limit, host="there")
    wire = Wire(there)
    try:
        while not receiver.done:
            receiver.handle(wire.receive(5))
    finally:
        receiver.close()
        there.close()
        sender.join(5)
        here.close()
    return receiver


def test_every_file_arrives(tmp_path: Path) -> None:
    """Empty, small, and larger than a chunk; digests and modes with them."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "empty.img").write_bytes(b"")
    (source / "core-1.img").write_bytes(b"registers")
    (source / "pages-1.img").write_bytes(bytes(range(256)) * 20000)
    (source / "link").symlink_to("/etc/passwd")
    receiver = carry(source, tmp_path / "target")
    names = ["core-1.img", "empty.img", "pages-1.img"]
    assert sorted(receiver.digests) == names
    for name in names:
        assert (tmp_path / "target" / name).read_bytes() == (source / name).read_bytes()
    assert receiver.bytes == 5120009
    assert images.paths(str(source))[-1] == "pages-1.img"


def begin(path: str = "a.img", size: int = 4) -> Frame:
    """The frame that begins a file."""
    return Frame("image", {"path": path, "size": size, "mode": 0o600})


DATA = Frame("image-data", {}, b"abcd")
DIGEST = "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"
END = Frame("image-end", {"sha256": DIGEST})


def take(tmp_path: Path, *frames: Frame) -> images.Receiver:
    """Hand frames to a receiver."""
    receiver = images.Receiver(str(tmp_path / "target"), limit=100, host="there")
    try:
        for frame in frames:
            receiver.handle(frame)
    finally:
        receiver.close()
    return receiver


def test_frames_in_order_make_a_file(tmp_path: Path) -> None:
    """The smallest image there is."""
    receiver = take(tmp_path, begin(), DATA, END, Frame("images-end", {"count": 1, "bytes": 4}))
    assert receiver.done
    assert receiver.digests == {"a.img": DIGEST}


BAD: list[tuple[str, list[Any]]] = [
    ("a changed byte", [begin(), Frame("image-data", {}, b"abcX"), END]),
    ("too short", [begin(), Frame("image-data", {}, b"abc"), END]),
    ("too long", [begin(), DATA, DATA]),
    ("more than announced", [begin(size=101)]),
    ("a negative size", [begin(size=-1)]),
    ("a path outside", [begin("../a.img")]),
    ("an absolute path", [begin("/a.img")]),
    ("an empty path", [begin("")]),
    ("a zero byte", [begin("a\0b")]),
    ("no header", [Frame("image")]),
    ("data without a file", [DATA]),
    ("an end without a file", [END]),
    ("a file in a file", [begin(), begin("b.img")]),
    ("a missing file", [begin(), DATA, END, Frame("images-end", {"count": 2})]),
    ("the end inside a file", [begin(), Frame("images-end", {"count": 0})]),
]


@pytest.mark.parametrize("frames", [frames for _, frames in BAD], ids=[name for name, _ in BAD])
def test_a_broken_conversation_is_refused(tmp_path: Path, frames: list[Frame]) -> None:
    """Nothing is taken that was not announced, and nothing outside the directory."""
    with pytest.raises(BrokenFrame):
        take(tmp_path, *frames)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_file_is_never_written_twice(tmp_path: Path) -> None:
    """A second file of one name is refused by the kernel."""
    with pytest.raises(FileExistsError):
        take(tmp_path, begin(), DATA, END, begin())
