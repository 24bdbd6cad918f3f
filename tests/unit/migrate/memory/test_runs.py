"""Arithmetic of runs against sets of pages, which cannot be wrong."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocimig.migrate.memory import runs
from ocimig.migrate.memory.runs import PAGE, Run

pages = st.frozensets(st.integers(0, 40))


def listed(numbers: frozenset[int]) -> list[Run]:
    """Runs of exactly these pages."""
    return runs.merge((number * PAGE, (number + 1) * PAGE) for number in numbers)


def numbers(of: list[Run]) -> frozenset[int]:
    """The pages of a list of runs, which must be one."""
    runs.check(of)
    return frozenset(page // PAGE for start, end in of for page in range(start, end, PAGE))


@given(pages, pages)
def test_two_lists_combine_as_their_pages_do(a: frozenset[int], b: frozenset[int]) -> None:
    """Union, intersection and difference are those of the sets, and their results are lists of runs."""
    assert numbers(listed(a)) == a
    assert numbers(runs.union(listed(a), listed(b))) == a | b
    assert numbers(runs.intersect(listed(a), listed(b))) == a & b
    assert numbers(runs.subtract(listed(a), listed(b))) == a - b
    assert runs.total(listed(a)) == len(a) * PAGE


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40))))
def test_ranges_in_any_order_become_runs(ranges: list[tuple[int, int]]) -> None:
    """Overlapping, touching, empty and backward ranges are all taken."""
    merged = runs.merge((start * PAGE, end * PAGE) for start, end in ranges)
    assert numbers(merged) == {page for start, end in ranges for page in range(start, end)}


@pytest.mark.parametrize(
    "wrong",
    [
        [(0, PAGE // 2)],
        [(1, PAGE)],
        [(PAGE, PAGE)],
        [(2 * PAGE, PAGE)],
        [(0, PAGE), (PAGE, 2 * PAGE)],
        [(PAGE, 2 * PAGE), (0, PAGE)],
        [(-PAGE, PAGE)],
    ],
)
def test_what_is_no_list_of_runs_is_named(wrong: list[Run]) -> None:
    """Unaligned, empty, backward, touching, unsorted, below zero."""
    with pytest.raises(ValueError, match="0x"):
        runs.check(wrong)


def test_a_hundred_thousand_single_pages_are_no_trouble() -> None:
    """Every second page against every third: linear, so far under a second; quadratic is minutes."""
    every_second = [(2 * i * PAGE, (2 * i + 1) * PAGE) for i in range(100_000)]
    every_third = [(3 * i * PAGE, (3 * i + 1) * PAGE) for i in range(100_000)]
    before = time.process_time()
    left = runs.subtract(every_second, every_third)
    both = runs.intersect(every_second, every_third)
    all_of = runs.union(every_second, every_third)
    assert time.process_time() - before < 2
    assert runs.union(left, both) == every_second
    assert runs.total(all_of) == runs.total(every_second) + runs.total(every_third) - runs.total(
        both
    )
