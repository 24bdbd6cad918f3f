"""Sealing: what it gives back, what it refuses, and numbers that another program must come to as well."""

import pytest
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from ocimig.migrate.store import seal

MASTER = bytes(range(32))
MAGIC = b"\x89OCIPCK\n"
CIPHERS = (seal.AES, seal.CHACHA)


class Head:
    """A head as docs/formats/store.md has it."""

    def __init__(self, number: int = 1, salt: bytes = bytes(16), flags: int = 1) -> None:
        self.number = number
        self.salt = salt
        self.flags = flags

    def bytes(self, magic: bytes) -> bytes:
        """40 bytes."""
        about = (1).to_bytes(2, "little") + self.flags.to_bytes(2, "little") + bytes(4)
        return magic + about + self.number.to_bytes(8, "little") + self.salt


def opened(cipher: str, head: Head | None = None, magic: bytes = MAGIC) -> seal.FileSeal:
    """One file of a store with MASTER."""
    return seal.Aead(cipher, seal.derive(MASTER)[1]).of(head or Head(), magic)


def test_the_keys_are_those_of_the_description() -> None:
    """Found by hand from docs/formats/store.md, without the module: another reader must come to the same."""
    digests = blake3(MASTER, derive_key_context="ocimig store 1 digests").digest()
    data = blake3(MASTER, derive_key_context="ocimig store 1 data").digest()
    assert seal.derive(MASTER) == (digests, data)
    about = bytes.fromhex("894f43495043 4b0a 0100 0100 00000000 0100000000000000") + bytes(16)
    key = blake3(data + about[16:40], derive_key_context="ocimig store 1 file").digest()
    nonce = bytes.fromhex("0500000000000000 00000000")
    assert opened(seal.AES).seal(5, b"page") == AESGCM(key).encrypt(nonce, b"page", about)


def test_a_vector_stays_what_it_is() -> None:
    """A change of any step would make every store that exists unreadable."""
    assert seal.derive(MASTER)[0].hex() == VECTORS["digests"]
    for cipher in CIPHERS:
        assert opened(cipher).seal(0, b"page").hex() == VECTORS[cipher]


@pytest.mark.parametrize("cipher", [seal.NONE, *CIPHERS])
@given(data=st.binary(max_size=5000), count=st.integers(0, seal.LAST))
@settings(max_examples=30, deadline=None)
def test_what_is_sealed_opens_again(cipher: str, data: bytes, count: int) -> None:
    """And is longer by what the format says."""
    sealer: seal.Sealer = seal.Plain()
    if cipher != seal.NONE:
        sealer = seal.Aead(cipher, seal.derive(MASTER)[1])
    file = sealer.of(Head(), MAGIC)
    there = file.seal(count, memoryview(data))
    assert len(there) == len(data) + sealer.overhead
    assert file.open(count, bytearray(there)) == data


@pytest.mark.parametrize("cipher", CIPHERS)
def test_no_bit_can_be_flipped(cipher: str) -> None:
    """Each bit of what lies on the disk counts, those of the tag too."""
    file = opened(cipher)
    there = file.seal(3, b"a page of somebody's memory")
    for bit in range(8 * len(there)):
        forged = bytearray(there)
        forged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="not sealed"):
            file.open(3, forged)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_a_frame_belongs_to_its_place(cipher: str) -> None:
    """Moved to another number, file, kind of file, or cut short, it is refused."""
    there = opened(cipher).seal(3, b"page")
    with pytest.raises(ValueError, match="not sealed"):
        opened(cipher).open(4, there)
    for other in (Head(2), Head(salt=b"1" * 16), Head(flags=0)):
        with pytest.raises(ValueError, match="not sealed"):
            opened(cipher, other).open(3, there)
    with pytest.raises(ValueError, match="not sealed"):
        opened(cipher, magic=b"\x89OCISNP\n").open(3, there)
    for length in range(len(there)):
        with pytest.raises(ValueError, match="not sealed"):
            opened(cipher).open(3, there[:length])


def test_the_same_page_is_never_the_same_bytes() -> None:
    """Who sees the store cannot tell which pages are alike."""
    file, other = opened(seal.AES), opened(seal.AES, Head(7))
    assert len({file.seal(0, b"page"), file.seal(1, b"page"), other.seal(0, b"page")}) == 3


def test_a_key_that_is_none_is_refused() -> None:
    """A derivation that went wrong must not seal anything."""
    with pytest.raises(ValueError, match="32 bytes"):
        seal.Aead(seal.AES, b"short")


def test_the_other_key_opens_nothing() -> None:
    """The library's own answer is turned into words of ours."""
    there = opened(seal.AES).seal(0, b"page")
    with pytest.raises(InvalidTag):
        AESGCM(MASTER).decrypt(bytes(12), there, None)
    stranger = seal.Aead(seal.AES, seal.derive(bytes(32))[1]).of(Head(), MAGIC)
    with pytest.raises(ValueError, match="key of this store"):
        stranger.open(0, there)


VECTORS = {
    "digests": "771002457e1a869823e7108fb8ed2b6316a3666d1cebbc46fd7638b9a39fe4c7",
    seal.AES: "c25fa238514c85e11592e0d1611513c653127942",
    seal.CHACHA: "38386db8a4a01421b2356dfa217d3b9b5384ee51",
}
