"""The first 40 bytes of a file and its name say which file it is, and nothing else passes for it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocimig.migrate.store import head
from ocimig.migrate.store.head import Head

_heads = st.builds(
    Head, st.integers(1, (1 << 64) - 1), st.binary(min_size=16, max_size=16), st.booleans()
)
_kinds = st.sampled_from(["pack", "snapshot"])


@given(_heads, st.sampled_from([head.PACK, head.SNAPSHOT]))
def test_a_head_is_laid_out_as_its_format_says(each: Head, magic: bytes) -> None:
    """Byte for byte what docs/formats/store.md has: others write readers by it."""
    data = each.bytes(magic)
    fields = struct.pack("<8sHHI", magic, 1, int(each.sealed), 0)
    assert data == fields + each.number.to_bytes(8, "little") + each.salt
    assert head.read(data + b"more", magic) == each


@given(_heads, st.integers(0, head.SIZE - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_another_file(each: Head, at: int, flip: int) -> None:
    """Nothing in a head is ignored: what is read back writes the very same bytes."""
    data = bytearray(each.bytes(head.PACK))
    data[at] ^= flip
    try:
        found = head.read(bytes(data), head.PACK)
    except ValueError:
        return
    assert found != each
    assert found.bytes(head.PACK) == bytes(data)


@given(st.binary(max_size=head.SIZE - 1))
def test_what_is_too_short_is_refused(data: bytes) -> None:
    """A file that was cut off is damage, not a crash of the reader."""
    with pytest.raises(ValueError, match="too short"):
        head.read(data, head.PACK)


def test_a_pack_is_no_snapshot() -> None:
    """Files that changed places are noticed by their first bytes."""
    with pytest.raises(ValueError, match="does not begin as one"):
        head.read(Head.new(sealed=False).bytes(head.PACK), head.SNAPSHOT)


def test_what_replaces_a_file_has_its_number_and_another_salt() -> None:
    """The salt makes the key of a sealed file: used twice, it would give two texts under one nonce."""
    first = Head.new(sealed=True)
    assert first.again().number == first.number
    assert first.again().sealed
    assert len({first.salt, *(first.again().salt for _ in range(50))}) == 51


@given(_heads, st.binary(max_size=50), _kinds)
def test_a_name_comes_back_as_number_and_digest(each: Head, data: bytes, kind: str) -> None:
    """And is one that a place takes: the directory of a pack is how its number begins."""
    name = head.name(each.number, head.digest_of(data), kind)
    assert head.parse(name, kind) == (each.number, head.digest_of(data).hex())
    assert name.startswith(head.hexadecimal(each.number))
    assert head.parse(name, "snapshot" if kind == "pack" else "pack") is None


@given(_heads, _kinds, st.integers(0, 48), st.characters(codec="utf-8"))
def test_what_is_almost_a_name_is_another_or_none(
    each: Head, kind: str, at: int, letter: str
) -> None:
    """Digits of other scripts, capitals and line ends are no names: int() would take some of them."""
    name = head.name(each.number, head.digest_of(b"x"), kind)
    changed = name[:at] + letter + name[at + 1 :]
    parsed = head.parse(changed, kind)
    if parsed is not None:
        assert f"{parsed[0]:016x}-{parsed[1]}.{kind}" == changed
    assert head.parse(name + "\n", kind) is None
    assert head.parse("0" * 16 + name[16:], kind) is None
