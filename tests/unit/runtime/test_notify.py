"""sd_notify, with a socket of our own as the host's manager."""

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from ocimig.runtime import notify, sockets
from ocimig.runtime.linux import process


def _container_says(state_dir: Path, *messages: bytes) -> None:
    sock = sockets.connect(str(state_dir / "notify" / "notify.sock"), socket.SOCK_DGRAM)
    for message in messages:
        sock.send(message)
    sock.close()


def test_ready_reaches_the_host_with_the_pid_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """READY, MAINPID and a barrier in this order; what is not READY stays here."""
    host = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    host.bind(str(tmp_path / "host"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "host"))
    seen: list[bytes] = []

    def manage() -> None:
        for _ in range(3):
            message, fds, _, _ = socket.recv_fds(host, 4096, 1)
            seen.append(message)
            for fd in fds:
                os.close(fd)

    manager = threading.Thread(target=manage)
    manager.start()
    relay = notify.Notify.of(str(tmp_path))
    assert relay is not None
    relay.prepare()
    relay.bind()
    assert os.stat(tmp_path / "notify" / "notify.sock").st_mode & 0o777 == 0o777
    _container_says(tmp_path, b"STATUS=starting", b"STATUS=up\nREADY=1\nMAINPID=1")
    pidfd = process.pidfd_open(os.getpid())
    assert relay.wait(4711, pidfd)
    os.close(pidfd)
    relay.close()
    manager.join(10)
    host.close()
    assert seen == [b"READY=1\n", b"MAINPID=4711", b"BARRIER=1"]


def test_a_container_that_ends_without_ready_is_not_waited_for(tmp_path: Path) -> None:
    """Its end is seen at once, also when the name of the socket is long."""
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    relay = notify.Notify(str(deep), "@ocimig-nobody")
    relay.prepare()
    relay.bind()
    relay.bind()  # a second start finds the old socket there and takes its place
    child = subprocess.Popen(["sleep", "0.1"])
    pidfd = process.pidfd_open(child.pid)
    assert not relay.wait(child.pid, pidfd)
    os.close(pidfd)
    relay.close()
    child.wait()


def test_a_host_that_does_not_listen_is_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The container runs; only the message is lost."""
    relay = notify.Notify(str(tmp_path), str(tmp_path / "nobody"))
    relay.prepare()
    relay.bind()
    _container_says(tmp_path, b"READY=1")
    assert relay.relay(1)
    relay.close()
    assert "cannot tell" in capfd.readouterr().err


def test_without_a_request_there_is_no_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No NOTIFY_SOCKET, nothing made; and a start of a container made without one binds nothing."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert notify.Notify.of(str(tmp_path)) is None
    relay = notify.Notify(str(tmp_path), "/x")
    relay.bind()
    assert relay.sock is None
    assert os.listdir(tmp_path) == []


def test_the_container_is_told_where_to_speak(tmp_path: Path) -> None:
    """The bind mount and the variable agree."""
    relay = notify.Notify(str(tmp_path), "/x")
    assert relay.mount()["source"] == str(tmp_path / "notify")
    assert relay.environment() == f"NOTIFY_SOCKET={relay.mount()['destination']}/notify.sock"
