"""Key slots and secrets: what opens a store, what does not, and what is said then."""

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from ocimig.migrate.store import keys, seal, secret
from ocimig.migrate.store.errors import FileMissing, LastKey, StoreDamaged, StoreLocked, WrongKey
from ocimig.migrate.store.place import KEYS
from ocimig.migrate.store.secret import FILE, PASSPHRASE, Secret
from ocimig_testkit.places import Disk, MemoryPlace, PowerCut

ID = "00" * 16
MASTER = bytes(range(32))
CHEAP = keys.Cost(1 << 10)
MINE = Secret(PASSPHRASE, b"mine", "my passphrase")
YOURS = Secret(PASSPHRASE, b"yours", "your passphrase")
KEY_FILE = Secret(FILE, b"k" * 32, "the key file k")


@pytest.fixture
def place() -> MemoryPlace:
    """A store that MINE opens."""
    made = MemoryPlace()
    keys.add(made, ID, MASTER, MINE, comment="first", cost=CHEAP)
    return made


def write(place: MemoryPlace, value: dict[str, Any] | bytes) -> str:
    """A slot as a stranger may have written it, under its right name."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    name = blake3(data).digest(length=16).hex() + ".key"
    with place.make(KEYS) as making:
        making.write(data)
        making.commit(name)
    return name


def read(place: MemoryPlace) -> dict[str, Any]:
    """The only slot."""
    value: dict[str, Any] = json.loads(place.read(KEYS, place.names(KEYS)[0]))
    return value


def test_a_passphrase_opens_its_slot(place: MemoryPlace) -> None:
    """And the slot tells about itself without it."""
    master, name = keys.unlock(place, ID, MINE)
    (slot,) = keys.slots(place)
    assert (master, name) == (MASTER, slot.name)
    assert (slot.kdf, slot.comment, slot.cost, slot.words) == (
        "scrypt",
        "first",
        CHEAP,
        "a passphrase",
    )


def test_the_usual_cost_is_128_mib(place: MemoryPlace) -> None:
    """Who guesses passphrases pays that for each; one real slot, so that it is known to work."""
    assert 128 * keys.Cost().n * keys.Cost().r == 128 << 20
    keys.add(place, ID, MASTER, YOURS)
    assert keys.unlock(place, ID, YOURS)[0] == MASTER


def test_a_key_file_opens_its_slot(place: MemoryPlace) -> None:
    """Beside the passphrase; each alone is enough."""
    keys.add(place, ID, MASTER, KEY_FILE)
    assert keys.unlock(place, ID, KEY_FILE)[0] == keys.unlock(place, ID, MINE)[0] == MASTER


def test_a_wrong_passphrase_is_named_with_what_would_do(place: MemoryPlace) -> None:
    """Code 12; the passphrase itself is never in a message."""
    keys.add(place, ID, MASTER, KEY_FILE)
    for given, words in ((YOURS, "your passphrase does not open it"), (None, "nothing was given")):
        with pytest.raises(
            WrongKey, match=f"{words}.*a passphrase or a key file would do"
        ) as caught:
            keys.unlock(place, ID, given)
        assert caught.value.code == 12
    assert "yours" not in repr(Secret(PASSPHRASE, b"yours", "words"))


def test_a_slot_of_another_store_opens_nothing(place: MemoryPlace) -> None:
    """The wrong key is said to be wrong, instead of everything to be damaged."""
    with pytest.raises(WrongKey):
        keys.unlock(place, "11" * 16, MINE)


def test_a_slot_can_be_removed_but_not_the_last(place: MemoryPlace) -> None:
    """A store without any slot is noise."""
    first = keys.unlock(place, ID, MINE)[1]
    with pytest.raises(LastKey, match=first):
        keys.remove(place, first)
    second = keys.add(place, ID, MASTER, YOURS, cost=CHEAP)
    with pytest.raises(FileMissing, match="nobody.key"):
        keys.remove(place, "nobody.key")
    keys.remove(place, first)
    assert [slot.name for slot in keys.slots(place)] == [second]
    with pytest.raises(WrongKey):
        keys.unlock(place, ID, MINE)


def test_a_damaged_slot_does_not_count_as_the_last_but_one(place: MemoryPlace) -> None:
    """Else the only one that opens could be removed."""
    write(place, b"{}")
    with pytest.raises(LastKey):
        keys.remove(place, keys.unlock(place, ID, MINE)[1])


def test_changing_ends_with_the_new_one_only(place: MemoryPlace) -> None:
    """The master key stays: nothing is written anew."""
    keys.change(place, ID, MINE, YOURS, cost=CHEAP)
    assert keys.unlock(place, ID, YOURS)[0] == MASTER
    with pytest.raises(WrongKey):
        keys.unlock(place, ID, MINE)


def test_a_change_that_is_cut_off_leaves_a_store_that_opens() -> None:
    """The power fails at each of its steps, one after the other."""
    whole = Disk()
    keys.add(MemoryPlace(whole), ID, MASTER, MINE, cost=CHEAP)
    before = len(whole.steps)
    keys.change(MemoryPlace(whole), ID, MINE, YOURS, cost=CHEAP)
    assert len(whole.steps) - before >= 6
    for step in range(before + 1, len(whole.steps) + 1):
        disk = Disk()
        keys.add(MemoryPlace(disk), ID, MASTER, MINE, cost=CHEAP)
        disk.cut_at = step
        with pytest.raises(PowerCut):
            keys.change(MemoryPlace(disk), ID, MINE, YOURS, cost=CHEAP)
        for seed in range(4):
            after = MemoryPlace(disk.survivors(random.Random(seed)))
            opened = [each for each in (MINE, YOURS) if _opens(after, each)]
            assert opened, f"nothing opens it after a cut at step {step}"


def _opens(place: MemoryPlace, given: Secret) -> bool:
    try:
        return keys.unlock(place, ID, given)[0] == MASTER
    except WrongKey:
        return False


def test_removing_waits_for_nobody(place: MemoryPlace) -> None:
    """Two who remove the last two at once: one of them is refused."""
    name = keys.add(place, ID, MASTER, YOURS, cost=CHEAP)
    with place.lock(exclusive=False, purpose="backup"), pytest.raises(StoreLocked, match="backup"):
        keys.remove(place, name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n": 1 << 30}, "MiB of memory"),
        ({"n": 1 << 20, "r": 1 << 20}, "MiB of memory"),
        ({"r": 10**400}, "MiB of memory"),
        ({"n": 1000}, "are none"),
        ({"n": 0}, "are none"),
        ({"n": -2}, "are none"),
        ({"n": True}, "are none"),
        ({"n": 1024.0}, "are none"),
        ({"r": 0}, "are none"),
        ({"p": 10**9}, "are none"),
        ({"p": None}, "are none"),
        ({"salt": "%"}, "salt is not base64"),
        ({"salt": 5}, "salt is not base64"),
        ({"sealed": "AAAA"}, "another length"),
        ({"kdf": "md5"}, "not known here"),
        ({"version": 2}, "no key slot of version"),
    ],
)
def test_a_hostile_slot_costs_nothing(
    place: MemoryPlace, changes: dict[str, Any], words: str
) -> None:
    """It is left out before its parameters are used; the good one still opens."""
    name = write(place, {**read(place), **changes})
    with pytest.raises(ValueError, match=words):
        keys.decode(name, place.read(KEYS, name))
    assert keys.unlock(place, ID, MINE)[0] == MASTER


def test_a_slot_that_is_not_what_its_name_says_is_left_out(
    place: MemoryPlace, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a warning that names it."""
    with place.make(KEYS) as making:
        making.write(b"[" * 5000)
        making.commit("f" * 32 + ".key")
    assert len(keys.slots(place)) == 1
    assert f"keys/{'f' * 32}.key is damaged" in capfd.readouterr().err


