"""Content of any length as runs of blocks, and back."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocimig.migrate.store import stream
from ocimig.migrate.store.blobs import BLOCK, PAGE, ZEROS, Data, Run
from ocimig_testkit.memory_store import PACK, MemoryStore


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A new file, open."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def _written(store: MemoryStore, stored: stream.Stored, path: Path) -> Path:
    with path.open("wb") as copy:
        stream.write_file(store, stored.runs, stored.size, copy.fileno())
    return path


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 4 * BLOCK), st.integers(1, BLOCK + 9), st.binary(max_size=3)),
        max_size=6,
    ),
    st.integers(0, 5 * BLOCK),
)
def test_a_file_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    writes: list[tuple[int, int, bytes]],
    size: int,
) -> None:
    """Whatever of it is data, zeros or holes, and wherever it ends."""
    base = tmp_path_factory.mktemp("stream")
    with (base / "here").open("w+b") as here:
        for offset, length, seed in writes:
            os.pwrite(here.fileno(), (seed * length)[:length], offset)
        os.ftruncate(here.fileno(), max(size, os.fstat(here.fileno()).st_size))
        size = os.fstat(here.fileno()).st_size
        store = MemoryStore(3)
        stored = stream.put_file(store, here.fileno(), size)
    data = (base / "here").read_bytes()
    assert stored.size == size
    assert stream.fault(stored.runs, size) == ""
    assert _written(store, stored, base / "there").read_bytes() == data
    assert stored.runs == stream.put_bytes(store, data)  # and bytes are stored as the file was


def test_a_hole_costs_nothing(file: int, tmp_path: Path) -> None:
    """Nor does an exabyte of it take time: a database's file is as long as it may become one day."""
    size = 1 << 43
    os.ftruncate(file, size)
    os.pwrite(file, b"x" * 10, size // 2 + 5)
    store = MemoryStore()
    stored = stream.put_file(store, file, size)
    middle = size // 2 // BLOCK
    rest = stream.blocks(size) - middle - 1
    assert stored.runs == (Run(ZEROS, 0, middle), Run(PACK, 0, 1), Run(ZEROS, 0, rest))
    assert stored.data == BLOCK
    there = _written(store, stored, tmp_path / "there")
    assert (there.stat().st_size, there.stat().st_blocks) == (size, PAGE // 512)


def test_zeros_that_were_written_are_a_hole(file: int) -> None:
    """They are in no pack; only the last block is shorter."""
    os.pwrite(file, bytes(2 * BLOCK + 7), 0)
    store = MemoryStore()
    stored = stream.put_file(store, file, 2 * BLOCK + 7)
    assert stored.runs == (Run(ZEROS, 0, 3),)
    assert not store.packs


def test_blocks_that_are_equal_are_one_blob_and_neighbours_one_run(file: int) -> None:
    """What a run is for."""
    os.pwrite(file, b"a" * BLOCK + b"b" * BLOCK + b"a" * BLOCK + b"b" * BLOCK + b"c", 0)
    store = MemoryStore()
    stored = stream.put_file(store, file, 4 * BLOCK + 1)
    assert stored.runs == (Run(PACK, 0, 2), Run(PACK, 0, 3))


def test_a_file_that_ends_early_is_as_long_as_it_is(file: int) -> None:
    """It was cut while it was read; whoever reads compares its times afterwards."""
    os.pwrite(file, b"a" * 100, 0)
    assert stream.put_file(MemoryStore(), file, 3 * BLOCK).size in (100, 3 * BLOCK)
    os.pwrite(file, b"a" * (BLOCK + 5), 0)
    stored = stream.put_file(MemoryStore(), file, BLOCK + 9)
    assert stored.size == BLOCK + 5


def test_a_part_of_a_file_is_a_stream_of_its_own(file: int) -> None:
    """Copies of many files lie in one, one behind the other."""
    os.pwrite(file, b"a" * BLOCK + b"b" * (BLOCK + 1), BLOCK)
    os.ftruncate(file, 8 * BLOCK)
    store = MemoryStore()
    stored = stream.put_file(store, file, BLOCK + 1, 2 * BLOCK)
    assert stored.size == BLOCK + 1
    whole = b"".join(bytes(data) for _, data in stream.pieces(store, stored.runs, stored.size))
    assert whole == b"b" * (BLOCK + 1)


@pytest.mark.parametrize(
    ("runs", "size", "words"),
    [
        ((Run(PACK, 0, 1),), BLOCK + 1, "1 blocks, its size of 65537 bytes needs 2"),
        ((Run(PACK, 0, 2),), 1, "needs 1"),
        ((Run(PACK, 0, 0),), 0, "empty"),
        ((Run(PACK, 0, -1), Run(ZEROS, 0, 2)), 1, "empty"),
        ((), -1, "size is -1"),
        ((Run(PACK, 0, 1),), 5, "its block 0 has 65536 bytes instead of 5"),
        ((Run(PACK, 1, 1),), 6, "its block 0 has 5 bytes instead of 6"),
        ((Run(PACK, 1, 2),), BLOCK + 6, "its block 0 has 5 bytes instead of 65536"),
        ((Run(PACK, 2, 1),), 6, "its block 0 has 0 bytes instead of 6"),
    ],
)
def test_runs_that_do_not_fit_their_size_are_refused(
    runs: tuple[Run, ...], size: int, words: str, file: int
) -> None:
    """They come from a store that may lie: a file must not become longer than it says."""
    store = MemoryStore()
    store.put(b"a" * BLOCK)
    store.put(b"12345")
    with pytest.raises(ValueError, match=words):
        stream.write_file(store, runs, size, file)


def test_reading_holds_one_block() -> None:
    """A file is larger than memory: nothing reads ahead of what is asked for."""
    asked = []

    class Slow(MemoryStore):
        def blobs(self, runs: object) -> Iterator[Data]:
            for number in range(1 << 40):
                asked.append(number)
                yield bytes(BLOCK)

    pieces = stream.pieces(Slow(), (Run(PACK, 0, 1 << 31),), BLOCK << 31)
    assert [next(pieces)[0] for _ in range(3)] == [0, BLOCK, 2 * BLOCK]
    assert len(asked) == 3
