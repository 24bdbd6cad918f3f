"""A second process hands its streams to the agent of a migration: over every transport, and refused in words."""

import os
import queue
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ocimig.migrate import attach, journal
from ocimig.migrate.errors import (
    FarFailure,
    HostUnreachable,
    LinkLost,
    NobodyToAttach,
)
from ocimig.migrate.journal import Journal
from ocimig.migrate.transport import Connection, Target, connect
from ocimig.migrate.transport.local import LocalConnection
from ocimig.migrate.transport.stdio import StdioChannel
from ocimig.migrate.wire import Wire
from ocimig.runtime.store import Store
from ocimig_testkit.sshd import Sshd


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A state root whose path is longer than a unix socket's address may be."""
    root = tmp_path / ("a long name of a state root " * 5)
    root.mkdir()
    return Store(str(root))


@pytest.fixture
def entry(store: Store) -> Journal:
    """A migration to here, under way."""
    return journal.create(store, journal.new_id(), "destination", id="c1", epoch=1)


Streams = queue.Queue[Wire]


@pytest.fixture
def streams() -> Iterator[Streams]:
    """The further streams that came."""
    came: Streams = queue.Queue()
    yield came
    while not came.empty():
        came.get().close()


@pytest.fixture
def listener(entry: Journal, streams: Streams) -> Iterator[attach.Listener]:
    """The agent's ear."""
    made = attach.Listener(entry.home, on_stream=streams.put)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One sshd for everything here."""
    with Sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


@pytest.fixture(
    params=[
        "local",
        pytest.param("paramiko", marks=pytest.mark.ssh),
        pytest.param("openssh", marks=pytest.mark.ssh),
    ]
)
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A way to start the second process."""
    if request.param == "local":
        with LocalConnection() as made:
            yield made
    else:
        sshd: Sshd = request.getfixturevalue("server")
        with connect(Target(**sshd.way()), transport=request.param) as over_ssh:
            yield over_ssh


def argv(store: Store) -> list[str]:
    """How the far side is called."""
    return [sys.executable, "-m", "ocimig", "--root", store.root, "agent"]


def test_a_stream_reaches_the_agent(
    store: Store,
    entry: Journal,
    listener: attach.Listener,
    streams: Streams,
    connection: Connection,
) -> None:
    """Frames travel both ways; when the agent closes its end the second process ends with 0."""
    here = attach.stream(connection, argv(store), entry.migration)
    there = streams.get(timeout=5)
    sender = threading.Thread(target=here.send, args=("pages", {"seq": 1}, bytes(3 << 20)))
    sender.start()
    frame = there.receive(20)
    sender.join()
    assert (frame.header, len(frame.payload)) == ({"seq": 1}, 3 << 20)
    there.send("pages-taken", {"seq": 1})
    assert here.expect("pages-taken", timeout=5).header == {"seq": 1}
    there.close()
    with pytest.raises(LinkLost):
        here.receive(5)
    assert here.channel.wait(5) == 0


def test_several_streams_do_not_mix(
    store: Store,
    entry: Journal,
    listener: attach.Listener,
    streams: Streams,
    connection: Connection,
) -> None:
    """Each is handed to the agent's own callback, with its own bytes."""
    for number in range(3):
        wire = attach.stream(connection, argv(store), entry.migration)
        wire.send("pages", {"n": number})
    wires = [streams.get(timeout=5) for _ in range(3)]
    assert sorted(wire.receive(5).header["n"] for wire in wires) == [0, 1, 2]
    for wire in wires:
        wire.close()


def test_a_migration_nobody_knows_is_named(store: Store, connection: Connection) -> None:
    """The source hears it as an error frame with a code, and the process ends with it."""
    with pytest.raises(FarFailure, match="is not known") as caught:
        attach.stream(connection, argv(store), journal.new_id())
    assert (caught.value.name, caught.value.code) == ("NobodyToAttach", 20)


def test_a_migration_that_ended_is_named(
    store: Store, entry: Journal, connection: Connection
) -> None:
    """With what became of it."""
    entry.write("ABORTED")
    with pytest.raises(FarFailure, match="it is ABORTED"):
        attach.stream(connection, argv(store), entry.migration)


