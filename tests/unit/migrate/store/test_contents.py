"""The index of a pack: the same bytes for the same pack, and no others are believed."""

import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocimig.migrate.store import contents
from ocimig.migrate.store.blobs import LARGEST
from ocimig.migrate.store.contents import RAW, ZSTD, Contents, Frame, decode


@st.composite
def _contents(draw: st.DrawFn) -> Contents:
    groups = draw(
        st.lists(st.lists(st.integers(1, 5000), min_size=1, max_size=5), min_size=1, max_size=5)
    )
    frames = [
        Frame(
            draw(st.integers(1, 2 * LARGEST)), sum(sizes), len(sizes),
            draw(st.sampled_from([RAW, ZSTD])), draw(st.binary(min_size=12, max_size=12)),
        )
        for sizes in groups
    ]  # fmt: skip
    sizes = array("I", [size for group in groups for size in group])
    runs, left, first = [], len(sizes), 0
    while left:
        first += draw(st.integers(0, 9))
        count = draw(st.integers(1, left))
        runs.append((first, count))
        first, left = first + count, left - count
    return Contents(runs, frames, sizes, random.Random(len(sizes)).randbytes(32 * len(sizes)))


@given(_contents())
def test_an_index_comes_back_as_it_was(there: Contents) -> None:
    """Runs of numbers, frames, sizes and digests."""
    data = there.encode()
    found = decode(data, there.stored)
    assert found.runs == there.runs
    assert found.frames == there.frames
    assert found.sizes == there.sizes
    assert found.digests == there.digests
    assert found.encode() == data
    assert list(found.numbered()) == list(there.numbered())


@given(_contents())
def test_every_entry_is_found_where_it_is_and_no_other_is(there: Contents) -> None:
    """A pack that was compacted keeps the numbers of what it kept."""
    numbers = [first + at for first, count in there.runs for at in range(count)]
    for entry in range(numbers[-1] + 3):
        if entry in numbers:
            position = there.position(entry)
            assert position == numbers.index(entry)
            frame = there.frame_of(position)
            assert there.offsets[frame] <= position < there.offsets[frame + 1]
        else:
            with pytest.raises(KeyError):
                there.position(entry)
    for first in range(numbers[-1] + 3):
        for count in (1, 2, 3):
            if any(
                begin <= first and first + count <= begin + length for begin, length in there.runs
            ):
                assert there.positions(first, count) == there.position(first)
            else:
                with pytest.raises(KeyError):
                    there.positions(first, count)


def _small() -> Contents:
    frames = [Frame(10, 5, 2, RAW, b"a" * 12), Frame(7, 9, 1, ZSTD, b"b" * 12)]
    return Contents([(0, 2), (5, 1)], frames, array("I", [2, 3, 9]), bytes(range(96)))


def test_every_changed_byte_is_refused_or_says_what_it_changed() -> None:
    """All of them, each in every way: nothing in an index is there that does not count."""
    there = _small()
    data = there.encode()
    refused = 0
    for at in range(len(data)):
        for flip in range(1, 256):
            changed = bytearray(data)
            changed[at] ^= flip
            try:
                found = decode(bytes(changed), there.stored)
            except ValueError:
                refused += 1
                continue
            assert found.encode() == bytes(changed)
            assert found.stored == there.stored
    # only runs of numbers, codecs and digests have other values that can be
    free = len(there.digests) + 2 * 12 + 16 + 2 * 2
    assert refused > 255 * (len(data) - free) * 0.9


@given(_contents(), st.data())
def test_what_is_cut_off_or_longer_is_refused(there: Contents, data: st.DataObject) -> None:
    """The lengths fill it exactly: nothing is hidden behind an index."""
    raw = there.encode()
    with pytest.raises(ValueError, match=r"too short|do not fill it"):
        decode(raw[: data.draw(st.integers(0, len(raw) - 1))], there.stored)
    with pytest.raises(ValueError, match="do not fill it"):
        decode(raw + data.draw(st.binary(min_size=1, max_size=40)), there.stored)
    with pytest.raises(ValueError, match="do not fill it"):
        decode(raw, there.stored + 1)


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_in_words(data: bytes) -> None:
    """Never an IndexError, a MemoryError or a loop of hours."""
    with pytest.raises(ValueError, match=r"\w"):
        decode(data, 40)


@pytest.mark.parametrize(
    ("runs", "frames", "sizes"),
    [
        ([(0, 1), (0, 1)], [Frame(8, 8, 2, RAW, bytes(12))], [4, 4]),
        ([(4, 1), (0, 1)], [Frame(8, 8, 2, RAW, bytes(12))], [4, 4]),
        ([(0, 2), (9, 0)], [Frame(8, 8, 2, RAW, bytes(12))], [4, 4]),
        ([((1 << 32) - 1, 2)], [Frame(8, 8, 2, RAW, bytes(12))], [4, 4]),
        ([(0, 2)], [Frame(8, 8, 2, RAW, bytes(12))], [0, 8]),
        ([(0, 2)], [Frame(8, 8, 2, 2, bytes(12))], [4, 4]),
        ([(0, 1)], [Frame(8, LARGEST + 1, 1, ZSTD, bytes(12))], [LARGEST + 1]),
        ([(0, 1)], [Frame(0, 8, 1, ZSTD, bytes(12))], [8]),
        ([(0, 1)], [Frame(2 * LARGEST + 1, 8, 1, ZSTD, bytes(12))], [8]),
        ([(0, 1)], [Frame(8, 8, 0, RAW, bytes(12)), Frame(8, 8, 1, RAW, bytes(12))], [8]),
        ([(0, 1)], [Frame(8, 8, 2, RAW, bytes(12))], [8]),
    ],
)
def test_what_cannot_be_is_refused(
    runs: list[tuple[int, int]], frames: list[Frame], sizes: list[int]
) -> None:
    """Each of these could be written by somebody who means harm, and would be read with a wrong result."""
    there = Contents(runs, frames, array("I", sizes), bytes(32 * len(sizes)))
    with pytest.raises(ValueError, match=r"cannot be|order|do not have"):
        decode(there.encode(), there.stored)


def test_a_reserved_field_of_a_frame_is_zero() -> None:
    """Or it says something that this reader does not know."""
    data = bytearray(_small().encode())
    data[12 + 16 + 14] = 1
    with pytest.raises(ValueError, match="not one that is known"):
        decode(bytes(data), 17)


def test_more_entries_than_a_pack_may_have_are_not_counted() -> None:
    """A number of four bytes must not make a reader ask for gigabytes."""
    data = (0).to_bytes(4, "little") + (contents.MOST_ENTRIES + 1).to_bytes(4, "little") + bytes(4)
    with pytest.raises(ValueError, match="do not fill it"):
        decode(data, 0)
