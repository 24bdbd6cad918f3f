"""Which pages a space has and where they lie: a table of pages says the same, whatever came in which order."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocimig.migrate.store import segments
from ocimig.migrate.store.blobs import PAGE, ZEROS
from ocimig.migrate.store.segments import PAGES, SPAN, Piece, Space, decode, encode

_packs = st.sampled_from([ZEROS, 1, 77, (1 << 64) - 1])
# near the borders of three segments, and of the highest addresses there are
_pages = st.one_of(
    st.integers(0, 20),
    st.integers(PAGES - 8, PAGES + 8),
    st.integers(2 * PAGES - 8, 2 * PAGES + 3),
    st.integers((1 << 45) - 40, (1 << 45) - 20),
)
Places = dict[int, tuple[int, int]]  # of each page, by its number


class Put(NamedTuple):
    """Consecutive entries."""

    page: int
    pages: int
    pack: int
    first: int


class Set(NamedTuple):
    """Page by page."""

    page: int
    places: list[tuple[int, int]]


_acts = st.lists(
    st.one_of(
        st.builds(Put, _pages, st.integers(1, 12), _packs, st.integers(0, 1 << 31)),
        st.builds(
            Set, _pages, st.lists(st.tuples(_packs, st.integers(0, 5)), min_size=1, max_size=8)
        ),
    ),
    max_size=12,
)


def _done(acts: list[Put | Set]) -> tuple[Space, Places]:
    space, model = Space(), Places()
    for act in acts:
        if isinstance(act, Put):
            space.put(act.page * PAGE, act.pages, act.pack, act.first)
            places = [(act.pack, act.first + at) for at in range(act.pages)]
        else:
            space.set(act.page * PAGE, act.places)
            places = act.places
        for at, (pack, entry) in enumerate(places):
            model[act.page + at] = (pack, entry if pack else 0)
    return space, model


def _read(blobs: list[tuple[int, bytes]]) -> Places:
    found: Places = {}
    for number, blob in blobs:
        for piece in decode(number, blob):
            for at in range(piece.pages):
                page = piece.address // PAGE + at
                assert page not in found
                assert page // PAGES == number
                found[page] = (piece.pack, piece.first + at if piece.pack else 0)
    return found


def _runs(pages: set[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for page in sorted(pages):
        if found and found[-1][1] == page * PAGE:
            found[-1] = found[-1][0], (page + 1) * PAGE
        else:
            found.append((page * PAGE, (page + 1) * PAGE))
    return found


@settings(max_examples=200)
@given(_acts)
def test_a_space_is_what_was_put_last(acts: list[Put | Set]) -> None:
    """A page that was written again lies where it was put last, and nowhere else."""
    space, model = _done(acts)
    blobs = list(space.encode(_runs(set(model))))
    assert _read(blobs) == model
    assert [number for number, _ in blobs] == sorted({page // PAGES for page in model})


@given(_acts, st.data())
def test_only_the_pages_that_were_asked_for_are_in_it(
    acts: list[Put | Set], data: st.DataObject
) -> None:
    """What a process gave back since is in no snapshot."""
    space, model = _done(acts)
    if not model:
        return
    wanted = data.draw(st.sets(st.sampled_from(sorted(model))))
    found = _read(list(space.encode(_runs(wanted))))
    assert found == {page: place for page, place in model.items() if page in wanted}


@given(_acts, _pages)
def test_a_page_that_is_not_there_is_named(acts: list[Put | Set], page: int) -> None:
    """Never a snapshot with a hole where memory was: the error says which address."""
    space, model = _done(acts)
    if page in model:
        return
    with pytest.raises(KeyError) as raised:
        list(space.encode([(page * PAGE, (page + 1) * PAGE)]))
    assert raised.value.args == (page * PAGE,)


@given(_acts)
def test_the_same_pages_are_the_same_blob(acts: list[Put | Set]) -> None:
    """However they came: an unchanged segment costs nothing in the next snapshot."""
    space, model = _done(acts)
    runs = _runs(set(model))
    other = Space()
    for page in sorted(model):
        other.set(page * PAGE, [model[page]])
    pages = [(start, start + PAGE) for begin, end in runs for start in range(begin, end, PAGE)]
    assert list(other.encode(pages)) == list(space.encode(runs))


def test_a_space_that_forgot_has_nothing() -> None:
    """exec(2) makes another space of it."""
    space = Space()
    space.put(0, 3, 7, 1)
    space.forget()
    with pytest.raises(KeyError):
        list(space.encode([(0, PAGE)]))


def test_one_put_reaches_over_segments() -> None:
    """Entries go on where the segment ends."""
    space = Space()
    space.put((PAGES - 2) * PAGE, PAGES + 4, 9, 100)
    blobs = list(space.encode([((PAGES - 2) * PAGE, (2 * PAGES + 2) * PAGE)]))
    assert [decode(*each) for each in blobs] == [
        [Piece((PAGES - 2) * PAGE, 2, 9, 100)],
        [Piece(SPAN, PAGES, 9, 102)],
        [Piece(2 * SPAN, 2, 9, 102 + PAGES)],
    ]
    assert len(blobs[1][1]) == 8 + 8 + 10


@settings(max_examples=200)
@given(_acts, st.data())
def test_a_changed_segment_is_refused_or_says_what_it_changed(
    acts: list[Put | Set], data: st.DataObject
) -> None:
    """No other error than ValueError, and never a page that lies in two places."""
    space, model = _done(acts)
    for number, blob in space.encode(_runs(set(model))):
        changed = bytearray(blob)
        for _ in range(data.draw(st.integers(1, 3))):
            changed[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
        try:
            pieces = decode(number, changed)
        except ValueError:
            continue
        behind = number * SPAN
        for piece in pieces:
            assert behind <= piece.address
            behind = piece.address + piece.pages * PAGE
        assert behind <= (number + 1) * SPAN


@given(st.binary(max_size=200))
def test_any_bytes_are_a_segment_or_refused(blob: bytes) -> None:
    """In words."""
    try:
        pieces = decode(0, blob)
    except ValueError:
        return
    assert sum(piece.pages for piece in pieces) <= PAGES


@pytest.mark.parametrize(
    "pieces",
    [
        [Piece(PAGE, 2, 5, 0), Piece(2 * PAGE, 1, 5, 9)],
        [Piece(9 * PAGE, 1, 5, 0), Piece(PAGE, 1, 5, 9)],
        [Piece(0, 0, 5, 0)],
        [Piece((PAGES - 1) * PAGE, 2, 5, 0)],
    ],
)
def test_runs_that_cannot_be_are_refused(pieces: list[Piece]) -> None:
    """They overlap, are out of order, empty, or reach into the next segment."""
    with pytest.raises(ValueError, match="out of order"):
        decode(0, encode(pieces))


def test_a_table_that_promises_too_much_is_refused() -> None:
    """Before anything of its size is made."""
    for packs, runs in ((0, PAGES + 1), (2, 1), ((1 << 32) - 1, (1 << 32) - 1)):
        with pytest.raises(ValueError, match="more runs than pages"):
            decode(0, packs.to_bytes(4, "little") + runs.to_bytes(4, "little"))
    zero = (1).to_bytes(4, "little") * 2 + bytes(8) + bytes(10)
    with pytest.raises(ValueError, match="number 0"):
        decode(0, zero)
    assert segments.SPAN == 16 << 20
