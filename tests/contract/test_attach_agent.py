"""A real agent whose link is cut while nothing runs there yet: it waits, is found again, and ends when nobody comes."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate import attach, facts, journal
from ocimig.migrate.errors import FarFailure, LinkLost
from ocimig.migrate.transport import Connection, Target, connect
from ocimig.migrate.transport.openssh import OpensshConnection
from ocimig.migrate.transport.ssh import SshConnection
from ocimig.migrate.wire import Wire
from ocimig.runtime.store import Store
from ocimig_testkit.sshd import Sshd

pytestmark = pytest.mark.ssh
Dial = Callable[[], Connection]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One sshd for everything here."""
    with Sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


@pytest.fixture(params=["paramiko", "openssh"])
def dial(server: Sshd, request: pytest.FixtureRequest) -> Dial:
    """A new connection to the other host."""
    return lambda: connect(Target(**server.way()), transport=request.param)


class Reserved:
    """An agent that holds a place for a container, and the first link to it."""

    def __init__(self, directory: Path, dial: Dial) -> None:
        self.store = Store(str(directory / "root"))
        Path(self.store.root).mkdir()
        self.argv = [sys.executable, "-m", "ocimig", "--root", self.store.root, "agent"]
        self.bundle = directory / "bundle"
        self.migration = journal.new_id()
        self.dial = dial
        self.connection = dial()
        self.wire = Wire(self.connection.open(self.argv))
        self.wire.greet(20)
        self.wire.send("reserve", self._wanted())
        self.wire.expect("reserved", timeout=20)

    def _wanted(self) -> dict[str, Any]:
        return {
            "migration": self.migration, "id": "c1", "epoch": 1, "source": "here",
            "bundle": str(self.bundle), "rootfs": "", "network": None,
            "images": facts.image_homes(self.store)[-1], "image_limit": 1 << 20, "patience": 5,
            "tcp_close": False,
        }  # fmt: skip

    @property
    def phase(self) -> str:
        """The agent's last record."""
        entry = journal.find(self.store, self.migration)
        assert entry is not None
        return entry.phase

    def ends(self, seconds: float = 10) -> str:
        """The agent's last record, once it stands at an end."""
        end = time.monotonic() + seconds
        while self.phase == "RESERVED" and time.monotonic() < end:
            time.sleep(0.05)
        return self.phase

    def cut(self) -> None:
        """The first connection is gone, without a word of farewell."""
        if isinstance(self.connection, SshConnection):
            self.connection._transport.sock.close()
        else:
            assert isinstance(self.connection, OpensshConnection)
            assert self.connection._master is not None
            os.kill(self.connection._master._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Give everything up."""
        self.connection.close()
        self.ends()


@pytest.fixture
def reserved(tmp_path: Path, dial: Dial) -> Iterator[Reserved]:
    """A reservation."""
    made = Reserved(tmp_path, dial)
    yield made
    made.close()


def test_a_link_that_broke_is_replaced(reserved: Reserved) -> None:
    """The same agent answers over the new one, and has lost nothing that was reserved."""
    reserved.cut()
    with pytest.raises(LinkLost):
        reserved.wire.receive(20)
    with attach.resume(reserved.dial, reserved.argv, reserved.migration, 20) as again:
        assert reserved.phase == "RESERVED"
        assert reserved.bundle.is_dir()
        again.wire.send("facts", {"id": "c1", "bundle": str(reserved.bundle), "paths": []})
        assert again.wire.expect("facts", timeout=20).header["host"]
        again.wire.send("abort", {"reason": "enough"})
        again.wire.expect("aborted", timeout=20)
    assert reserved.ends() == "ABORTED"
    assert not reserved.bundle.exists()


def test_a_link_is_replaced_that_the_agent_takes_for_alive(reserved: Reserved) -> None:
    """Nothing was cut here: a resume alone ends the old link."""
    with attach.resume(reserved.dial, reserved.argv, reserved.migration, 20) as again:
        again.wire.send("abort", {"reason": "enough"})
        again.wire.expect("aborted", timeout=20)
    assert reserved.ends() == "ABORTED"


def test_nobody_comes_again_to_a_migration_that_is_over(reserved: Reserved) -> None:
    """What became of it is the answer."""
    reserved.wire.send("abort", {"reason": "enough"})
    reserved.wire.expect("aborted", timeout=20)
    reserved.ends()
    with pytest.raises(FarFailure) as caught:
        attach.resume(reserved.dial, reserved.argv, reserved.migration, 20)
    assert caught.value.name == "NobodyToAttach"
