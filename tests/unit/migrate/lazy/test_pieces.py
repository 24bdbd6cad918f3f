"""What an address space still lacks: taken, moved, given up, and never twice."""

from hypothesis import given
from hypothesis import strategies as st

from ocimig.migrate.lazy.pieces import Piece, Pieces

P = 4096


def _pieces(*runs: tuple[int, int]) -> Pieces:
    return Pieces(Piece(start * P, end * P, 0, start * P) for start, end in runs)


def _shown(pieces: Pieces) -> list[tuple[int, int, int]]:
    return [(piece.start // P, piece.end // P, piece.offset // P) for piece in pieces]


def test_a_page_is_found_by_its_address_and_a_hole_is_not() -> None:
    """Ends are exclusive."""
    pieces = _pieces((2, 4), (6, 7))
    found = [number for number in range(9) if pieces.find(number * P)]
    assert found == [2, 3, 6]


def test_what_is_cut_out_of_the_middle_leaves_both_ends() -> None:
    """And their bytes stay where they were in the file."""
    pieces = _pieces((2, 8))
    taken = pieces.cut(4 * P, 5 * P)
    assert [(piece.start // P, piece.offset // P) for piece in taken] == [(4, 4)]
    assert _shown(pieces) == [(2, 4, 2), (5, 8, 5)]


def test_a_cut_over_several_pieces_takes_what_is_there() -> None:
    """Holes between them are nothing."""
    pieces = _pieces((0, 2), (4, 6), (8, 10))
    assert sum(piece.end - piece.start for piece in pieces.cut(P, 9 * P)) == 4 * P
    assert _shown(pieces) == [(0, 1, 0), (9, 10, 9)]


def test_memory_that_was_moved_comes_from_where_it_lay() -> None:
    """mremap(2) changes the address, not the place in the file; what lay at the new address is gone."""
    pieces = _pieces((0, 4), (10, 12))
    pieces.move(P, 10 * P, 2 * P)
    assert _shown(pieces) == [(0, 1, 0), (3, 4, 3), (10, 12, 1)]


def test_a_copy_is_another_list() -> None:
    """A child that was forked takes its pages by itself."""
    pieces = _pieces((0, 4))
    child = pieces.copy()
    pieces.cut(0, 4 * P)
    assert not pieces
    assert child.bytes == 4 * P


_RUNS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 6)), max_size=12)
_DEEDS = st.lists(
    st.tuples(st.sampled_from(["cut", "move", "put back"]), st.integers(0, 66), st.integers(1, 9),
              st.integers(0, 66)),
    max_size=12,
)  # fmt: skip


@given(_RUNS, _DEEDS)
def test_pieces_are_what_a_table_of_pages_would_be(
    runs: list[tuple[int, int]], deeds: list[tuple[str, int, int, int]]
) -> None:
    """Every page is where a dictionary of single pages has it, whatever was done."""
    table = {page: page for start, length in runs for page in range(start, start + length)}
    pieces = Pieces(Piece(page * P, (page + 1) * P, 0, page * P) for page in table)
    for deed, start, length, to in deeds:
        inside = {page: table[page] for page in table if start <= page < start + length}
        if deed == "move":
            if not (to + length <= start or start + length <= to):
                continue  # mremap(2) refuses that
            pieces.move(start * P, to * P, length * P)
            table = {page: at for page, at in table.items()
                     if page not in inside and not to <= page < to + length}  # fmt: skip
            table |= {page + to - start: at for page, at in inside.items()}
        else:
            taken = pieces.cut(start * P, (start + length) * P)
            assert sum(piece.end - piece.start for piece in taken) == len(inside) * P
            if deed == "cut":
                table = {page: at for page, at in table.items() if page not in inside}
            else:
                pieces.put(taken)
    found = {
        page: (piece.offset + page * P - piece.start) // P
        for page in range(140)
        if (piece := pieces.find(page * P))
    }
    assert found == table
