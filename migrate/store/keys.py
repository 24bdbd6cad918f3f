"""Key slots: the master key of a store, each time under another passphrase or key file.

A slot is a file of the room KEYS and its name is its digest. docs/formats/store.md, section Sealing.
"""

import base64
import hashlib
import os
import time
from dataclasses import dataclass
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ocimig import jsonio, log
from ocimig.migrate.store import seal
from ocimig.migrate.store.errors import FileMissing, LastKey, StoreDamaged, WrongKey
from ocimig.migrate.store.place import KEYS, Place
from ocimig.migrate.store.seal import KEY
from ocimig.migrate.store.secret import FILE, PASSPHRASE, Secret

VERSION = 1
SUFFIX = ".key"
LARGEST_SLOT = 1 << 14  # bytes
MOST_SLOTS = 64
MOST_MEMORY = 512 << 20  # bytes that scrypt may take because a slot says so
MOST_TURNS = 4  # `p` of scrypt
SALT = 16
_KDFS = {PASSPHRASE: "scrypt", FILE: "file"}


@dataclass(frozen=True, slots=True)
class Cost:
    """What scrypt takes: 128 * n * r bytes, p times one after the other. The usual one: 128 MiB."""

    n: int = 1 << 17
    r: int = 8
    p: int = 1

    def check(self) -> None:
        """Raises ValueError for what would cost more than a slot may cost, or is no cost of scrypt."""
        if self.n < 2 or self.n & (self.n - 1) or self.r < 1 or not 1 <= self.p <= MOST_TURNS:
            raise ValueError("the parameters of its scrypt are none")
        if 128 * self.n * self.r > MOST_MEMORY:
            raise ValueError(f"its scrypt would take {128 * self.n * self.r >> 20} MiB of memory")


@dataclass(frozen=True, slots=True)
class Slot:
    """One key slot. `cost` and `salt` are those of scrypt; with a key file there are none."""

    name: str
    kdf: str
    cost: Cost | None
    salt: bytes
    sealed: bytes
    created: float  # seconds since 1970
    comment: str

    @property
    def words(self) -> str:
        """What opens it."""
        return "a passphrase" if self.kdf == "scrypt" else "a key file"


def new_master() -> bytes:
    """A master key: 32 random bytes."""
    return os.urandom(KEY)


def slots(place: Place) -> list[Slot]:
    """Every slot that can be read, by its name; a damaged one is a warning, it must not shut out the rest.

    Raises StoreDamaged where there are more than MOST_SLOTS: each of them may cost half a second.
    """
    names = sorted(name for name in place.names(KEYS) if name.endswith(SUFFIX))
    if len(names) > MOST_SLOTS:
        reason = f"there are {len(names)} key slots, more than {MOST_SLOTS}"
        raise StoreDamaged(place=place.words, file=KEYS, reason=reason)
    found = []
    for name in names:
        try:
            if place.size(KEYS, name) > LARGEST_SLOT:
                raise ValueError("it is too large for a key slot")
            found.append(decode(name, place.read(KEYS, name)))
        except FileMissing:  # removed by somebody else in this moment
            continue
        except ValueError as error:
            log.warning(f"{place.words}: {KEYS}/{name} is damaged and left out: {error}")
    return found


def add(
    place: Place,
    id: str,
    master: bytes,
    secret: Secret,
    *,
    comment: str = "",
    cost: Cost | None = None,
) -> str:
    """Make a slot that opens with `secret`, in the store with this id: its name."""
    if secret.kind == PASSPHRASE:
        cost = cost or Cost()
        cost.check()
        salt = os.urandom(SALT)
        about: dict[str, Any] = {"n": cost.n, "r": cost.r, "p": cost.p, "salt": _text(salt)}
    else:
        cost, salt, about = None, b"", {}
    nonce = os.urandom(12)
    sealed = nonce + AESGCM(_slot_key(secret, cost, salt)).encrypt(nonce, master, _bound(id))
    data = jsonio.dumps(
        {
            "version": VERSION,
            "kdf": _KDFS[secret.kind],
            **about,
            "sealed": _text(sealed),
            "created": round(time.time(), 3),
            "comment": comment,
        }
    ).encode()
    name = _name(data)
    with place.make(KEYS) as making:
        making.write(data)
        making.commit(name)
    return name


def unlock(place: Place, id: str, secret: Secret | None) -> tuple[bytes, str]:
    """The master key of the store with this id, and the name of the slot that `secret` opened.

    Raises WrongKey with what was tried on what.
    """
    found = slots(place)
    if not found:
        raise WrongKey(place=place.words, reason="it has no key slot that can be read")
    if secret is None:
        reason = f"it is sealed, and nothing was given; {_counted(found)} would do"
        raise WrongKey(place=place.words, reason=reason)
    fitting = [slot for slot in found if slot.kdf == _KDFS[secret.kind]]
    for slot in fitting:
        key = _slot_key(secret, slot.cost, slot.salt)
        try:
            master = AESGCM(key).decrypt(slot.sealed[:12], slot.sealed[12:], _bound(id))
        except InvalidTag:
            continue
        return master, slot.name
    reason = f"{secret.words} does not open it; {_counted(found)} would do"
    raise WrongKey(place=place.words, reason=reason)


