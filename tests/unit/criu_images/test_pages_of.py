"""Where pages are: here, in a parent, elsewhere; and what a hostile list of them cannot do."""

import os
from pathlib import Path

import pytest

from ocimig.criu_images.errors import BadImage
from ocimig.criu_images.opened import ImageDirectory
from ocimig.criu_images.pages import ELSEWHERE, LOST, SAVED, Space
from ocimig_testkit.images import LAZY, PAGE, PARENT, PRESENT, Checkpoint, Run, write_pagemap

A = 0x10000


def _chain(tmp_path: Path, *lists: list[Run]) -> list[Checkpoint]:
    """Checkpoints one based on the other, the last one first."""
    found = []
    for number, runs in enumerate(lists):
        checkpoint = Checkpoint(tmp_path / f"c{number}")
        checkpoint.memory(1, runs, [])
        if number + 1 < len(lists):
            os.symlink(f"../c{number + 1}", checkpoint.path / "parent")
        found.append(checkpoint)
    return found


def _where(checkpoint: Checkpoint) -> list[tuple[int, int, str, bool]]:
    with (
        ImageDirectory(str(checkpoint.path)) as directory,
        Space(directory, "pagemap-1.img") as space,
    ):
        return [(p.start, p.end, p.where, p.inherited) for p in space.pieces()]


def test_a_page_is_found_in_the_parent_that_has_it(tmp_path: Path) -> None:
    """Also in the parent's parent, and with the bytes it has there."""
    first, second, third = _chain(
        tmp_path,
        [(A, 1, PRESENT), (A + PAGE, 3, PARENT)],
        [(A, 2, PRESENT), (A + 2 * PAGE, 2, PARENT)],
        [(A, 8, PRESENT)],
    )
    for number, checkpoint in enumerate((first, second, third)):
        size = (checkpoint.path / "pages-1.img").stat().st_size
        for at in range(0, size, PAGE):
            checkpoint.fill(1, at, bytes([number * 16 + at // PAGE]) * PAGE)
    with ImageDirectory(str(first.path)) as directory, Space(directory, "pagemap-1.img") as space:
        data = b"".join(data for piece in space.pieces() for _, data in piece.blocks())
    assert [data[at] for at in range(0, 4 * PAGE, PAGE)] == [0x00, 0x11, 0x22, 0x23]


def test_what_no_parent_has_is_lost_and_what_was_left_out_is_elsewhere(tmp_path: Path) -> None:
    """Nobody may take such a page for zeros."""
    first, _ = _chain(
        tmp_path,
        [(A, 4, PARENT), (A + 8 * PAGE, 1, LAZY), (A + 9 * PAGE, 1, LAZY | PRESENT)],
        [(A + PAGE, 1, PRESENT), (A + 2 * PAGE, 1, LAZY)],
    )
    assert _where(first) == [
        (A, A + PAGE, LOST, True),
        (A + PAGE, A + 2 * PAGE, SAVED, True),
        (A + 2 * PAGE, A + 3 * PAGE, ELSEWHERE, True),
        (A + 3 * PAGE, A + 4 * PAGE, LOST, True),
        (A + 8 * PAGE, A + 9 * PAGE, ELSEWHERE, False),
        (A + 9 * PAGE, A + 10 * PAGE, SAVED, False),
    ]


@pytest.mark.parametrize(
    "runs",
    [
        [(A, 2, PRESENT), (A + PAGE, 1, PRESENT)],
        [(A, 1, PRESENT), (A - PAGE, 1, PRESENT)],
        [(A + 1, 1, PRESENT)],
        [(1 << 63, 1, PRESENT)],
        [(A, 1 << 60, PRESENT)],
    ],
)
def test_a_list_that_is_not_in_order_is_refused(tmp_path: Path, runs: list[Run]) -> None:
    """Twice the same page, backwards, half pages, addresses that do not exist."""
    checkpoint = Checkpoint(tmp_path / "c")
    write_pagemap(checkpoint.path / "pagemap-1.img", 1, runs)
    with pytest.raises(BadImage, match="not in order"):
        _where(checkpoint)


def test_pages_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    """What is missing is not zeros."""
    (checkpoint,) = _chain(tmp_path, [(A, 2, PRESENT)])
    os.truncate(checkpoint.path / "pages-1.img", PAGE)
    with (
        ImageDirectory(str(checkpoint.path)) as directory,
        Space(directory, "pagemap-1.img") as space,
    ):
        with pytest.raises(BadImage, match="shorter"):
            [data for piece in space.pieces() for data in piece.blocks()]


@pytest.mark.parametrize("link", ["/etc", "../../elsewhere", "../c1/../../x", "../link"])
def test_a_parent_that_leads_away_is_refused(tmp_path: Path, link: str) -> None:
    """A link in an image shows no file that its reader did not name."""
    place = tmp_path / "inner"
    checkpoint = Checkpoint(place / "c0")
    Checkpoint(tmp_path / "elsewhere")
    os.symlink("../elsewhere", place / "link")
    os.symlink(link, checkpoint.path / "parent")
    with ImageDirectory(str(checkpoint.path)) as directory, pytest.raises(BadImage):
        directory.parent()


def test_a_parent_further_away_can_be_allowed(tmp_path: Path) -> None:
    """By who asks, not by the image."""
    checkpoint = Checkpoint(tmp_path / "inner/c0")
    Checkpoint(tmp_path / "elsewhere")
    os.symlink("../../elsewhere", checkpoint.path / "parent")
    with ImageDirectory(str(checkpoint.path), str(tmp_path)) as directory:
        found = directory.parent()
        assert found is not None
        assert found.path == str(tmp_path / "elsewhere")


def test_parents_that_form_a_ring_come_to_an_end(tmp_path: Path) -> None:
    """An error, neither a hang nor too deep a recursion."""
    first, second = _chain(tmp_path, [(A, 1, PARENT)], [(A, 1, PARENT)])
    os.symlink("../c0", second.path / "parent")
    with pytest.raises(BadImage, match="ring"):
        _where(first)


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    """A link could lead anywhere, and a fifo would wait for ever."""
    checkpoint = Checkpoint(tmp_path / "c")
    path = checkpoint.path / "pstree.img"
    os.rename(path, tmp_path / "other")
    if kind == "link":
        os.symlink(tmp_path / "other", path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with ImageDirectory(str(checkpoint.path)) as directory, pytest.raises(BadImage, match="pstree"):
        list(directory.records("pstree.img", "pstree"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "does not begin"),
        (b"\x19\x43\x56\x54\x30\x30\x27\x51", "does not begin"),
        (b"\x19\x43\x56\x54\x30\x30\x27\x50\x05\0\0", "middle"),
        (b"\x19\x43\x56\x54\x30\x30\x27\x50\x05\0\0\0ab", "middle"),
        (b"\x19\x43\x56\x54\x30\x30\x27\x50\xff\xff\xff\xff", "more than"),
    ],
)
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    """Its name and what is wrong are in the error; no length is believed."""
    checkpoint = Checkpoint(tmp_path / "c")
    (checkpoint.path / "pstree.img").write_bytes(data)
    with ImageDirectory(str(checkpoint.path)) as directory:
        with pytest.raises(BadImage, match=f"pstree.img.*{words}"):
            list(directory.records("pstree.img", "pstree"))
