"""What known_hosts files say about a host: the format of sshd(8), hashed names and markers included.

Pure but for reading and appending files. Never decides to connect: it says what is known, and why not.
"""

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ocimig import files
from ocimig.migrate.errors import HostKeyChanged, HostKeyRevoked, HostKeyUnknown

DEFAULT_FILES = (
    "~/.ssh/known_hosts",
    "~/.ssh/known_hosts2",
    "/etc/ssh/ssh_known_hosts",
    "/etc/ssh/ssh_known_hosts2",
)


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public key of a host and where it is written."""

    type: str
    blob: bytes
    file: str = ""
    line: int = 0
    marker: str = ""
    shown: str = ""  # its fingerprint, where that is all we have

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l shows it."""
        return self.shown or fingerprint(self.blob)


def fingerprint(blob: bytes) -> str:
    """SHA256:… of a public key blob."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def written_name(host: str, port: int) -> str:
    """How a host on a port is named in the files."""
    return host if port in (0, 22) else f"[{host}]:{port}"


def lookup(paths: Iterable[str], host: str, port: int) -> list[HostKey]:
    """All lines about the host, in the order of the files; a file that is not there says nothing."""
    found: list[HostKey] = []
    name = written_name(host.lower(), port)
    for path in paths:
        real = os.path.expanduser(path)
        try:
            text = files.read(real).decode(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            key = _parse(line, name, real, number)
            if key is not None:
                found.append(key)
    return found


def _parse(line: str, name: str, file: str, number: int) -> HostKey | None:
    fields = line.split()
    marker = ""
    if fields and fields[0].startswith("@"):
        marker = fields.pop(0)
    if len(fields) < 3 or fields[0].startswith("#") or not _matches(fields[0], name):
        return None
    try:
        blob = base64.b64decode(fields[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    return HostKey(fields[1], blob, file, number, marker)


def _matches(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):
        return _matches_hash(patterns, name)
    matched = False
    for pattern in patterns.lower().split(","):
        wanted = pattern.removeprefix("!")
        # fnmatch knows [sets], known_hosts does not: there a bracket is part of "[host]:port"
        if fnmatch.fnmatchcase(name, wanted.replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            matched = True
    return matched


def _matches_hash(field: str, name: str) -> bool:
    try:
        _, _, salt, digest = field.split("|")
        expected = base64.b64decode(digest, validate=True)
        made = hmac.new(base64.b64decode(salt, validate=True), name.encode(), "sha1").digest()
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(expected, made)


def check(
    known: Sequence[HostKey], offered: HostKey, *, host: str, port: int, remedy_file: str
) -> None:
    """Return when the offered key is vouched for. Raises the one error that says why it is not."""
    shown = written_name(host, port)
    for key in known:
        if key.marker == "@revoked" and key.blob == offered.blob:
            raise HostKeyRevoked(
                host=shown, file=key.file, type=offered.type, fingerprint=offered.fingerprint
            )
    plain = [key for key in known if not key.marker]
    if any(key.blob == offered.blob for key in plain):
        return
    if plain:
        raise changed(plain, offered, host=host, port=port)
    raise unknown(offered, host=host, port=port, file=remedy_file)


def changed(known: Sequence[HostKey], offered: HostKey, *, host: str, port: int) -> HostKeyChanged:
    """The error of a host that shows another key; the known one of the same type is shown first."""
    best = next((key for key in known if key.type == offered.type), known[0])
    shown = written_name(host, port)
    return HostKeyChanged(
        host=shown,
        known=f"{best.type} {best.fingerprint} ({best.file}:{best.line})",
        offered=f"{offered.type} {offered.fingerprint}",
        remedy=f"ssh-keygen -f {best.file} -R '{shown}'",
    )


def unknown(offered: HostKey, *, host: str, port: int, file: str) -> HostKeyUnknown:
    """The error of a host that no file knows."""
    port_option = "" if port in (0, 22) else f"-p {port} "
    return HostKeyUnknown(
        host=written_name(host, port),
        type=offered.type,
        fingerprint=offered.fingerprint,
        remedy=f"ssh-keyscan {port_option}-t {_short_type(offered.type)} {host} >> {file}",
    )


def _short_type(name: str) -> str:
    if name.startswith("ecdsa"):
        return "ecdsa"
    return {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}.get(name, name)


def append(path: str, key: HostKey, *, host: str, port: int) -> None:
    """Remember a key that the person accepts unseen. One write, so that two at once both stay whole."""
    real = os.path.expanduser(path)
    os.makedirs(os.path.dirname(real) or ".", mode=0o700, exist_ok=True)
    blob = base64.b64encode(key.blob).decode()
    line = f"{written_name(host, port)} {key.type} {blob}\n".encode()
    fd = os.open(real, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line
        files.write_all(fd, line)
    finally:
        os.close(fd)
