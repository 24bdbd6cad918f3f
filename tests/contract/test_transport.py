"""One suite over all transports: bytes, ends, statuses, and what an SSH server can do to us."""

import base64
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

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
from ocimig.migrate.transport import Channel, Connection, Target, connect
from ocimig.migrate.transport.local import LocalConnection
from ocimig.migrate.transport.memory import MemoryChannel, MemoryConnection
from ocimig.migrate.wire import Wire
from ocimig_testkit import far
from ocimig_testkit.sshd import Sshd

SSH = ("paramiko", "openssh")
TEN_MB = 10 << 20
Opened = tuple[Connection, tuple[str, ...]]


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


def target(sshd: Sshd, **changes: object) -> Target:
    """How the test reaches its server, whatever ~/.ssh holds."""
    fields: dict[str, object] = {
        "host": "127.0.0.1",
        "port": sshd.port,
        "identity": str(sshd.identity),
        "known_hosts": str(sshd.known_hosts),
        "config": str(sshd.config),
    }
    return Target(**{**fields, **changes})  # type: ignore[arg-type]


def _far_in_memory(
    argv: Sequence[str], channel: MemoryChannel, complain: Callable[[bytes], None]
) -> int:
    return far.run(argv, channel.read, channel.write, complain)


@pytest.fixture(
    params=[
        "memory",
        "local",
        pytest.param("paramiko", marks=pytest.mark.ssh),
        pytest.param("openssh", marks=pytest.mark.ssh),
    ]
)
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """A connection, and what goes before the verbs of the far program."""
    script = (sys.executable, "-IS", far.__file__)
    kind: str = request.param
    if kind == "memory":
        with MemoryConnection(_far_in_memory) as connection:
            yield connection, ()
    elif kind == "local":
        with LocalConnection() as connection:
            yield connection, script
    else:
        sshd: Sshd = request.getfixturevalue("server")
        with connect(target(sshd), transport=kind) as connection:
            yield connection, script


def open_(opened: Opened, *verb: str) -> Channel:
    """Start the far program."""
    connection, before = opened
    return connection.open([*before, *verb])


def read_all(channel: Channel) -> bytes:
    """Everything until the end."""
    parts = []
    while data := channel.read(1 << 16, timeout=20):
        parts.append(data)
    return b"".join(parts)


def write_on_and_on(channel: Channel) -> None:
    """Two seconds of writing."""
    for _ in range(200):
        channel.write(bytes(1 << 16), timeout=5)
        time.sleep(0.01)


