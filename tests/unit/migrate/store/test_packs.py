"""What was put into packs comes out of them, byte for byte, or the file is named that does not have it."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from ocimig.migrate.store import head, packing, seal
from ocimig.migrate.store.blobs import BLOCK, LARGEST, Run
from ocimig.migrate.store.errors import FileMissing, FileShort, StoreDamaged
from ocimig.migrate.store.head import Head
from ocimig.migrate.store.packing import Compressors, Pack
from ocimig.migrate.store.packs import Packs, Piece
from ocimig.migrate.store.place import PACKS
from ocimig.migrate.store.seal import Aead, Plain, Sealer
from ocimig_testkit.places import Disk, MemoryPlace

_KEY = b"d" * 32
_SEALERS: dict[str, Sealer] = {
    "plain": Plain(), "aes": Aead(seal.AES, b"k" * 32), "chacha": Aead(seal.CHACHA, b"k" * 32),
}  # fmt: skip
_sealers = st.sampled_from(sorted(_SEALERS))
# lengths at the borders of pages, frames and of what a blob may be
_sizes = st.sampled_from([1, 2, 4095, 4096, 4097, 30_000, BLOCK - 1, BLOCK, BLOCK + 1, LARGEST])


class Counting(MemoryPlace):
    """Tells which parts of packs were read."""

    def __init__(self, disk: Disk | None = None) -> None:
        super().__init__(disk)
        self.reads: list[tuple[str, int, int]] = []

    def read(self, room: str, name: str, offset: int = 0, size: int = -1) -> bytes:
        """See Place."""
        self.reads.append((name, offset, size))
        return super().read(room, name, offset, size)


@contextmanager
def _pack(place: MemoryPlace, seals: Sealer, start: Head | None = None) -> Iterator[Pack]:
    with ThreadPoolExecutor(2) as threads:
        yield Pack(place, seals, threads, Compressors(1), start)


def _written(place: MemoryPlace, seals: Sealer, blobs: list[bytes]) -> int:
    with _pack(place, seals) as pack:
        for blob in blobs:
            pack.put(blob, blake3(blob, key=_KEY).digest())
        pack.close()
        return pack.number


def _blob(dice: random.Random, size: int) -> bytes:
    return dice.randbytes(size) if dice.random() < 0.5 else dice.randbytes(1) * size


@settings(max_examples=25, deadline=None)
@given(st.lists(_sizes, min_size=1, max_size=12), _sealers, st.integers(0, 99))
def test_blobs_come_back_in_any_order(sizes: list[int], how: str, seed: int) -> None:
    """Of every length that there may be, by themselves, in runs, and read as a restore reads them."""
    dice = random.Random(seed)
    place, seals = MemoryPlace(), _SEALERS[how]
    model = {}
    for _ in range(2):
        blobs = [_blob(dice, size) for size in sizes]
        number = _written(place, seals, blobs)
        model[number] = blobs
    packs = Packs(place, seals)
    for number, blobs in model.items():
        assert [bytes(each) for each in packs.blobs([Run(number, 0, len(blobs))])] == blobs
        assert all(frame.raw <= LARGEST for frame in packs.contents(number).frames)
    pieces, wanted, position = [], {}, 0
    for _ in range(12):
        number = dice.choice(sorted(model))
        first = dice.randrange(len(sizes))
        count = dice.randint(1, len(sizes) - first)
        data = b"".join(model[number][first : first + count])
        assert b"".join(packs.blobs([Run(number, first, count)])) == data
        assert packs.blob(number, first) == model[number][first]
        pieces.append(Piece(Run(number, first, count), position))
        wanted[position] = data
        position += len(data)
    found = bytearray(position)
    for at, part in packs.spread(pieces):
        found[at : at + len(part)] = part
    assert bytes(found) == b"".join(wanted.values())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(_sizes, st.integers(1, 40)), min_size=1, max_size=6), st.integers(0, 99))
def test_many_at_once_are_packed_as_one_by_one(groups: list[tuple[int, int]], seed: int) -> None:
    """It is a quicker way to the same file, whatever the lengths: frames hold no more, entries no less."""
    dice = random.Random(seed)
    blobs = [
        _blob(dice, size)
        for size, count in groups
        for _ in range(min(count, 1 + (1 << 18) // size))
    ]
    digests = [blake3(blob, key=_KEY).digest() for blob in blobs]
    place = MemoryPlace()
    one = _written(place, Plain(), blobs)
    with _pack(place, Plain()) as pack:
        assert pack.put_many(blobs, digests) == len(blobs)
        pack.close()
    packs = Packs(place, Plain())
    first, second = packs.contents(one), packs.contents(pack.number)
    assert (first.frames, first.sizes, first.digests) == (
        second.frames,
        second.sizes,
        second.digests,
    )
    assert [bytes(each) for each in packs.blobs([Run(pack.number, 0, len(blobs))])] == blobs


def test_a_full_pack_takes_no_more_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is for the next one; who asks is told how many that are."""
    monkeypatch.setattr(packing, "MOST", 20)
    blobs = [bytes([number]) * 4096 for number in range(100)]
    with _pack(MemoryPlace(), Plain()) as pack:
        assert pack.put_many(blobs, [blake3(blob).digest() for blob in blobs]) == 32
        assert pack.full
        pack.abandon()