def sealer_of(
    place: Place, id: str, sealed: str, secret: Secret | None
) -> tuple[seal.Sealer, bytes | None]:
    """What opens a store whose STORE says `id` and `sealed`, and its digest key; None where STORE has that.

    STORE is not sealed itself, so whoever can write it can claim that nothing is. With a secret given that
    is WrongKey: else forged snapshots would be read, and the next ones written for all to see. Raises
    ValueError for a `sealed` that is not known here.
    """
    if sealed == seal.NONE:
        if secret is not None:
            reason = f"it says that it is not sealed, but {secret.words} is given: was it replaced?"
            raise WrongKey(place=place.words, reason=reason)
        return seal.Plain(), None
    if sealed not in seal.CIPHERS:
        raise ValueError(f"it is sealed by {sealed!r}, which is not known here")
    digest_key, data_key = seal.derive(unlock(place, id, secret)[0])
    return seal.Aead(sealed, data_key), digest_key


def remove(place: Place, name: str) -> None:
    """Remove one slot, never the last. Holds the store alone, so that two cannot remove the last two.

    Raises FileMissing, LastKey, StoreLocked. Who copied the slot, and knows its passphrase, still has
    the master key.
    """
    with place.lock(exclusive=True, purpose="remove a key"):
        names = [slot.name for slot in slots(place)]
        if name not in names:
            raise FileMissing(place=place.words, file=f"{KEYS}/{name}")
        if len(names) == 1:
            raise LastKey(place=place.words, file=name)
        place.remove(KEYS, name)


def change(
    place: Place,
    id: str,
    old: Secret | None,
    new: Secret,
    *,
    comment: str = "",
    cost: Cost | None = None,
) -> str:
    """Another secret instead of `old`: the name of the new slot. At no moment neither opens the store.

    Raises WrongKey, StoreLocked (both open it then).
    """
    master, name = unlock(place, id, old)
    made = add(place, id, master, new, comment=comment, cost=cost)
    remove(place, name)
    return made


def decode(name: str, data: bytes) -> Slot:
    """A slot from the bytes of its file. Raises ValueError, with words, for what is none."""
    if name != _name(data):
        raise ValueError("its bytes are not those that its name says")
    value = jsonio.loads(data)
    if not isinstance(value, dict) or value.get("version") != VERSION:
        raise ValueError(f"it is no key slot of version {VERSION}")
    kdf, cost, salt = value.get("kdf"), None, b""
    if kdf == "scrypt":
        cost, salt = Cost(*(_number(value, each) for each in "nrp")), _bytes(value, "salt")
        cost.check()
    elif kdf != "file":
        raise ValueError(f"its key is derived by {kdf!r}, which is not known here")
    sealed = _bytes(value, "sealed")
    if len(sealed) != 12 + KEY + 16:
        raise ValueError("its sealed key has another length")
    created = value.get("created")
    return Slot(
        name, kdf, cost, salt, sealed,
        float(created) if isinstance(created, int | float) and 0 <= created < 1 << 40 else 0.0,
        str(value.get("comment", "")),
    )  # fmt: skip


def _slot_key(secret: Secret, cost: Cost | None, salt: bytes) -> bytes:
    if cost is None:
        return blake3(secret.value, derive_key_context="ocimig store 1 key file").digest()
    return hashlib.scrypt(
        secret.value, salt=salt, n=cost.n, r=cost.r, p=cost.p, dklen=KEY,
        maxmem=MOST_MEMORY + (4 << 20),  # OpenSSL counts a little more than 128 * n * r
    )  # fmt: skip


def _bound(id: str) -> bytes:
    """A slot of another store opens nothing here, though the passphrase be the same."""
    return b"ocimig store 1 slot " + id.encode()


def _name(data: bytes) -> str:
    return blake3(data).digest(length=16).hex() + SUFFIX


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(value: dict[str, Any], field: str) -> bytes:
    text = value.get(field)
    try:
        return base64.b64decode(text if isinstance(text, str) else "%", validate=True)
    except ValueError:
        raise ValueError(f"its {field} is not base64") from None


def _number(value: dict[str, Any], field: str) -> int:
    number = value.get(field)
    if type(number) is not int:
        raise ValueError("the parameters of its scrypt are none")
    return number


def _counted(found: list[Slot]) -> str:
    counts = {
        words: sum(slot.words == words for slot in found)
        for words in ("a passphrase", "a key file")
    }
    return " or ".join(
        words if count == 1 else f"one of {count} {words[2:]}s"
        for words, count in counts.items()
        if count
    )
