"""Who puts many blobs at once is told where each of them lies, once, however packs begin and end meanwhile."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocimig.errors import NoSpace
from ocimig.migrate.store import packing
from ocimig.migrate.store.blobs import Run
from ocimig.migrate.store.packs import Packs
from ocimig.migrate.store.writer import Writer
from ocimig_testkit.shelves import shelf


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.integers(0, 120), max_size=90), min_size=1, max_size=4))
def test_every_blob_lies_where_it_is_said_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[list[int]]
) -> None:
    """Also one that comes twice in one call, and one that an earlier pack of the same snapshot has."""
    monkeypatch.setattr(packing, "MOST", 20)
    store = shelf(tmp_path)
    content = {number: random.Random(number).randbytes(4096) for number in range(121)}
    writer = store.writer()
    places: dict[int, tuple[int, int]] = {}
    for numbers in asked:
        blobs = [content[number] for number in numbers]
        said = writer.put_all(blobs, [writer.digest(blob) for blob in blobs])
        for number, place in zip(numbers, said, strict=True):
            assert places.setdefault(number, place) == place
    written = writer.finish()
    writer.close()
    assert written.blobs == len(places) == len(set(places.values()))
    assert written.blobs + written.known_blobs == sum(map(len, asked))
    assert written.raw_bytes == 4096 * len(places)
    packs = Packs(store.place, store.seals)
    for number, (pack, entry) in places.items():
        assert packs.blob(pack, entry) == content[number]
        assert list(packs.blobs([Run(pack, entry, 1)])) == [content[number]]


def test_what_cannot_be_written_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread writes: that the disk is full must not stay with it."""
    store = shelf(tmp_path)
    writer = store.writer()
    dice = random.Random(3)
    blobs = [dice.randbytes(4096) for _ in range(64)]
    places = writer.put_all(blobs, [writer.digest(blob) for blob in blobs])
    assert len(places) == 64
    assert writer._pack is not None

    def full(data: bytes) -> None:
        raise NoSpace(path="store")

    monkeypatch.setattr(writer._pack._making, "write", full)
    more = [dice.randbytes(4096) for _ in range(4096)]
    with pytest.raises(NoSpace):
        _put_and_finish(writer, more)
    writer.close()
    assert not Packs(store.place, store.seals).numbers()


def _put_and_finish(writer: Writer, blobs: list[bytes]) -> None:
    writer.put_all(blobs, [writer.digest(blob) for blob in blobs])
    writer.finish()
