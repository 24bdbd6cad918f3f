"""A snapshot says what it needs, as one file; what is hostile or damaged is refused in words."""

import json
import random
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ocimig.migrate.store import head, seal, snapshot
from ocimig.migrate.store.blobs import ZEROS, Run
from ocimig.migrate.store.head import Head
from ocimig.migrate.store.seal import LAST, Aead, Plain, Sealer
from ocimig.migrate.store.snapshot import Image, Snapshot, Tree, decode, read, write

_number = st.integers(1, (1 << 64) - 1)
_entry = st.integers(0, (1 << 32) - 1)
_text = st.text(max_size=12)
_seconds = st.floats(-1e11, 1e11)
_count = st.integers(0, (1 << 63) - 1)
_json = st.dictionaries(
    _text, st.recursive(st.none() | _text | st.integers(), st.lists), max_size=3
)
_runs = st.lists(
    st.one_of(
        st.builds(Run, _number, st.integers(0, 1 << 31), st.integers(1, 1 << 31)),
        st.builds(Run, st.just(ZEROS), st.just(0), st.integers(1, 1 << 32)),
    ),
    max_size=3,
).map(tuple)
_spaces = st.sampled_from(["p1", "p42", "s0", "s18446744073709551615"])
_segments = st.dictionaries(st.integers(0, (1 << 33) - 1), st.tuples(_number, _entry), max_size=4).map(
    lambda found: tuple((number, *found[number]) for number in sorted(found))
)  # fmt: skip
_root = {"n": "", "t": "d", "m": 493, "u": 0, "g": 0, "w": 1, "r": ["ff", 0, 1], "z": 70}
_snapshots = st.builds(
    Snapshot,
    id=_number.map(head.hexadecimal),
    container=_text,
    host=_text,
    time=_seconds,
    config=_json,
    manifest=_json,
    images=st.dictionaries(
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,20}", fullmatch=True),
        st.builds(Image, _count, _runs),
        max_size=3,
    ),
    spaces=st.dictionaries(_spaces, _segments, max_size=3),
    shared=st.dictionaries(_spaces, _count, max_size=3),
    trees=st.lists(
        st.builds(Tree, st.from_regex(r"[^/.\0]{1,12}", fullmatch=True), _text, st.just(_root)),
        max_size=2,
        unique_by=lambda tree: tree.name,
    ).map(tuple),
    labels=st.dictionaries(_text, _text, max_size=2),
    tags=st.lists(_text, max_size=2).map(tuple),
    hot=st.dictionaries(_text, st.lists(st.tuples(_count, _count), max_size=3), max_size=2),
    frozen_seconds=_seconds,
    seconds=_seconds,
    pages=_count,
    read_bytes=_count,
    stored_bytes=_count,
)
_SEALERS: dict[str, Sealer] = {
    "plain": Plain(), "aes": Aead(seal.AES, b"k" * 32), "chacha": Aead(seal.CHACHA, b"k" * 32),
}  # fmt: skip
_sealers = st.sampled_from(sorted(_SEALERS))


def _plain() -> Snapshot:
    return Snapshot(
        id="00000000000000ab", container="web", host="h", time=1.5, config={"a": [1]}, manifest={},
        images={"core-1.img": Image(70000, (Run(7, 0, 2),))},
        spaces={"p1": ((0, 7, 2), (5, 7, 3))}, shared={"s1": 4096},
        trees=(Tree("bundle", "/b", _root),), hot={"1": [(4096, 8192)]}, tags=("t",),
    )  # fmt: skip


@settings(max_examples=60)
@given(_snapshots, _sealers)
def test_a_snapshot_comes_back_as_it_was(there: Snapshot, how: str) -> None:
    """Sealed or not; the name that it gets is the only one that it is read under."""
    seals = _SEALERS[how]
    assert decode(there.encode()) == there
    start = Head(int(there.id, 16), bytes(16), seals.sealed)
    data = write(there, start, seals)
    name = head.name(start.number, head.digest_of(data), "snapshot")
    assert read(data, name, seals) == there


def test_everything_that_it_names_itself_is_in_its_runs() -> None:
    """What is missing there would be pruned away."""
    assert list(_plain().runs()) == [
        Run(7, 0, 2), Run(7, 2, 1), Run(7, 3, 1), Run(0xFF, 0, 1),
    ]  # fmt: skip


@given(st.binary(min_size=1, max_size=3), st.dictionaries(_text, _json, max_size=2))
def test_unknown_names_are_ignored(salt: bytes, more: dict[str, Any]) -> None:
    """A later version may say more of a snapshot than this one knows."""
    document = json.loads(_plain().encode())
    document.update({f"later-{salt.hex()}-{name}": value for name, value in more.items()})
    assert decode(json.dumps(document).encode()) == _plain()


def _damaged(document: Any, dice: random.Random) -> Any:
    """The document with one value somewhere in it replaced, taken away, or wrapped."""
    bad: list[Any] = [
        None, True, -1, 1 << 70, -(1 << 70), 1.5, "x", "", [], {}, [[]], {"a": 1}, 10**400, "\ud800",
        float("inf"), float("nan"), [1, 2, 3], [["g" * 16, 0, 1]], [[1, "0" * 16, 1]],
        [[5, "0" * 15 + "1", 0], [5, "0" * 15 + "1", 0]], "0" * 16, 1 << 33, [[0, "f" * 16, 1 << 32]],
    ]  # fmt: skip
    if isinstance(document, dict) and document and dice.random() < 0.85:
        name = dice.choice(sorted(document))
        if dice.random() < 0.2:
            return {key: value for key, value in document.items() if key != name}
        return {**document, name: _damaged(document[name], dice)}
    if isinstance(document, list) and document and dice.random() < 0.85:
        at = dice.randrange(len(document))
        return [*document[:at], _damaged(document[at], dice), *document[at + 1 :]]
    return dice.choice(bad)