def test_slots_are_not_without_number(place: MemoryPlace) -> None:
    """A thousand of them would cost minutes before a wrong passphrase is said to be wrong."""
    for number in range(keys.MOST_SLOTS):
        write(place, {"number": number})
    with pytest.raises(StoreDamaged, match="65 key slots"):
        keys.slots(place)


def test_a_large_slot_is_not_read(place: MemoryPlace) -> None:
    """Sixteen KiB are enough for every slot."""
    write(place, bytes(keys.LARGEST_SLOT + 1))
    assert len(keys.slots(place)) == 1


def test_a_store_that_claims_to_be_open_is_refused_to_who_has_a_key(place: MemoryPlace) -> None:
    """Its host can rewrite STORE: nobody's memory is written there in the clear because of that."""
    with pytest.raises(WrongKey, match="my passphrase is given: was it replaced"):
        keys.sealer_of(place, ID, seal.NONE, MINE)
    assert keys.sealer_of(place, ID, seal.NONE, None)[0].sealed is False
    with pytest.raises(ValueError, match="'rot13', which is not known here"):
        keys.sealer_of(place, ID, "rot13", MINE)
    for cipher in (seal.AES, seal.CHACHA):
        sealer, digest_key = keys.sealer_of(place, ID, cipher, MINE)
        assert (sealer.sealed, digest_key) == (True, seal.derive(MASTER)[0])