def test_an_agent_that_died_is_named(store: Store, entry: Journal, connection: Connection) -> None:
    """A socket that it left behind answers nobody."""
    with socket.socket(socket.AF_UNIX) as left:
        _bind(left, entry)
    with pytest.raises(FarFailure, match="no agent answers"):
        attach.stream(connection, argv(store), entry.migration)


def test_a_name_that_leads_elsewhere_is_refused(store: Store, connection: Connection) -> None:
    """The migration's name comes from another host; it is never a path."""
    with pytest.raises(FarFailure, match="names no migration"):
        attach.stream(connection, argv(store), "../../etc")


def _bind(sock: socket.socket, entry: Journal) -> None:
    home = os.open(entry.home, os.O_PATH)
    sock.bind(f"/proc/self/fd/{home}/attach")
    os.close(home)


def test_a_socket_left_behind_is_replaced(store: Store, entry: Journal, streams: Streams) -> None:
    """The agent after one that was killed listens where that one did, for nobody but us and root."""
    with socket.socket(socket.AF_UNIX) as left:
        _bind(left, entry)
    listener = attach.Listener(entry.home, on_stream=streams.put)
    there = os.path.join(entry.home, "attach")
    assert stat.S_IMODE(os.stat(there).st_mode) == 0o600
    with LocalConnection() as connection:
        attach.stream(connection, argv(store), entry.migration)
        streams.get(timeout=5).close()
    listener.close()
    assert not os.path.exists(there)


def test_the_source_comes_again(
    store: Store, entry: Journal, listener: attach.Listener, connection: Connection
) -> None:
    """The link that looks alive from here is interrupted; then its reader takes the new one."""
    first, second = os.pipe(), os.pipe()
    old = StdioChannel(first[0], second[1])
    listener.link = old
    met: list[str] = []

    def serve() -> None:
        try:
            old.read(1)
        except LinkLost as error:
            met.append(str(error))
        there = listener.resumed(5)
        assert there is not None
        met.append(there.receive(5).kind)
        there.close()

    agent = threading.Thread(target=serve)
    agent.start()
    here = attach.resume(lambda: connection, argv(store), entry.migration, 5)
    here.wire.send("where")
    agent.join(5)
    assert "came again" in met[0]
    assert met[1] == "where"
    here.close()
    for fd in (*first, *second):
        os.close(fd)


def test_nothing_of_the_old_link_comes_after_the_new_one(store: Store, entry: Journal) -> None:
    """A resume is answered when the last frame of a stream beside the broken link was dealt with."""
    began, go_on = threading.Event(), threading.Event()
    did: list[str] = []

    def serve(wire: Wire) -> None:
        try:
            while True:
                did.append(wire.receive(20).kind)
                began.set()
                go_on.wait(20)
                did.append("dealt with")
        except LinkLost:
            wire.close()

    def take_up() -> None:
        there = ear.resumed(20)
        assert there is not None
        did.append("resumed")
        there.close()

    ear = attach.Listener(entry.home, on_stream=serve)
    agent = threading.Thread(target=take_up)
    agent.start()
    try:
        with LocalConnection() as connection, LocalConnection() as other:
            old = attach.stream(connection, argv(store), entry.migration)
            old.send("pages")
            old.send("pages")
            assert began.wait(5)
            threading.Timer(0.5, go_on.set).start()
            attach.resume(lambda: other, argv(store), entry.migration, 5).close()
            agent.join(5)
    finally:
        ear.close()
    assert did[-2:] == ["dealt with", "resumed"]
    assert did.count("pages") == did.count("dealt with")


def test_a_source_that_came_again_and_was_gone_is_not_taken(
    store: Store, entry: Journal, listener: attach.Listener
) -> None:
    """Its successor is."""
    attempts: list[Wire] = []
    with LocalConnection() as connection:
        for _ in range(2):
            wire = Wire(connection.open([*argv(store), "--attach", entry.migration]))
            wire.greet(10)
            wire.send("attach", {"migration": entry.migration, "role": "resume"})
            attempts.append(wire)
            time.sleep(0.2)
        attempts[0].close()
        there = listener.resumed(5)
        assert there is not None
        there.send("hello")
        attempts[1].expect("attached", timeout=5)
        attempts[1].expect("hello", timeout=5)
        there.close()


