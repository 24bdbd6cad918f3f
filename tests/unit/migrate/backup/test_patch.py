"""What of a large file changed, block by block: the patched stream is the file."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocimig.migrate.backup.patch import Marked, Marking, changed, patched
from ocimig.migrate.store import stream
from ocimig.migrate.store.blobs import BLOCK
from ocimig_testkit.memory_store import MemoryStore

_writes = st.lists(
    st.tuples(
        st.integers(0, 6 * BLOCK),
        st.sampled_from([1, 7, BLOCK, 2 * BLOCK]),
        st.sampled_from([b"a", b"b", b"\0"]),
    ),
    max_size=5,
)
_sizes = st.sampled_from([0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK + 9, 9 * BLOCK])


def _write(fd: int, writes: list[tuple[int, int, bytes]]) -> None:
    for offset, length, letter in writes:
        os.pwrite(fd, letter * length, offset)


def _mark(store: MemoryStore, fd: int) -> Marked:
    marking = Marking(store)
    stored = stream.put_file(marking, fd, os.fstat(fd).st_size)
    return Marked(stored.runs, stored.size, bytes(marking.digests))


@settings(deadline=None, max_examples=150)
@given(_writes, _writes, _sizes, st.one_of(st.none(), _sizes), st.booleans())
def test_a_patched_stream_is_the_file_as_it_is(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[tuple[int, int, bytes]],
    then: list[tuple[int, int, bytes]],
    size: int,
    cut: int | None,
    anew: bool,
) -> None:
    """However it grew, shrank, was written to or got holes; and the same runs as if it were stored anew."""
    store = MemoryStore(3)
    with (tmp_path_factory.mktemp("patch") / "file").open("w+b", buffering=0) as file:
        _write(file.fileno(), first)
        os.ftruncate(file.fileno(), size)
        before = _mark(store, file.fileno())
        if anew:
            os.ftruncate(file.fileno(), 0)  # holes where data was
        _write(file.fileno(), then)
        if cut is not None:
            os.ftruncate(file.fileno(), cut)
        now = os.fstat(file.fileno()).st_size
        found = list(changed(file.fileno(), now, before))
        runs = patched(store, before, now, found)
        whole = stream.put_file(store, file.fileno(), now)
    assert stream.fault(runs, now) == ""
    assert runs == whole.runs


def test_only_what_changed_is_told(tmp_path: Path) -> None:
    """A database's file is large, and what was written to it in a second is not."""
    store = MemoryStore()
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(os.urandom(50 * BLOCK) + b"end")
        before = _mark(store, file.fileno())
        assert list(changed(file.fileno(), before.size, before)) == []
        os.pwrite(file.fileno(), b"!", 7 * BLOCK + 5)
        os.pwrite(file.fileno(), b"!", 50 * BLOCK + 5)
        found = list(changed(file.fileno(), 50 * BLOCK + 6, before))
    assert [(block, len(data)) for block, data in found] == [(7, BLOCK), (50, 6)]