def test_ten_megabytes_of_every_byte_come_back_as_they_went(opened: Opened) -> None:
    """Nothing on the way changes, swallows or adds a byte, in both directions at once."""
    channel = open_(opened, "echo")
    data = far.PATTERN * (TEN_MB // len(far.PATTERN))

    def push() -> None:
        channel.write(data, timeout=20)
        channel.close_write()

    writer = threading.Thread(target=push)
    writer.start()
    assert read_all(channel) == data
    writer.join()
    assert channel.wait(10) == 0


def test_ten_megabytes_can_be_pulled(opened: Opened) -> None:
    """A program that only writes needs nothing from us."""
    channel = open_(opened, "flood", str(TEN_MB))
    assert len(read_all(channel)) == TEN_MB


def test_ten_megabytes_can_be_pushed(opened: Opened) -> None:
    """A memoryview is taken as bytes are; the end of input reaches the program."""
    channel = open_(opened, "swallow")
    channel.write(memoryview(bytes(TEN_MB)), timeout=20)
    channel.close_write()
    assert read_all(channel) == str(TEN_MB).encode()


@pytest.mark.parametrize("status", [0, 1, 77, 126])
def test_the_exit_status_is_the_programs(opened: Opened, status: int) -> None:
    """What the program ends with is what wait() says."""
    channel = open_(opened, "exit", str(status))
    assert read_all(channel) == b""
    assert channel.wait(10) == status


def test_waiting_for_a_program_that_runs_has_an_end(opened: Opened) -> None:
    """wait() with a timeout raises TimeoutError and can be asked again."""
    channel = open_(opened, "echo")
    with pytest.raises(TimeoutError):
        channel.wait(0.05)
    channel.close_write()
    assert channel.wait(10) == 0


def test_five_megabytes_of_complaints_block_nothing(opened: Opened) -> None:
    """Stderr is drained while nobody asks for it; its end is kept, not all of it."""
    channel = open_(opened, "complain", str(5 << 20))
    assert read_all(channel) == b"done"
    channel.wait(10)
    tail = channel.stderr_tail()
    assert tail.endswith("the last line")
    assert len(tail) <= 64 << 10


def test_reading_gives_up_when_asked_to(opened: Opened) -> None:
    """A silent program costs the timeout, not for ever; 0 does not wait at all."""
    channel = open_(opened, "echo")
    before = time.monotonic()
    with pytest.raises(TimeoutError):
        channel.read(1, timeout=0)
    with pytest.raises(TimeoutError):
        channel.read(1, timeout=0.3)
    assert 0.25 <= time.monotonic() - before < 3
    channel.write(b"still there", timeout=5)
    assert channel.read(100, timeout=10) == b"still there"


def test_writing_gives_up_when_nobody_reads(opened: Opened) -> None:
    """Buffers fill; then no progress for the timeout is TimeoutError."""
    channel = open_(opened, "stall", "3")
    with pytest.raises(TimeoutError):
        channel.write(bytes(64 << 20), timeout=0.5)
    channel.close()


def test_the_end_of_output_is_said_again_and_again(opened: Opened) -> None:
    """read() after the end is still the end."""
    channel = open_(opened, "say", "hello")
    assert read_all(channel) == b"hello"
    assert channel.read(10, timeout=5) == b""
    assert channel.read(10, timeout=0) == b""


def test_a_program_that_ended_takes_no_more(opened: Opened) -> None:
    """Writing to nobody is LinkLost, sooner or later, never silence."""
    channel = open_(opened, "exit", "3")
    channel.wait(10)
    with pytest.raises(LinkLost):
        write_on_and_on(channel)


def test_closing_twice_is_closing_once(opened: Opened) -> None:
    """And what is closed says so."""
    channel = open_(opened, "echo")
    channel.close()
    channel.close()
    with pytest.raises((LinkLost, TimeoutError)):
        channel.write(bytes(1 << 16), timeout=1)


def test_several_channels_do_not_mix(opened: Opened) -> None:
    """Eight at once, each with its own bytes."""
    channels = [open_(opened, "echo") for _ in range(8)]
    for number, channel in enumerate(channels):
        channel.write(bytes([number]) * 100_000, timeout=10)
        channel.close_write()
    for number, channel in enumerate(channels):
        assert read_all(channel) == bytes([number]) * 100_000


def test_a_separate_channel_works_beside_the_others(opened: Opened) -> None:
    """Bulk data may ask for a connection of its own."""
    connection, before = opened
    ordinary = open_(opened, "echo")
    bulk = connection.open([*before, "swallow"], separate=True)
    bulk.write(bytes(1 << 20), timeout=10)
    bulk.close_write()
    assert read_all(bulk) == str(1 << 20).encode()
    ordinary.close_write()
    assert read_all(ordinary) == b""


def test_arguments_arrive_as_they_are(opened: Opened) -> None:
    """No shell on the way takes anything apart."""
    text = "a b'c\"d $HOME `id` * \\ ; & ü"
    assert read_all(open_(opened, "say", text)) == text.encode()


# ---- what only an SSH server can do


@pytest.mark.ssh
@pytest.mark.parametrize("transport", SSH)
def test_an_unknown_host_is_refused_with_its_fingerprint(
    new_server: Callable[..., Sshd], transport: str
) -> None:
    """Code 13; nothing is written; the hint is a command that adds this key."""
    sshd = new_server()
    sshd.trust()
    sshd.start()
    with pytest.raises(HostKeyUnknown) as caught:
        connect(target(sshd), transport=transport)
    assert sshd.fingerprint() in str(caught.value)
    assert f"ssh-keyscan -p {sshd.port}" in caught.value.advice
    assert caught.value.code == 13
    assert sshd.known_hosts.read_text() == ""


@pytest.mark.ssh
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
            connect(target(sshd, accept_new=accept_new), transport=transport)
        assert old in str(caught.value)
        assert sshd.fingerprint() in str(caught.value)
        assert "ssh-keygen" in caught.value.advice
        assert caught.value.code == 13


@pytest.mark.ssh
@pytest.mark.parametrize("transport", SSH)
def test_a_revoked_host_key_is_refused(new_server: Callable[..., Sshd], transport: str) -> None:
    """@revoked wins over a line that knows the key."""
    sshd = new_server()
    with sshd.known_hosts.open("a") as file:
        file.write(f"@revoked * {sshd.public()}\n")
    sshd.start()
    with pytest.raises(HostKeyRevoked) as caught:
        connect(target(sshd), transport=transport)
    assert sshd.fingerprint() in str(caught.value)


@pytest.mark.ssh
@pytest.mark.parametrize("transport", SSH)
def test_a_new_host_can_be_accepted_once(new_server: Callable[..., Sshd], transport: str) -> None:
    """accept_new writes the key down; the next connection needs no leave."""
    sshd = new_server()
    sshd.known_hosts.unlink()
    sshd.start()
    connect(target(sshd, accept_new=True), transport=transport).close()
    assert sshd.public() in sshd.known_hosts.read_text()
    connect(target(sshd), transport=transport).close()


@pytest.mark.ssh
@pytest.mark.parametrize("transport", SSH)
def test_a_hashed_name_is_found(new_server: Callable[..., Sshd], transport: str) -> None:
    """HashKnownHosts is Debian's default."""
    import hashlib
    import hmac

    sshd = new_server()
    salt = bytes(range(20))
    name = f"[127.0.0.1]:{sshd.port}".encode()
    digest = hmac.new(salt, name, hashlib.sha1).digest()
    field = "|1|{}|{}".format(*(base64.b64encode(part).decode() for part in (salt, digest)))
    sshd.known_hosts.write_text(f"{field} {sshd.public()}\n")
    sshd.start()
    connect(target(sshd), transport=transport).close()


@pytest.mark.ssh
@pytest.mark.parametrize("transport", SSH)
def test_a_host_with_several_keys_shows_the_one_we_know(
    new_server: Callable[..., Sshd], transport: str
) -> None:
    """Knowing only its ECDSA key is knowing it."""
    sshd = new_server(key_types=("ed25519", "ecdsa"))
    sshd.trust("ecdsa")
    sshd.start()
    connect(target(sshd), transport=transport).close()


@pytest.mark.ssh
@pytest.mark.parametrize("transport", SSH)
def test_a_key_that_is_not_let_in_is_named(new_server: Callable[..., Sshd], transport: str) -> None:
    """Code 13, the user, the host and what was tried."""
    sshd = new_server()
    (sshd.directory / "authorized_keys").write_text("")
    sshd.start()
    with pytest.raises(NotLetIn) as caught:
        connect(target(sshd), transport=transport)
    assert str(sshd.identity) in str(caught.value)
    assert caught.value.code == 13


@pytest.mark.ssh
@pytest.mark.parametrize("transport", SSH)
def test_a_server_that_wants_passwords_is_named(
    new_server: Callable[..., Sshd], transport: str
) -> None:
    """Nobody is asked for one; the methods it accepts are shown."""
    sshd = new_server(methods="PasswordAuthentication yes\nPubkeyAuthentication no\n")
    sshd.start()
    with pytest.raises(NotLetIn, match="accepts only password"):
        connect(target(sshd), transport=transport)


@pytest.mark.ssh
@pytest.mark.parametrize("transport", SSH)
def test_a_port_where_nobody_listens_is_named(server: Sshd, transport: str) -> None:
    """Refused at once, and said so."""
    with pytest.raises(HostUnreachable, match="connection refused") as caught:
        connect(target(server, port=1), transport=transport)
    assert caught.value.code == 20


@pytest.mark.ssh
@pytest.mark.parametrize("transport", SSH)
def test_a_name_that_does_not_exist_is_named(server: Sshd, transport: str) -> None:
    """.invalid never resolves (RFC 2606)."""
    with pytest.raises(HostUnreachable, match=r"nobody\.invalid"):
        connect(target(server, host="nobody.invalid"), transport=transport)


@pytest.mark.ssh
@pytest.mark.parametrize("transport", SSH)
def test_a_host_that_never_speaks_costs_the_timeout(server: Sshd, transport: str) -> None:
    """Something accepts and says nothing: a stalled proxy, a dead sshd."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        before = time.monotonic()
        with pytest.raises(HostUnreachable):
            connect(target(server, port=port, connect_timeout=1.0), transport=transport)
        assert time.monotonic() - before < 10


@pytest.mark.ssh
@pytest.mark.parametrize("transport", SSH)
def test_a_far_side_without_ocimig_is_named(server: Sshd, transport: str) -> None:
    """Code 14, with the shell's words."""
    with connect(target(server), transport=transport) as connection:
        wire = Wire(connection.open(["/no/such/ocimig", "agent"]), program="/no/such/ocimig")
        with pytest.raises(
            AgentMissing, match=r"/no/such/ocimig.*[Nn]o such file|not found"
        ) as caught:
            wire.greet(10)
        assert caught.value.code == 14


@pytest.mark.ssh
@pytest.mark.parametrize("transport", SSH)
def test_a_far_side_that_chatters_is_quoted(
    new_server: Callable[..., Sshd], transport: str
) -> None:
    """/bin/false, nologin and forced commands: what they print is in the error."""
    sshd = new_server(extra='ForceCommand echo "this account is closed"; exit 1')
    sshd.start()
    with connect(target(sshd), transport=transport) as connection:
        wire = Wire(connection.open(["ocimig", "agent"]))
        with pytest.raises(NotOurProtocol, match="this account is closed"):
            wire.greet(10)


@pytest.mark.ssh
@pytest.mark.parametrize("transport", SSH)
def test_a_connection_that_dies_is_lost_not_ended(
    new_server: Callable[..., Sshd], transport: str
) -> None:
    """A reader must never take a broken link for the end of the data."""
    sshd = new_server()
    sshd.start()
    with connect(target(sshd), transport=transport) as connection:
        channel = connection.open([sys.executable, "-IS", far.__file__, "echo"])
        channel.write(b"x", timeout=5)
        assert channel.read(1, timeout=10) == b"x"
        sshd.cut()
        with pytest.raises(LinkLost):
            channel.read(1, timeout=10)


def test_a_local_program_that_does_not_exist_is_named() -> None:
    """The local transport says it as the others do."""
    with LocalConnection() as connection, pytest.raises(AgentMissing, match="/no/such/program"):
        connection.open(["/no/such/program"])


def test_closing_ends_a_local_program_that_does_not_want_to() -> None:
    """The whole process group goes."""
    connection = LocalConnection()
    channel = connection.open(["sh", "-c", "trap '' TERM; sleep 30 & echo $$; wait; sleep 30"])
    pid = int(channel.read(100, timeout=5))
    connection.close()
    assert not Path(f"/proc/{pid}").exists()
