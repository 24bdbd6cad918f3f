"""One bit that changed, anywhere in a store, is found: by `verify` with all data, before a restore needs it.

A thousand bits, others each time.
"""

import random
from pathlib import Path

import pytest

from ocimig.errors import OcimigError
from ocimig.migrate.store import keys, seal, verify
from ocimig.migrate.store.place import KEYS, TOP
from ocimig.migrate.store.secret import PASSPHRASE, Secret
from ocimig.migrate.store.store import Store
from ocimig_testkit.places import MemoryPlace
from ocimig_testkit.shelves import check, shelf, some, take

_COST = keys.Cost
FLIPS = 1000


def _problems(place: MemoryPlace, secret: Secret | None, cache: Path) -> list[str]:
    """What who opens the store and verifies it is told."""
    try:
        store = Store.open(place, secret, cache=str(cache))
        return verify.verify(store, read_data=1.0, tell=lambda _: None).problems
    except OcimigError as error:
        return [str(error)]


@pytest.fixture(params=["none", "aes-256-gcm"])
def made(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[MemoryPlace, Secret | None]:
    """A store with three snapshots, and what opens it."""
    place, secret = MemoryPlace(), None
    if request.param != seal.NONE:
        # scrypt as it is meant takes half a second each time
        cheap = keys.Cost(1 << 4, 8, 1)
        monkeypatch.setattr(keys, "Cost", lambda *about: _COST(*about) if about else cheap)
        secret = Secret(PASSPHRASE, b"secret", "a test")
    store = Store.init(place, secret, sealed=request.param, cache=str(tmp_path))
    dice = random.Random(1)
    content = {}
    for _ in range(3):
        each = some(dice)
        content[take(store, each).id] = each
    check(store, content)
    return place, secret


def test_every_flipped_bit_is_found(
    made: tuple[MemoryPlace, Secret | None], tmp_path: Path
) -> None:
    """In any file, small ones as often as large ones; and the file is named."""
    place, secret = made
    assert _problems(place, secret, tmp_path) == []
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    files = sorted(place.disk.names)
    assert len(files) >= 7
    for turn in range(FLIPS):
        room, name = files[turn % len(files)]
        data = place.disk.names[room, name].data
        bit = dice.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        found = _problems(place, secret, tmp_path)
        data[bit // 8] ^= 1 << bit % 8
        where = f"bit {bit} of {room}/{name} of {len(data)} bytes (seed {seed})"
        assert found, f"nobody noticed {where}"
        if room not in (TOP, KEYS):
            assert any(name in problem for problem in found), f"{where}: {found}"
    assert _problems(place, secret, tmp_path) == []


def test_every_file_that_is_missing_or_cut_off_is_found(
    made: tuple[MemoryPlace, Secret | None], tmp_path: Path
) -> None:
    """But for a snapshot that is not there: nothing says that there was one."""
    place, secret = made
    for key in sorted(place.disk.names):
        node = place.disk.names.pop(key)
        if key[0] != "snapshots":
            assert _problems(place, secret, tmp_path), f"{key} is not missed"
        place.disk.names[key] = node
        whole = bytes(node.data)
        # without the line's end, STORE says the same
        for size in (0, 1, len(whole) // 2, len(whole) - 1 - (key[0] == TOP)):
            node.data = bytearray(whole[:size])
            assert _problems(place, secret, tmp_path), f"{key} of {size} bytes is taken as it is"
        node.data = bytearray(whole + b"x")
        assert _problems(place, secret, tmp_path), f"{key} with more behind is taken as it is"
        node.data = bytearray(whole)
    assert _problems(place, secret, tmp_path) == []


def test_a_part_of_the_data_is_never_none_of_it(tmp_path: Path) -> None:
    """Five in a hundred of three packs is one pack: a check that never reads anything finds nothing."""
    store = shelf(tmp_path)
    dice = random.Random(1)
    for _ in range(3):
        take(store, some(dice))
    read = [
        verify.verify(store, read_data=part, tell=lambda _: None).read_packs
        for part in (0.0, 0.05, 0.34, 1.0)
    ]
    assert read == [0, 1, 2, 3]