@pytest.mark.parametrize("entries", [100, 5000])
def test_an_index_of_any_length_is_read(entries: int) -> None:
    """A small one comes with the end of the file, a large one by itself: no pack is read whole for it."""
    place = Counting()
    dice = random.Random(entries)
    blobs = [dice.randbytes(100) for _ in range(entries)]
    number = _written(place, Plain(), blobs)
    packs = Packs(place, Plain())
    assert packs.contents(number).entries == entries
    name = packs.name(number)
    assert sum(size for _, _, size in place.reads) <= place.size(PACKS, name) - 100 * entries + (
        32 << 10
    )
    assert packs.blob(number, entries - 1) == blobs[-1]


def test_spread_reads_and_expands_each_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of a process lie anywhere in a pack: read one by one, each frame would be read 16 times."""
    dice = random.Random(5)
    place = Counting()
    blobs = [dice.randbytes(4096) for _ in range(16 * 20)]
    number = _written(place, Plain(), blobs)
    packs = Packs(place, Plain())
    assert len(packs.contents(number).frames) == 20
    expanded: list[int] = []
    expand = Packs._expand

    def counted(self: Packs, opened: object, frame: int, stored: memoryview) -> bytes:
        expanded.append(frame)
        return expand(self, opened, frame, stored)  # type: ignore[arg-type]

    monkeypatch.setattr(Packs, "_expand", counted)
    place.reads.clear()
    order = [entry for entry in range(len(blobs)) if entry % 3]
    dice.shuffle(order)
    pieces = [Piece(Run(number, entry, 1), 4096 * entry) for entry in order]
    found = {at: bytes(part) for at, part in packs.spread(pieces)}
    assert found == {4096 * entry: blobs[entry] for entry in order}
    assert sorted(expanded) == list(range(20))
    assert len(place.reads) == 1  # they lie beside each other: one read of all


def test_frames_far_apart_are_not_read_through() -> None:
    """Two pages of a pack of 64 MiB cost two frames."""
    dice = random.Random(6)
    place = Counting()
    blobs = [dice.randbytes(4096) for _ in range(16 * 12)]
    number = _written(place, Plain(), blobs)
    packs = Packs(place, Plain())
    packs.contents(number)
    place.reads.clear()
    pieces = [Piece(Run(number, entry, 1), entry) for entry in (190, 1)]
    assert {at: bytes(part) for at, part in packs.spread(pieces)} == {1: blobs[1], 190: blobs[190]}
    assert sum(size for _, _, size in place.reads) < 200_000


def test_pages_are_sixteen_to_a_frame() -> None:
    """One page is read without many others."""
    place = MemoryPlace()
    number = _written(place, Plain(), [bytes([at]) * 4096 for at in range(40)])
    contents = Packs(place, Plain()).contents(number)
    assert [frame.blobs for frame in contents.frames] == [16, 16, 8]


def test_a_pack_has_room_for_a_blob_more_only_until_it_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By bytes, and by blobs: a million pages that shrink to nothing would be an index of gigabytes."""
    monkeypatch.setattr(packing, "MOST", 3)
    with _pack(MemoryPlace(), Plain()) as pack:
        for at in range(3):
            assert not pack.full
            pack.put(b"x", bytes([at]) * 32)
        assert pack.full
        pack.abandon()


