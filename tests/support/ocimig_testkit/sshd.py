"""An SSH server of a test's own: own keys, own configuration, loopback, ended by its number."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SSHD = "/usr/sbin/sshd"


class Sshd:
    """sshd on a free port of the loopback, which lets in the key `identity` and nobody else."""

    def __init__(
        self,
        directory: Path,
        *,
        extra: str = "",
        methods: str = "PasswordAuthentication no\n",
        key_types: tuple[str, ...] = ("ed25519",),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory = directory
        self.identity = directory / "id"
        self.known_hosts = directory / "known_hosts"
        self.config = directory / "ssh_config"  # empty: nobody's own configuration meddles
        self.config.touch()
        self.port = _free_port()
        self.host_keys = {kind: directory / f"host_{kind}" for kind in key_types}
        self._extra = extra
        self._methods = methods
        self._process: subprocess.Popen[bytes] | None = None
        _make_key(self.identity, "ed25519")
        for kind, path in self.host_keys.items():
            _make_key(path, kind)
        (directory / "authorized_keys").write_text(self.identity.with_suffix(".pub").read_text())
        self.trust(*key_types)

    def way(self, **changes: object) -> dict[str, Any]:
        """The fields of a target that reaches this server, whatever ~/.ssh holds."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "identity": str(self.identity),
            "known_hosts": str(self.known_hosts),
            "config": str(self.config),
            **changes,
        }

    def trust(self, *kinds: str) -> None:
        """Write exactly these host keys to known_hosts."""
        lines = [f"[127.0.0.1]:{self.port} {self.public(kind)}\n" for kind in kinds]
        self.known_hosts.write_text("".join(lines))

    def public(self, kind: str = "ed25519") -> str:
        """A host key as it stands in a file: type and blob."""
        return " ".join(self.host_keys[kind].with_suffix(".pub").read_text().split()[:2])

    def fingerprint(self, kind: str = "ed25519") -> str:
        """A host key as ssh-keygen shows it."""
        argv = ["ssh-keygen", "-lf", str(self.host_keys[kind])]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[1]

    def replace_host_key(self, kind: str = "ed25519") -> None:
        """The host is installed anew."""
        self.host_keys[kind].unlink()
        _make_key(self.host_keys[kind], kind)

    def start(self) -> None:
        """Start it and wait until it answers."""
        config = self.directory / "sshd_config"
        config.write_text(self._configuration())
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        with (self.directory / "sshd.log").open("ab") as log:
            argv = [SSHD, "-D", "-e", "-f", str(config)]
            self._process = subprocess.Popen(argv, stderr=log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, (self.directory / "sshd.log").read_text()
                assert time.monotonic() < end, "sshd does not answer"
                time.sleep(0.02)
                continue
            return

    def _configuration(self) -> str:
        keys = "".join(f"HostKey {path}\n" for path in self.host_keys.values())
        return (
            f"Port {self.port}\nListenAddress 127.0.0.1\n{keys}"
            f"PidFile none\nAuthorizedKeysFile {self.directory}/authorized_keys\n"
            f"UsePAM no\n{self._methods}KbdInteractiveAuthentication no\n"
            "StrictModes no\nPermitRootLogin yes\nPrintMotd no\nMaxStartups 100\n"
            f"LogLevel VERBOSE\n{self._extra}\n"
        )

    def stop(self) -> None:
        """End it; connections that are open stay until they are closed."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def cut(self) -> None:
        """End the server and every connection it holds, as a crash would."""
        assert self._process is not None
        for pid in _descendants(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(10)
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _make_key(path: Path, kind: str) -> None:
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _descendants(pid: int) -> list[int]:
    """Every process below `pid`, and itself last, so that none is adopted on the way."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in children for found in _descendants(int(child))] + [pid]
