"""What makes the files of a store unreadable, and unforgeable, without its key. Never reads or writes a file."""

from typing import Protocol

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from ocimig.migrate.store.blobs import Data

NONE, AES, CHACHA = "none", "aes-256-gcm", "chacha20-poly1305"  # `sealed` of STORE
KEY = 32  # bytes of every key
OVERHEAD = 16  # bytes that sealing adds
LAST = (1 << 64) - 1  # the count of an index, and of the body of a snapshot

_OWN = slice(16, 40)  # of a head: number and salt, which no other file has
CIPHERS: dict[str, type[AESGCM | ChaCha20Poly1305]] = {AES: AESGCM, CHACHA: ChaCha20Poly1305}


class Heading(Protocol):
    """The head of a file of the store."""

    def bytes(self, magic: bytes) -> bytes:
        """Its 40 bytes, as they begin the file."""
        ...


class FileSeal(Protocol):
    """Seals the parts of one file. Any thread may call."""

    def seal(self, count: int, data: Data) -> bytes:
        """Under this count, 0 to LAST, which is used once in the life of the file."""
        ...

    def open(self, count: int, data: Data) -> bytes:
        """What was sealed. Raises ValueError where it was not sealed so, in this file, with this count."""
        ...


class Sealer(Protocol):
    """Seals the files of one store."""

    sealed: bool
    overhead: int  # bytes that each part grows by

    def of(self, head: Heading, magic: bytes) -> FileSeal:
        """For one file."""
        ...


def derive(master: bytes) -> tuple[bytes, bytes]:
    """The digest key and the data key of a store, from its master key; 32 bytes each."""
    return _derived("ocimig store 1 digests", master), _derived("ocimig store 1 data", master)


class Plain:
    """Of a store that is not sealed: everything stays as it is."""

    sealed = False
    overhead = 0

    def of(self, head: Heading, magic: bytes) -> FileSeal:
        """See Sealer."""
        return self

    def seal(self, count: int, data: Data) -> bytes:
        """See FileSeal."""
        return bytes(data)

    def open(self, count: int, data: Data) -> bytes:
        """See FileSeal: nothing is checked here, the digests in the file are."""
        return bytes(data)


class Aead:
    """A store that is sealed by `cipher`, AES or CHACHA, under its data key of 32 bytes."""

    sealed = True
    overhead = OVERHEAD

    def __init__(self, cipher: str, data_key: bytes) -> None:
        """Raises ValueError for a key of another length."""
        if len(data_key) != KEY:
            raise ValueError(f"a key has {KEY} bytes, not {len(data_key)}")
        self._cipher = CIPHERS[cipher]
        self._data_key = data_key

    def of(self, head: Heading, magic: bytes) -> FileSeal:
        """See Sealer."""
        about = head.bytes(magic)
        key = _derived("ocimig store 1 file", self._data_key + about[_OWN])
        return _AeadFile(self._cipher(key), about)


class _AeadFile:
    """One file: a key of its own, so that a count is nonce enough."""

    def __init__(self, cipher: AESGCM | ChaCha20Poly1305, about: bytes) -> None:
        self._cipher = cipher
        self._about = about

    def seal(self, count: int, data: Data) -> bytes:
        """See FileSeal."""
        return self._cipher.encrypt(_nonce(count), data, self._about)

    def open(self, count: int, data: Data) -> bytes:
        """See FileSeal."""
        try:
            return self._cipher.decrypt(_nonce(count), data, self._about)
        except InvalidTag:
            raise ValueError("it was not sealed with the key of this store, or not here") from None


def _nonce(count: int) -> bytes:
    return count.to_bytes(8, "little") + bytes(4)


def _derived(context: str, material: bytes) -> bytes:
    return blake3(material, derive_key_context=context).digest()
