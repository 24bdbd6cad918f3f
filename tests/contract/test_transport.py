"""One suite over all transports: bytes, ends, statuses, and what an SSH server can do to us."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ocimig.migrate.errors import (
    AgentMissing,
    LinkLost,
)
from ocimig.migrate.transport import Channel, Connection, Target, connect
from ocimig.migrate.transport.local import LocalConnection
from ocimig.migrate.transport.memory import MemoryChannel, MemoryConnection
from ocimig_testkit import far
from ocimig_testkit.sshd import Sshd

TEN_MB = 10 << 20
Opened = tuple[Connection, tuple[str, ...]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One sshd for everything that does not change it."""
    with Sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


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
        with connect(Target(**sshd.way()), transport=kind) as connection:
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