# ---- where a secret comes from


def find(environment: dict[str, str] | None = None, **given: str) -> Secret | None:
    """For the store /s."""
    return secret.find("/s", environment=environment or {}, **given)


def find_given(given: dict[str, str]) -> Secret | None:
    """By options alone."""
    return secret.find("/s", environment={}, **given)


def test_one_newline_at_the_end_is_not_part_of_a_passphrase(tmp_path: Path) -> None:
    """Editors and echo add it; a second one was meant."""
    path = tmp_path / "p"
    path.write_bytes(b"word\n\n")
    path.chmod(0o600)
    for found in (
        find(passphrase_file=str(path)),
        find(passcommand=f"cat {path}"),
        find({"OCIMIG_PASSPHRASE": "word\n\n"}),
    ):
        assert found is not None
        assert (found.kind, found.value) == (PASSPHRASE, b"word\n")


def test_nothing_given_is_nothing_found() -> None:
    """Whether that is a mistake is for the store to say."""
    assert find() is None


def test_an_option_goes_before_the_environment(tmp_path: Path) -> None:
    """What is on the command line was meant now."""
    found = find({"OCIMIG_PASSPHRASE": "theirs"}, passcommand="printf mine")
    assert found is not None
    assert found.value == b"mine"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"passphrase_file": "/dev/null"}, "in /dev/null is empty"),
        ({"passphrase_file": "/no/such"}, "/no/such: No such file"),
        ({"key_file": "/dev/null"}, "0 bytes, 32 are needed"),
        ({"key_file": "/dev/zero"}, "more than 65536 bytes"),
        ({"passcommand": "true"}, "of the passcommand is empty"),
        ({"passcommand": "sh -c 'echo word; exit 3'"}, "ended with status 3"),
        ({"passcommand": "sh -c 'kill -9 $$'"}, "signal 9 ended it"),
        ({"passcommand": "/no/such/command"}, "cannot be started: No such file"),
        ({"passcommand": "'"}, "cannot be started"),
        ({"passcommand": " "}, "cannot be started"),
        ({"passcommand": "yes"}, "more than 65536 bytes"),
        ({"passcommand": "true", "key_file": "/x"}, "more than one"),
    ],
)
def test_what_cannot_be_a_secret_is_named(given: dict[str, str], words: str) -> None:
    """Each with what was wrong, code 12."""
    with pytest.raises(WrongKey, match=words):
        find_given(given)


def test_an_empty_variable_is_refused() -> None:
    """An empty passphrase would seal nothing, and look as if it did."""
    with pytest.raises(WrongKey, match="OCIMIG_PASSPHRASE is empty"):
        find({"OCIMIG_PASSPHRASE": ""})


def test_a_command_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup at night must not wait for a person for ever."""
    monkeypatch.setattr(secret, "_PATIENCE", 0.2)
    with pytest.raises(WrongKey, match="it does not end"):
        find(passcommand=f"{sys.executable} -c 'import time; time.sleep(100)'")


def test_a_file_that_others_can_read_is_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not an error: whoever could read it has read it, and the backup is worth more."""
    path = tmp_path / "k"
    found = secret.make_key_file(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert find(key_file=str(path)) == found
    assert capfd.readouterr().err == ""
    path.chmod(0o644)
    assert find(key_file=str(path)) == found
    assert f"{path} can be read by others: chmod 600" in capfd.readouterr().err
    with pytest.raises(FileExistsError):
        secret.make_key_file(str(path))


def test_bytes_that_are_no_text_are_a_passphrase_too() -> None:
    """The environment is bytes."""
    found = find({"OCIMIG_PASSPHRASE": os.fsdecode(b"\xff\xfe")})
    assert found is not None
    assert found.value == b"\xff\xfe"
