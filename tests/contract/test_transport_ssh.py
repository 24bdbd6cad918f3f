"""What an SSH server can do to us, and what we say then: the same by both clients."""

import base64
import hashlib
import hmac
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate.errors import (
    AgentMissing,
    HostKeyChanged,
    HostKeyRevoked,
    HostKeyUnknown,
    HostUnreachable,
    LinkLost,
    NotLetIn,
    NotOurProtocol,
)
from ocimig.migrate.transport import Target, connect
from ocimig.migrate.wire import Wire
from ocimig_testkit import far
from ocimig_testkit.sshd import Sshd

pytestmark = pytest.mark.ssh
SSH = ("paramiko", "openssh")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One sshd for everything that does not change it."""
    with Sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """An sshd of this test's own, started by the test."""
    made: list[Sshd] = []

    def make(**options: object) -> Sshd:
        made.append(Sshd(tmp_path / f"sshd{len(made)}", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for sshd in made:
        sshd.stop()


def way(sshd: Sshd, **changes: object) -> Target:
    """How to reach a server, whatever ~/.ssh holds."""
    return Target(**sshd.way(**changes))


@pytest.mark.parametrize("transport", SSH)
def test_an_unknown_host_is_refused_with_its_fingerprint(
    new_server: Callable[..., Sshd], transport: str
) -> None:
    """Code 13; nothing is written; the hint is a command that adds this key."""
    sshd = new_server()
    sshd.trust()
    sshd.start()
    with pytest.raises(HostKeyUnknown) as caught:
        connect(way(sshd), transport=transport)
    assert sshd.fingerprint() in str(caught.value)
    assert f"ssh-keyscan -p {sshd.port}" in caught.value.advice
    assert caught.value.code == 13
    assert sshd.known_hosts.read_text() == ""


@pytest.mark.parametrize("transport", SSH)
def test_a_changed_host_key_is_refused_with_both_fingerprints(
    new_server: Callable[..., Sshd], transport: str
) -> None:
    """Code 13, even for who accepts new hosts."""
    sshd = new_server()
    old = sshd.fingerprint()
    sshd.replace_host_key()
    sshd.start()
    for accept_new in (False, True):
        with pytest.raises(HostKeyChanged) as caught:
            connect(way(sshd, accept_new=accept_new), transport=transport)
        assert old in str(caught.value)
        assert sshd.fingerprint() in str(caught.value)
        assert "ssh-keygen" in caught.value.advice
        assert caught.value.code == 13


@pytest.mark.parametrize("transport", SSH)
def test_a_revoked_host_key_is_refused(new_server: Callable[..., Sshd], transport: str) -> None:
    """@revoked wins over a line that knows the key."""
    sshd = new_server()
    with sshd.known_hosts.open("a") as file:
        file.write(f"@revoked * {sshd.public()}\n")
    sshd.start()
    with pytest.raises(HostKeyRevoked) as caught:
        connect(way(sshd), transport=transport)
    assert sshd.fingerprint() in str(caught.value)


@pytest.mark.parametrize("transport", SSH)
def test_a_new_host_can_be_accepted_once(new_server: Callable[..., Sshd], transport: str) -> None:
    """accept_new writes the key down; the next connection needs no leave."""
    sshd = new_server()
    sshd.known_hosts.unlink()
    sshd.start()
    connect(way(sshd, accept_new=True), transport=transport).close()
    assert sshd.public() in sshd.known_hosts.read_text()
    connect(way(sshd), transport=transport).close()


@pytest.mark.parametrize("transport", SSH)
def test_a_hashed_name_is_found(new_server: Callable[..., Sshd], transport: str) -> None:
    """HashKnownHosts is Debian's default."""
    sshd = new_server()
    salt = bytes(range(20))
    name = f"[127.0.0.1]:{sshd.port}".encode()
    digest = hmac.new(salt, name, hashlib.sha1).digest()
    field = "|1|{}|{}".format(*(base64.b64encode(part).decode() for part in (salt, digest)))
    sshd.known_hosts.write_text(f"{field} {sshd.public()}\n")
    sshd.start()
    connect(way(sshd), transport=transport).close()


@pytest.mark.parametrize("transport", SSH)
def test_a_host_with_several_keys_shows_the_one_we_know(
    new_server: Callable[..., Sshd], transport: str
) -> None:
    """Knowing only its ECDSA key is knowing it."""
    sshd = new_server(key_types=("ed25519", "ecdsa"))
    sshd.trust("ecdsa")
    sshd.start()
    connect(way(sshd), transport=transport).close()


@pytest.mark.parametrize("transport", SSH)
def test_a_key_that_is_not_let_in_is_named(new_server: Callable[..., Sshd], transport: str) -> None:
    """Code 13, the user, the host and what was tried."""
    sshd = new_server()
    (sshd.directory / "authorized_keys").write_text("")
    sshd.start()
    with pytest.raises(NotLetIn) as caught:
        connect(way(sshd), transport=transport)
    assert str(sshd.identity) in str(caught.value)
    assert caught.value.code == 13


@pytest.mark.parametrize("transport", SSH)
def test_a_server_that_wants_passwords_is_named(
    new_server: Callable[..., Sshd], transport: str
) -> None:
    """Nobody is asked for one; the methods it accepts are shown."""
    sshd = new_server(methods="PasswordAuthentication yes\nPubkeyAuthentication no\n")
    sshd.start()
    with pytest.raises(NotLetIn, match="accepts only password"):
        connect(way(sshd), transport=transport)


@pytest.mark.parametrize("transport", SSH)
def test_a_port_where_nobody_listens_is_named(server: Sshd, transport: str) -> None:
    """Refused at once, and said so."""
    with pytest.raises(HostUnreachable, match="connection refused") as caught:
        connect(way(server, port=1), transport=transport)
    assert caught.value.code == 20


@pytest.mark.parametrize("transport", SSH)
def test_a_name_that_does_not_exist_is_named(server: Sshd, transport: str) -> None:
    """.invalid never resolves (RFC 2606)."""
    with pytest.raises(HostUnreachable, match=r"nobody\.invalid"):
        connect(way(server, host="nobody.invalid"), transport=transport)


@pytest.mark.parametrize("transport", SSH)
def test_a_host_that_never_speaks_costs_the_timeout(server: Sshd, transport: str) -> None:
    """Something accepts and says nothing: a stalled proxy, a dead sshd."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        before = time.monotonic()
        with pytest.raises(HostUnreachable):
            connect(way(server, port=port, connect_timeout=1.0), transport=transport)
        assert time.monotonic() - before < 10


@pytest.mark.parametrize("transport", SSH)
def test_a_far_side_without_ocimig_is_named(server: Sshd, transport: str) -> None:
    """Code 14, with the shell's words."""
    with connect(way(server), transport=transport) as connection:
        wire = Wire(connection.open(["/no/such/ocimig", "agent"]), program="/no/such/ocimig")
        with pytest.raises(
            AgentMissing, match=r"/no/such/ocimig.*[Nn]o such file|not found"
        ) as caught:
            wire.greet(10)
        assert caught.value.code == 14


@pytest.mark.parametrize("transport", SSH)
def test_a_far_side_that_chatters_is_quoted(
    new_server: Callable[..., Sshd], transport: str
) -> None:
    """/bin/false, nologin and forced commands: what they print is in the error."""
    sshd = new_server(extra='ForceCommand echo "this account is closed"; exit 1')
    sshd.start()
    with connect(way(sshd), transport=transport) as connection:
        wire = Wire(connection.open(["ocimig", "agent"]))
        with pytest.raises(NotOurProtocol, match="this account is closed"):
            wire.greet(10)


@pytest.mark.parametrize("transport", SSH)
def test_a_connection_that_dies_is_lost_not_ended(
    new_server: Callable[..., Sshd], transport: str
) -> None:
    """A reader must never take a broken link for the end of the data."""
    sshd = new_server()
    sshd.start()
    with connect(way(sshd), transport=transport) as connection:
        channel = connection.open([sys.executable, "-IS", far.__file__, "echo"])
        channel.write(b"x", timeout=5)
        assert channel.read(1, timeout=10) == b"x"
        sshd.cut()
        with pytest.raises(LinkLost):
            channel.read(1, timeout=10)


def test_keys_change_under_a_stream(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides agree on new keys every few megabytes here; not a byte is lost or doubled."""
    from ocimig.migrate.transport import ssh_channel

    keys = []

    def changed(self: ssh_channel.Packetizer, *values: Any, **named: Any) -> None:
        keys.append(named["aead"])
        set_cipher(self, *values, **named)

    set_cipher = ssh_channel.Packetizer.set_outbound_cipher
    monkeypatch.setattr(ssh_channel.Packetizer, "set_outbound_cipher", changed)
    monkeypatch.setattr(ssh_channel, "REKEY", 3 << 20)
    data = far.PATTERN * 320
    with connect(way(server), transport="paramiko") as connection:
        channel = connection.open([sys.executable, "-IS", far.__file__, "echo"])

        def push() -> None:
            channel.write(data, timeout=20)
            channel.close_write()

        writer = threading.Thread(target=push)
        writer.start()
        came = bytearray()
        while piece := channel.read(1 << 18, timeout=20):
            came += piece
        writer.join()
    assert came == data
    assert keys.count(True) > 3


@pytest.mark.parametrize("cipher", ["aes256-gcm@openssh.com", "aes128-ctr"])
@pytest.mark.parametrize("transport", SSH)
def test_a_server_that_has_one_cipher_is_reached(
    new_server: Callable[..., Sshd], transport: str, cipher: str
) -> None:
    """Whoever makes the packets under it, what comes back is what went."""
    sshd = new_server(extra=f"Ciphers {cipher}")
    sshd.start()
    data = far.PATTERN * 16
    with connect(way(sshd), transport=transport) as connection:
        channel = connection.open([sys.executable, "-IS", far.__file__, "echo"])
        writer = threading.Thread(target=channel.write, args=(data,))
        writer.start()
        came = bytearray()
        while len(came) < len(data):
            came += channel.read(1 << 18, timeout=20)
        writer.join()
    assert came == data