@settings(max_examples=300)
@given(st.integers(0, 1 << 30))
def test_hostile_json_is_a_snapshot_or_refused(seed: int) -> None:
    """Wrong types, huge numbers, names that are missing: only ValueError, and what passes can be used."""
    dice = random.Random(seed)
    document = json.loads(_plain().encode())
    for _ in range(dice.randint(1, 3)):
        document = _damaged(document, dice)
    try:
        found = decode(json.dumps(document).encode())
    except ValueError:
        return
    assert decode(found.encode()) == found
    for run in found.runs():
        assert 0 <= run.pack < 1 << 64
        assert run.entries > 0
    assert all(isinstance(tag, str) for tag in found.tags)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"{}", b"\xff", b'{"version": 2}', b'{"version": "1"}', b'{"version": 1}',
        b"[" * 200_000, b'{"version": 1, "config": ' + b'{"a":' * 100_000, b'{"version":' + b"9" * 5000,
        b"\xff\xfe\x00", b"\x00" * 9,
    ],
)  # fmt: skip
def test_what_is_no_snapshot_is_refused_in_words(data: bytes) -> None:
    """Depth and digits beyond any stack or patience among them."""
    with pytest.raises(ValueError, match=r"\w"):
        decode(data)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("id",), "0" * 16), (("id",), "AB" * 8), (("time",), 1e300), (("time",), True),
        (("pages",), -1), (("pages",), 1.0), (("tags",), "tag"), (("tags",), {"tag": 1}),
        (("images", "../core"), {"size": 0, "runs": []}), (("images", ""), {"size": 0, "runs": []}),
        (("spaces", "p0"), []), (("spaces", "q1"), []), (("spaces", "p1"), [[1 << 33, "f" * 16, 0]]),
        (("spaces", "p1"), [[1, "f" * 16, 1 << 32]]), (("shared", "s1"), "4096"),
        (("hot", "1"), [[1, 2, 3]]), (("hot", "1"), ["12"]), (("trees",), [{"name": "b", "path": "/b"}]),
        *((("trees",), [{"name": name, "path": "/b", "root": _root}]) for name in ("", "..", "../b", "b\0")),
        (("trees",), [{"name": "b", "path": "/b", "root": _root}] * 2),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused(path: tuple[str, ...], value: Any) -> None:
    """Each by itself: a name that leads out of a directory, a number that no pack has…"""
    document = json.loads(_plain().encode())
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=r"\w"):
        decode(json.dumps(document).encode())


@pytest.mark.parametrize("how", sorted(_SEALERS))
def test_every_changed_byte_of_the_file_is_noticed(how: str) -> None:
    """One flip at each byte; and a file under another's name."""
    seals = _SEALERS[how]
    data = write(_plain(), Head(0xAB, b"s" * 16, seals.sealed), seals)
    name = head.name(0xAB, head.digest_of(data), "snapshot")
    dice = random.Random(1)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << dice.randrange(8)
        with pytest.raises(ValueError, match=r"\w"):
            read(bytes(changed), name, seals)
    for cut in range(0, len(data), 7):
        with pytest.raises(ValueError, match=r"\w"):
            read(data[:cut], name, seals)
    with pytest.raises(ValueError, match="another's"):
        read(data, head.name(0xAC, head.digest_of(data), "snapshot"), seals)


def test_who_makes_the_digest_fit_is_still_found_out() -> None:
    """In a sealed store nobody without the key can: the digest in a name needs none."""
    seals = _SEALERS["aes"]
    data = bytearray(write(_plain(), Head(0xAB, b"s" * 16, sealed=True), seals))
    for at in (8 + 8, 30, 50, len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 1
        number = int.from_bytes(changed[16:24], "little")
        name = head.name(number, head.digest_of(bytes(changed)), "snapshot")
        with pytest.raises(ValueError, match="not sealed with the key"):
            read(bytes(changed), name, seals)
    plain = write(_plain(), Head(0xAB, b"s" * 16, sealed=False), Plain())
    with pytest.raises(ValueError, match="not sealed as its store is"):
        read(plain, head.name(0xAB, head.digest_of(plain), "snapshot"), seals)


def test_a_small_file_does_not_become_gigabytes() -> None:
    """What a frame says of its size is believed up to 256 MiB, and no frame may keep it to itself."""
    for body in (
        zstandard.ZstdCompressor().compress(bytes(snapshot.LARGEST + 1)),
        zstandard.ZstdCompressor(write_content_size=False).compress(_plain().encode()),
        b"",
        b"no frame at all",
    ):
        start = Head(0xAB, bytes(16), sealed=False)
        data = start.bytes(head.SNAPSHOT) + Plain().seal(LAST, body)
        with pytest.raises(ValueError, match=r"too large|cannot be expanded"):
            read(data, head.name(0xAB, head.digest_of(data), "snapshot"), Plain())


def test_a_snapshot_under_another_head_is_refused() -> None:
    """Its number is in three places; they must be one."""
    start = Head(0xAC, bytes(16), sealed=False)
    data = write(_plain(), start, Plain())
    with pytest.raises(ValueError, match="another snapshot"):
        read(data, head.name(0xAC, head.digest_of(data), "snapshot"), Plain())
