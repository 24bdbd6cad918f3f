"""Where the pages to be served lie: what is a hole is known, and found without a search each time."""

import os

import pytest

from ocimig.migrate.lazy import fill
from ocimig.migrate.lazy.pieces import Piece
from ocimig.migrate.memory.runs import PAGE

START = 1 << 32  # where the pages are in the address space; in the file they begin at 0
Found = list[tuple[int, int, bool]]


def files_with(data: set[int], pages: int) -> tuple[fill.Files, Piece]:
    """A file with so many pages of which some have data, and the piece that is all of it."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    os.ftruncate(fd, pages * PAGE)
    for page in data:
        os.pwrite(fd, b"x", page * PAGE)
    files = fill.Files()
    whole = Piece(START, START + pages * PAGE, 0, 0)
    files.add(0, fd, [whole], punch=False)
    return files, whole


def shown(files: fill.Files, piece: Piece) -> Found:
    """Its parts in pages: first, end, whether it is a hole."""
    return [
        ((part.start - START) // PAGE, (part.end - START) // PAGE, hole)
        for part, hole in files.parts(piece)
    ]


def test_holes_are_told_from_data() -> None:
    """In order, and together they are the whole piece."""
    files, whole = files_with({1, 2, 5}, 8)
    assert shown(files, whole) == [
        (0, 1, True),
        (1, 3, False),
        (3, 5, True),
        (5, 6, False),
        (6, 8, True),
    ]


def test_a_part_of_a_piece_has_its_own_parts() -> None:
    """Wherever it begins and ends: in data, in a hole, at an edge."""
    files, whole = files_with({1, 2, 5}, 8)
    for first in range(8):
        for end in range(first + 1, 9):
            found = shown(files, whole.cut(START + first * PAGE, START + end * PAGE))
            told = {page: hole for begin, stop, hole in found for page in range(begin, stop)}
            assert told == {page: page not in {1, 2, 5} for page in range(first, end)}


def test_what_is_still_to_come_is_no_hole() -> None:
    """It has no data when the file is added, and must not become zeros."""
    files, whole = files_with({1}, 8)
    files.expect([whole.cut(START + 3 * PAGE, START + 5 * PAGE)])
    assert shown(files, whole) == [
        (0, 1, True),
        (1, 2, False),
        (2, 3, True),
        (3, 5, False),
        (5, 8, True),
    ]


def test_the_file_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search for the end of data goes through all of it: 50 ms a fault, on a busy machine."""
    files, whole = files_with({1, 2, 5}, 8)

    def never(*_: int) -> int:
        raise AssertionError("searched again")

    monkeypatch.setattr(fill, "_seek", never)
    assert len(shown(files, whole)) == 5
