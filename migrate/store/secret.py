"""What a person has to open a store: a passphrase or a key file, and where it comes from. Opens nothing."""

import os
import select
import shlex
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ocimig import log
from ocimig.migrate.failpoints import patience
from ocimig.migrate.store.errors import WrongKey

VARIABLE = "OCIMIG_PASSPHRASE"
PASSPHRASE, FILE = "passphrase", "file"
SHORTEST_FILE = 32  # bytes of a key file: it is used as it is, so it must not be guessable
LONGEST = 1 << 16  # bytes of either
_PATIENCE = 120.0  # seconds for a command that may ask a person


@dataclass(frozen=True, slots=True)
class Secret:
    """A passphrase (kind PASSPHRASE) or the bytes of a key file (kind FILE). Shown by its `words` only."""

    kind: str
    value: bytes
    words: str

    def __repr__(self) -> str:
        return f"<{self.words}>"


def find(
    place: str,
    *,
    passphrase_file: str = "",
    key_file: str = "",
    passcommand: str = "",
    environment: Mapping[str, str],
) -> Secret | None:
    """What was given for the store at `place`: an option, else OCIMIG_PASSPHRASE, else None.

    Raises WrongKey for two options at once, for what is empty, too short or too long, for a file that
    cannot be read and for a command that fails. A file that others can read is a warning in the log.
    """
    given = [each for each in (passphrase_file, key_file, passcommand) if each]
    if len(given) > 1:
        reason = "more than one of passphrase file, key file and passcommand is given"
        raise WrongKey(place=place, reason=reason)
    if key_file:
        value = _read(place, key_file, "key file")
        if len(value) < SHORTEST_FILE:
            reason = f"the key file {key_file} has {len(value)} bytes, {SHORTEST_FILE} are needed"
            raise WrongKey(place=place, reason=reason)
        return Secret(FILE, value, f"the key file {key_file}")
    if passphrase_file:
        value = _read(place, passphrase_file, "passphrase file")
        return passphrase(place, value, f"the passphrase in {passphrase_file}")
    if passcommand:
        return passphrase(place, _output(place, passcommand), "the passphrase of the passcommand")
    if VARIABLE in environment:
        value = os.fsencode(environment[VARIABLE])
        return passphrase(place, value, f"the passphrase in {VARIABLE}")
    return None


def make_key_file(path: str) -> Secret:
    """A new key file (0600) of 32 random bytes. Raises OSError; FileExistsError where something is."""
    value = os.urandom(SHORTEST_FILE)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, value)
        os.fsync(fd)
    finally:
        os.close(fd)
    return Secret(FILE, value, f"the key file {path}")


def passphrase(place: str, value: bytes, words: str) -> Secret:
    """A passphrase from its bytes, without the end of the line; `words` tell where it came from. Raises
    WrongKey for an empty one."""
    value = value.removesuffix(b"\n")
    if not value:
        raise WrongKey(place=place, reason=f"{words} is empty")
    return Secret(PASSPHRASE, value, words)


def _read(place: str, path: str, what: str) -> bytes:
    """The whole file. A pipe is fine: <(command) of a shell is one."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            value = file.read(LONGEST + 1)
    except OSError as error:
        raise WrongKey(place=place, reason=f"the {what} {path}: {error.strerror}") from None
    if len(value) > LONGEST:
        raise WrongKey(place=place, reason=f"the {what} {path} has more than {LONGEST} bytes")
    if mode & 0o077:
        log.warning(f"the {what} {path} can be read by others: chmod 600 {shlex.quote(path)}")
    return value


def _output(place: str, command: str) -> bytes:
    """What the command prints. It may ask on the terminal: it is in our session and our process group."""
    try:
        argv = shlex.split(command)
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    except (OSError, ValueError, IndexError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise WrongKey(place=place, reason=f"the passcommand cannot be started: {words}") from None
    with process:
        assert process.stdout is not None
        try:
            value = _until_end(process.stdout.fileno(), time.monotonic() + patience(_PATIENCE))
            status = process.wait(patience(_PATIENCE))
        except (TimeoutError, subprocess.TimeoutExpired, ValueError) as error:
            words = str(error) if isinstance(error, ValueError) else "it does not end"
            raise WrongKey(place=place, reason=f"the passcommand failed: {words}") from None
        finally:
            process.kill()  # of what has ended already nothing happens
    if status:
        how = f"it ended with status {status}" if status > 0 else f"signal {-status} ended it"
        raise WrongKey(place=place, reason=f"the passcommand failed: {how}")
    return value


def _until_end(fd: int, end: float) -> bytes:
    """Everything that comes, in time; a grandchild that keeps the pipe open costs the time."""
    parts = bytearray()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while poll.poll(max(0.0, end - time.monotonic()) * 1000):
        data = os.read(fd, LONGEST)
        if not data:
            return bytes(parts)
        parts += data
        if len(parts) > LONGEST:
            raise ValueError(f"it prints more than {LONGEST} bytes")
    raise TimeoutError
