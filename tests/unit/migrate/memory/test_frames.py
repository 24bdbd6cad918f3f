"""Frames of pages: what goes in comes out, and no number of a broken peer gets through."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocimig.migrate.memory import frames, runs
from ocimig.migrate.memory.frames import MOST_DATA, PRESENT, SAME, TOP, ZERO, Entry
from ocimig.migrate.memory.runs import PAGE


def entries_of(kinds: list[int | None]) -> list[Entry]:
    """One page of each kind, one behind the other; None leaves a gap."""
    return [(at * PAGE, (at + 1) * PAGE, kind) for at, kind in enumerate(kinds) if kind is not None]


@given(st.lists(st.sampled_from([PRESENT, ZERO, SAME, None]), max_size=60))
def test_a_table_survives_the_journey(kinds: list[int | None]) -> None:
    """Entries, their kinds and the data are what was put in."""
    entries = entries_of(kinds)
    size = kinds.count(PRESENT) * PAGE
    data = bytes(range(256)) * (size // 256)
    said = frames.header("p7", len(entries), size, compressed=False)
    pages = frames.read(said, frames.table(entries) + data)
    assert (pages.space, pages.entries, pages.size) == ("p7", entries, size)
    assert bytes(pages.data) == data
    assert not pages.compressed


numbers = st.integers(-2, 2**64) | st.integers(-1, 40).map(lambda page: page * PAGE)
anything = st.none() | st.booleans() | numbers | st.text(max_size=8) | st.floats(allow_nan=False)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "space": st.sampled_from(["p1", "s0", "p0", "p-1", "p1/..", "x"]) | anything,
            "runs": st.integers(0, 4) | anything,
            "size": st.integers(0, 3).map(lambda page: page * PAGE) | anything,
            "zstd": anything,
        },
    ),
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9).map(lambda n: n * PAGE), max_size=8),
    st.integers(0, 3),
)
def test_whatever_comes_is_a_frame_or_a_reason(
    said: dict[str, Any], words: list[int], pages: int
) -> None:
    """Nothing but ValueError is raised, and what is let through keeps the rules."""
    payload = struct.pack(f"!{len(words)}Q", *words) + bytes(pages * PAGE)
    try:
        found = frames.read(said, payload)
    except ValueError:
        return
    runs.check(runs.merge((start, end) for start, end, _ in found.entries))
    present = sum(end - start for start, end, kind in found.entries if kind == PRESENT)
    assert present == found.size <= MOST_DATA
    assert all(0 <= start < end <= TOP and kind <= SAME for start, end, kind in found.entries)
    assert found.compressed or len(found.data) == found.size


GOOD = {"space": "p1", "runs": 1, "size": PAGE}


@pytest.mark.parametrize(
    ("change", "entries", "reason"),
    [
        ({"space": "p0"}, [(0, PAGE, 0)], "not a space"),
        ({"space": "p99999999999"}, [(0, PAGE, 0)], "not a space"),
        ({"space": f"s{2**64}"}, [(0, PAGE, 0)], "not a space"),
        ({"space": "p1\n"}, [(0, PAGE, 0)], "not a space"),
        ({"runs": 2}, [(0, PAGE, 0)], "data"),
        ({"runs": True}, [(0, PAGE, 0)], "runs is True"),
        ({"runs": -1}, [(0, PAGE, 0)], "runs is -1"),
        ({"size": 1 << 62}, [(0, PAGE, 0)], "size is"),
        ({"size": 0}, [(0, PAGE, 0)], "data"),
        ({"zstd": 1}, [(0, PAGE, 0)], "zstd is 1"),
        ({}, [(0, PAGE, 3)], "kind 3"),
        ({}, [(0, PAGE + 1, 0)], "no pages"),
        ({}, [(PAGE, PAGE, 0)], "empty"),
        ({}, [(2 * PAGE, PAGE, 0)], "out of order"),
        ({}, [(0, 2 * PAGE, 0)], "runs of"),
        ({}, [(0, PAGE, 1)], "runs of 0 bytes"),
        ({}, [(TOP, TOP + PAGE, 0)], "out of order or no pages"),
        ({}, [((1 << 64) - PAGE, PAGE, 0)], "empty"),
        ({"runs": 2}, [(PAGE, 2 * PAGE, 0), (0, PAGE, 1)], "out of order"),
        ({"runs": 2}, [(0, PAGE, 0), (0, PAGE, 1)], "out of order"),
    ],
)
def test_each_rule_is_kept_by_name(
    change: dict[str, Any], entries: list[Entry], reason: str
) -> None:
    """Names, counts, sizes, alignment, order, overlap, overflow."""
    payload = b"".join(struct.pack("!QQ", start | kind, end) for start, end, kind in entries)
    with pytest.raises(ValueError, match=reason):
        frames.read(GOOD | change, payload + bytes(PAGE))


@given(st.frozensets(st.integers(0, 60)))
def test_a_list_of_runs_survives_the_journey(pages: frozenset[int]) -> None:
    """Also the empty one."""
    listed = runs.merge((page * PAGE, (page + 1) * PAGE) for page in pages)
    assert frames.unpack_runs(frames.pack_runs(listed)) == listed


@pytest.mark.parametrize("raw", [bytes(15), bytes(16), frames.pack_runs([(0, TOP + PAGE)])])
def test_a_list_of_runs_that_is_none_is_refused(raw: bytes) -> None:
    """Cut short, empty, beyond every address."""
    with pytest.raises(ValueError, match="run|empty"):
        frames.unpack_runs(raw)