@settings(max_examples=40, deadline=None)
@given(_sealers, st.integers(0, 1 << 30), st.integers(1, 255))
def test_a_changed_byte_is_damage_of_that_file_or_changes_nothing(
    how: str, at: int, flip: int
) -> None:
    """Wherever it is: whatever can still be read is right."""
    dice = random.Random(how)
    place, seals = MemoryPlace(), _SEALERS[how]
    blobs = [_blob(dice, size) for size in (1, 4096, 70_000, 4096, BLOCK, 9)]
    number = _written(place, seals, blobs)
    ((_, name),) = place.disk.names
    data = place.disk.names[PACKS, name].data
    data[at % len(data)] ^= flip
    packs = Packs(place, seals)
    for entry, blob in enumerate(blobs):
        try:
            assert packs.blob(number, entry) == blob
        except StoreDamaged as error:
            said = str(error)
            assert name in said


@pytest.mark.parametrize("how", sorted(_SEALERS))
def test_a_pack_that_was_cut_off_is_named(how: str) -> None:
    """At any length, the empty file among them."""
    place, seals = MemoryPlace(), _SEALERS[how]
    number = _written(place, seals, [b"a" * 4096, b"b" * 70_000])
    ((_, name),) = place.disk.names
    data = bytes(place.disk.names[PACKS, name].data)
    for size in range(0, len(data), 13):
        place.disk.names[PACKS, name].data = bytearray(data[:size])
        with pytest.raises(StoreDamaged) as raised:
            Packs(place, seals).blob(number, 0)
        assert name in str(raised.value)


@pytest.mark.parametrize("how", sorted(_SEALERS))
def test_packs_that_changed_places_are_named(how: str) -> None:
    """Each has its number inside, too; in a sealed store it is part of the key."""
    place, seals = MemoryPlace(), _SEALERS[how]
    numbers = [_written(place, seals, [bytes([at]) * 4096]) for at in (1, 2)]
    one, other = sorted(place.disk.names)
    names = place.disk.names
    names[one], names[other] = names[other], names[one]
    for number in numbers:
        with pytest.raises(StoreDamaged, match="its name is another pack's"):
            Packs(place, seals).blob(number, 0)


def test_frames_that_changed_places_are_refused() -> None:
    """Two frames of one length: the digest of each is in the index."""
    place = MemoryPlace()
    dice = random.Random(3)
    number = _written(place, Plain(), [dice.randbytes(BLOCK), dice.randbytes(BLOCK)])
    ((_, name),) = place.disk.names
    data = place.disk.names[PACKS, name].data
    first, second = slice(40, 40 + BLOCK), slice(40 + BLOCK, 40 + 2 * BLOCK)
    data[first], data[second] = data[second], data[first]
    with pytest.raises(StoreDamaged, match="frame 0 was changed"):
        Packs(place, Plain()).blob(number, 0)


def test_a_pack_of_another_kind_of_store_is_refused() -> None:
    """A pack that nobody sealed must not pass in a store that is."""
    place = MemoryPlace()
    number = _written(place, Plain(), [b"x"])
    with pytest.raises(StoreDamaged, match="not sealed as its store is"):
        Packs(place, _SEALERS["aes"]).blob(number, 0)


def test_what_is_not_there_is_said() -> None:
    """A pack, or entries of one: which file, and which entries."""
    place = MemoryPlace()
    number = _written(place, Plain(), [b"x", b"y"])
    packs = Packs(place, Plain())
    with pytest.raises(FileMissing, match=head.hexadecimal(number ^ 1)):
        packs.blob(number ^ 1, 0)
    for run in (Run(number, 2, 1), Run(number, 0, 3), Run(number, (1 << 32) - 1, 9)):
        with pytest.raises(StoreDamaged, match="does not have entries"):
            list(packs.blobs([run]))
    with pytest.raises(ValueError, match="zeros are in no pack"):
        list(packs.blobs([Run(0, 0, 1)]))