def test_a_resume_that_comes_too_late_is_refused(
    store: Store, entry: Journal, listener: attach.Listener, streams: Streams
) -> None:
    """At once, however much patience there is; a further stream is still taken."""
    listener.resumable = False
    before = time.monotonic()
    with LocalConnection() as connection, pytest.raises(FarFailure, match="too late"):
        attach.resume(lambda: connection, argv(store), entry.migration, 60)
    assert time.monotonic() - before < 20
    with LocalConnection() as connection:
        attach.stream(connection, argv(store), entry.migration)
        streams.get(timeout=5).close()
    assert listener.resumed(0) is None


def test_the_source_tries_again_until_the_host_is_back(
    store: Store, entry: Journal, listener: attach.Listener
) -> None:
    """A host that does not answer is asked again, in longer and longer steps."""
    attempts: list[float] = []
    pauses: list[float] = []

    def connecting() -> Connection:
        attempts.append(time.monotonic())
        if len(attempts) < 4:
            raise HostUnreachable(host="there", port=22, reason="no route to host")
        return LocalConnection()

    def take_up() -> None:
        there = listener.resumed(20)
        assert there is not None
        there.close()

    agent = threading.Thread(target=take_up)
    agent.start()
    attach.resume(connecting, argv(store), entry.migration, 60, pause=pauses.append).close()
    agent.join(5)
    assert len(attempts) == 4
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[-1]


def test_the_second_process_ends_when_the_agent_is_killed(
    store: Store, entry: Journal, tmp_path: Path
) -> None:
    """Its socket ends with the agent, so no ssh session stays open."""
    program = (
        "import sys, time; from ocimig.migrate import attach\n"
        f"attach.Listener({entry.home!r}, on_stream=lambda wire: time.sleep(60)); print(flush=True)\n"
        "time.sleep(60)"
    )
    with LocalConnection() as connection:
        agent = connection.open([sys.executable, "-c", program])
        assert agent.read(1, 20) == b"\n"
        here = attach.stream(connection, argv(store), entry.migration)
        agent.end()
        assert here.channel.wait(10) == 0


def test_only_root_and_ourselves_may_attach(
    entry: Journal, listener: attach.Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever else reaches the socket is sent away without an answer, on both ends."""
    real = os.geteuid()
    with socket.socket(socket.AF_UNIX) as peer:
        monkeypatch.setattr(
            attach, "_CREDENTIALS", _Credentials(os.getpid(), real + 1000, real + 1000)
        )
        home = os.open(entry.home, os.O_PATH)
        peer.connect(f"/proc/self/fd/{home}/attach")
        os.close(home)
        ends = os.pipe()
        peer.settimeout(5)
        with suppress(ConnectionResetError, BrokenPipeError):  # no answer either
            socket.send_fds(peer, [b"a"], list(ends))
            assert peer.recv(1) == b""
        for fd in ends:
            os.close(fd)


class _Credentials:
    """struct ucred of somebody else."""

    size = 12

    def __init__(self, *fields: int) -> None:
        self._fields = fields

    def unpack(self, raw: bytes) -> tuple[int, ...]:
        """What the kernel would have said."""
        return self._fields


def test_who_hands_over_nothing_is_sent_away(entry: Journal, listener: attach.Listener) -> None:
    """And the next one is served all the same."""
    for payload in (b"", b"a"):
        with socket.socket(socket.AF_UNIX) as peer:
            home = os.open(entry.home, os.O_PATH)
            peer.connect(f"/proc/self/fd/{home}/attach")
            os.close(home)
            if payload:
                peer.sendall(payload)
            peer.shutdown(socket.SHUT_WR)
            peer.settimeout(5)
            with suppress(ConnectionResetError):
                assert peer.recv(1) == b""


def test_nobody_is_asked_where_there_is_no_migration(store: Store) -> None:
    """Without a source at the other end the error itself comes out of hand_over()."""
    ends = os.pipe(), os.pipe()
    os.close(ends[0][1])
    with pytest.raises(NobodyToAttach):
        attach.hand_over(ends[0][0], ends[1][1], store, journal.new_id())
    for fd in (ends[0][0], *ends[1]):
        os.close(fd)
