"""What the far side holds: exactly what came last, never more than it may, whoever sends it."""

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ocimig.migrate.errors import BrokenFrame
from ocimig.migrate.memory import frames
from ocimig.migrate.memory.frames import MOST_DATA, PRESENT, SAME, TOP, ZERO, Entry
from ocimig.migrate.memory.held import Held
from ocimig.migrate.memory.runs import PAGE, merge
from ocimig.migrate.wire import Frame

BASE = 0x7F0000000000  # where a mapping of a process may lie


@pytest.fixture
def held() -> Iterator[Held]:
    """An empty one, which may take 16 MiB."""
    made = Held(limit=16 << 20)
    yield made
    made.close()


def frame(entries: list[Entry], data: bytes = b"", *, space: str = "p1", **more: Any) -> Frame:
    """A frame of pages."""
    size = sum(end - start for start, end, kind in entries if kind == PRESENT)
    said = frames.header(space, len(entries), size, compressed=False) | more
    return Frame(frames.PAGES, said, frames.table(entries) + data)


def page(number: int, kind: int = PRESENT) -> Entry:
    """An entry for one page of the mapping at BASE."""
    return (BASE + number * PAGE, BASE + (number + 1) * PAGE, kind)


def letters(*which: str) -> bytes:
    """A page full of each letter."""
    return b"".join(letter.encode() * PAGE for letter in which)


def read(held: Held, number: int, space: str = "p1") -> bytes:
    """What is held of a page."""
    return os.pread(held.fd(space), PAGE, BASE + number * PAGE)


def test_what_came_last_is_held(held: Held) -> None:
    """A page can be written, written again, become zero and be written once more."""
    held.take(frame([page(1), page(3)], letters("a", "b")))
    held.take(frame([page(1)], letters("c")))
    held.take(frame([page(3, ZERO)]))
    assert read(held, 1) == letters("c")
    assert read(held, 3) == bytes(PAGE)
    assert held.runs("p1") == [page(1)[:2], page(3)[:2]]
    held.take(frame([page(3)], letters("d")))
    assert read(held, 3) == letters("d")


def test_pages_of_zeros_take_no_memory(held: Held) -> None:
    """They are held all the same."""
    held.take(frame([(BASE, BASE + (1 << 40), ZERO)]))
    assert held.bytes == 0
    assert held.covers("p1", [(BASE, BASE + PAGE)]) == []


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 30), st.sampled_from([PRESENT, ZERO])), max_size=8),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_pages_of_zeros_are_the_holes(written: list[tuple[list[tuple[int, int]], bool]]) -> None:
    """Whatever came in whichever order, and whenever somebody asked: what was not written since is a hole."""
    made = Held(limit=16 << 20)
    last: dict[int, int] = {}
    for entries, asked in written:
        kinds = dict(entries)
        last |= kinds
        for number, kind in sorted(kinds.items()):
            made.take(frame([page(number, kind)], letters("a") if kind == PRESENT else b""))
        if asked:
            made.zeros("p1")
    zeros = merge(page(number)[:2] for number, kind in last.items() if kind == ZERO)
    assert made.zeros("p1") == zeros
    for start, _ in zeros:
        assert os.pread(made.fd("p1"), PAGE, start) == bytes(PAGE)
    made.close()


def test_what_is_not_held_is_named(held: Held) -> None:
    """covers() says what is missing, of a known space and of an unknown one."""
    held.take(frame([page(1), page(2)], letters("a", "b")))
    wanted = [(BASE, BASE + 5 * PAGE)]
    assert held.covers("p1", wanted) == [page(0)[:2], (BASE + 3 * PAGE, BASE + 5 * PAGE)]
    assert held.covers("p2", wanted) == wanted


def test_a_forgotten_space_holds_nothing(held: Held) -> None:
    """Its descriptor is closed, and a new space of that name starts empty."""
    held.take(frame([page(1)], letters("a")))
    fd = held.fd("p1")
    held.forget("p1")
    assert held.runs("p1") == []
    assert held.bytes == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    held.take(frame([page(2)], letters("b")))
    assert held.runs("p1") == [page(2)[:2]]
    assert read(held, 1) == bytes(PAGE)


def test_a_question_is_answered_by_its_number(held: Held) -> None:
    """Frames of pages are not answered."""
    assert held.take(frame([page(1)], letters("a"))) is None
    assert held.take(Frame(frames.ASK, {"seq": 17})) == 17


def test_compressed_data_are_the_same_data(held: Held) -> None:
    """One zstandard frame for all PRESENT runs."""
    entries = [page(0), page(1, ZERO), page(2)]
    small = zstandard.ZstdCompressor().compress(letters("a", "b"))
    held.take(frame(entries, small, zstd=True))
    assert (read(held, 0), read(held, 1), read(held, 2)) == (
        letters("a"),
        bytes(PAGE),
        letters("b"),
    )


def compressed(data: bytes, **how: Any) -> bytes:
    """As zstandard frame."""
    return zstandard.ZstdCompressor(**how).compress(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zstandard",
        compressed(bytes(2 * PAGE)),
        compressed(bytes(PAGE - 1)),
        compressed(bytes(1 << 28)),
        compressed(bytes(PAGE), write_content_size=False),
        compressed(bytes(PAGE)) + b"more",
        compressed(os.urandom(PAGE))[:-9],
    ],
)
def test_compressed_data_of_another_size_are_refused(held: Held, data: bytes) -> None:
    """Also those that would unpack to a quarter of a gigabyte, and those that do not say."""
    with pytest.raises(BrokenFrame, match="compressed data"):
        held.take(frame([page(0)], data, zstd=True))
    assert held.runs("p1") == []