def _twin(place: MemoryPlace, number: int, kept: list[tuple[int, bytes]]) -> str:
    """A second file of a pack with these entries, as prune() writes one; its name."""
    with _pack(place, Plain(), Packs(place, Plain()).successor(number)) as pack:
        for _, blob in kept:
            pack.put(blob, blake3(blob, key=_KEY).digest())
        name, _ = pack.close([(entry, 1) for entry, _ in kept])
    return name


def test_of_two_files_of_a_pack_the_larger_is_read() -> None:
    """A crash of prune() left both: what it did not come to must still be there."""
    place = MemoryPlace()
    blobs = [b"a" * 5000, b"b" * 5000, b"c" * 5000]
    number = _written(place, Plain(), blobs)
    _twin(place, number, [(2, blobs[2])])
    packs = Packs(place, Plain())
    assert [packs.blob(number, entry) for entry in range(3)] == blobs


def test_of_two_files_of_a_pack_the_one_that_can_be_read_is_read() -> None:
    """Both were written whole; damage of one is no reason not to use the other."""
    place = MemoryPlace()
    blobs = [b"a" * 5000, b"b" * 5000]
    number = _written(place, Plain(), blobs)
    ((_, old),) = place.disk.names
    _twin(place, number, [(1, blobs[1])])
    place.disk.names[PACKS, old].data[-1] ^= 1
    packs = Packs(place, Plain())
    assert packs.blob(number, 1) == blobs[1]
    with pytest.raises(StoreDamaged, match="does not have entries"):
        packs.blob(number, 0)


def test_a_pack_that_was_compacted_meanwhile_is_read_anew() -> None:
    """By us or by another process: the old file is gone, its number is not."""
    place = MemoryPlace()
    blobs = [b"a" * 5000, b"b" * 5000]
    number = _written(place, Plain(), blobs)
    packs = Packs(place, Plain())
    assert packs.blob(number, 0) == blobs[0]
    ((_, old),) = place.disk.names
    _twin(place, number, [(1, blobs[1])])
    place.remove(PACKS, old)
    packs.refresh()
    assert packs.blob(number, 1) == blobs[1]
    assert packs.contents(number).entries == 1


def test_a_file_that_shrinks_while_it_is_open_is_said() -> None:
    """Nothing is made up for what is not there."""
    place = MemoryPlace()
    number = _written(place, Plain(), [random.Random(1).randbytes(BLOCK) for _ in range(3)])
    packs = Packs(place, Plain())
    packs.contents(number)
    ((_, name),) = place.disk.names
    del place.disk.names[PACKS, name].data[100:]
    with pytest.raises(FileShort, match=name):
        packs.blob(number, 2)


def test_what_is_wrong_with_a_pack_is_said_blob_by_blob() -> None:
    """Repair keeps what is sound: the frames beside a damaged one."""
    place = MemoryPlace()
    dice = random.Random(9)
    blobs = [dice.randbytes(BLOCK) for _ in range(3)]
    number = _written(place, Plain(), blobs)
    packs = Packs(place, Plain())
    assert packs.sound(number, _KEY) == (bytearray(b"\1\1\1"), [])
    ((_, name),) = place.disk.names
    place.disk.names[PACKS, name].data[40 + BLOCK + 5] ^= 1
    good, wrong = packs.sound(number, _KEY)
    assert good == bytearray(b"\1\0\1")
    assert len(wrong) == 1
    assert "frame 1" in wrong[0]
    good, wrong = Packs(place, Plain()).sound(number, b"e" * 32)
    assert good == bytearray(3)
    assert "blob 0 is another" in wrong[0]


def test_indexes_are_let_go_of_and_read_again() -> None:
    """Who reads a snapshot of a TiB would hold 10 GiB of them; what is read afterwards is the same."""
    dice = random.Random(5)
    place = Counting()
    blobs = [dice.randbytes(4096) for _ in range(20)]
    numbers = [_written(place, Plain(), blobs) for _ in range(3)]
    packs = Packs(place, Plain())
    for _ in range(2):
        for number in numbers:
            assert packs.blob(number, 7) == blobs[7]
        packs.rest(45)
        before = len(place.reads)
        packs.contents(numbers[2])
        packs.contents(numbers[1])
        assert len(place.reads) == before
        packs.contents(numbers[0])
        assert len(place.reads) > before
        packs.rest(0)
        assert len(packs._opened) == 1