@pytest.mark.parametrize(
    "wrong",
    [
        frame([page(0)], letters("a"), space="../p1"),
        frame([page(0)], b"short"),
        frame([(TOP, TOP + PAGE, ZERO)]),
        Frame(frames.PAGES),
        Frame(frames.ASK, {"seq": "1"}),
        Frame("tree-begin", {"space": "p1"}),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(held: Held, wrong: Frame) -> None:
    """The peer is named, and nothing is held."""
    with pytest.raises(BrokenFrame, match="the source sent a frame"):
        held.take(wrong)
    assert held.spaces() == []


def fill(held: Held, first: int, last: int) -> None:
    """Data for the stretches of MOST_DATA bytes from one number to another."""
    data = os.urandom(MOST_DATA)
    for number in range(first, last):
        start = BASE + number * MOST_DATA
        held.take(frame([(start, start + MOST_DATA, PRESENT)], data))


def test_more_memory_than_allowed_is_refused(held: Held) -> None:
    """Rewriting what is there is not more."""
    fill(held, 0, 7)
    for _ in range(9):
        fill(held, 0, 1)
    with pytest.raises(BrokenFrame, match="more than 16777216 bytes"):
        fill(held, 7, 10)
    assert held.bytes <= 16 << 20


def test_more_runs_than_the_memory_has_pages_are_refused(held: Held) -> None:
    """Pages of zeros cost the peer nothing; a list of them costs us."""

    def scatter(first: int, last: int) -> None:
        for number in range(first, last, 4096):
            held.take(frame([page(2 * each, ZERO) for each in range(number, number + 4096)]))

    scatter(0, 4096)
    with pytest.raises(BrokenFrame, match="more runs than"):
        scatter(4096, 1 << 16)


def test_sameness_must_have_been_offered(held: Held) -> None:
    """And it is over once the page was overwritten."""
    with pytest.raises(BrokenFrame, match="never offered"):
        held.take(frame([page(0, SAME)]))
    with held.offer("p1") as (fd, offered):
        os.pwrite(fd, letters("a", "b"), BASE)
        offered.append((BASE, BASE + 2 * PAGE))
    assert held.runs("p1") == []
    held.take(frame([page(0, SAME)]))
    assert held.runs("p1") == [page(0)[:2]]
    assert read(held, 0) == letters("a")
    held.take(frame([page(1)], letters("c")))
    with pytest.raises(BrokenFrame, match="never offered"):
        held.take(frame([page(1, SAME)]))


steps = st.lists(
    st.tuples(
        st.sampled_from(["p1", "p2", "s5"]),
        st.lists(st.sampled_from([PRESENT, ZERO, None]), min_size=1, max_size=6),
        st.integers(0, 5),
        st.booleans(),
    ),
    max_size=12,
)


@given(steps)
def test_any_sequence_of_frames_leaves_what_the_last_ones_said(
    sequence: list[tuple[str, list[int | None], int, bool]],
) -> None:
    """Against a dictionary of pages."""
    held = Held(limit=16 << 20)
    model: dict[str, dict[int, bytes]] = {}
    for number, (space, kinds, first, pressed) in enumerate(sequence):
        entries = [page(first + at, kind) for at, kind in enumerate(kinds) if kind is not None]
        data = bytes([number + 1]) * PAGE * kinds.count(PRESENT)
        if pressed and data:
            held.take(frame(entries, compressed(data), space=space, zstd=True))
        else:
            held.take(frame(entries, data, space=space))
        for at, kind in enumerate(kinds):
            if kind is not None:
                content = bytes([number + 1]) * PAGE if kind == PRESENT else bytes(PAGE)
                model.setdefault(space, {})[first + at] = content
    for space, pages in model.items():
        assert held.runs(space) == merge(page(number)[:2] for number in pages)
        assert {number: read(held, number, space) for number in pages} == pages
    held.close()


def test_several_streams_at_once_lose_nothing(held: Held) -> None:
    """Four threads, one space: every page is held as its thread sent it."""

    def send(which: int) -> None:
        for number in range(which, 400, 4):
            held.take(frame([page(number)], bytes([which + 1]) * PAGE))

    threads = [threading.Thread(target=send, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held.runs("p1") == [(BASE, BASE + 400 * PAGE)]
    assert all(read(held, number) == bytes([number % 4 + 1]) * PAGE for number in range(400))
    assert held.bytes == 400 * PAGE


def test_a_space_can_be_forgotten_while_it_is_written(held: Held) -> None:
    """A broken peer may do it: nobody writes to a descriptor that has become somebody else's."""
    data = os.urandom(MOST_DATA)
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            held.take(frame([(BASE, BASE + MOST_DATA, PRESENT)], data))

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(200):
        held.forget("p1")
        fd = os.memfd_create("somebody else's")
        assert os.fstat(fd).st_size == 0
        os.close(fd)
    over.set()
    writer.join()
    held.forget("p1")
    assert held.bytes == 0
