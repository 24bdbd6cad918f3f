"""The benchmark's container under load on one of two hosts, with its client, for tests of how memory moves."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

from ocimig_testkit.hosts import Host, HostPair
from ocimig_testkit.source import ROOT


def _stand() -> Any:
    """contrib/bench/stand.py, which is no package."""
    path = ROOT / "contrib/bench/stand.py"
    spec = importlib.util.spec_from_file_location("stand", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["stand"] = module
    spec.loader.exec_module(module)
    return module


stand = _stand()


class Moving:
    """A container under load, its client, and the two hosts."""

    def __init__(self, hosts: HostPair, tmp_path: Path) -> None:
        self.hosts = hosts
        self.program = stand.compile_workload(tmp_path)
        self.stand: Any = None
        self.client: Any = None

    def start(
        self, *options: str, resident: int = 48, dirty: int = 500, hot: int = 0, files: int = 0
    ) -> None:
        """Run it on the first host and connect."""
        load = stand.Load(resident, dirty, hot, files=files)
        self.stand = stand.Stand(self.hosts, self.program, load, list(options))
        self.stand.start()
        for host in (self.hosts.a, self.hosts.b):
            host.ocimig.ids.append(self.stand.id)
        self.client = stand.Client(self.hosts, self.program)

    def move(self) -> dict[str, Any]:
        """There, with every page checked afterwards; the report."""
        moved = self.stand.move(self.client, check=True)
        assert moved.wrong_pages == 0
        report: dict[str, Any] = moved.report
        return report

    def command(self) -> list[str]:
        """The argument list of `migrate`."""
        return [
            "migrate", "--json", "--progress", "none", *self.stand.options,
            "--identity", str(self.hosts.identity), "--known-hosts", str(self.hosts.known_hosts),
            self.stand.id, self.stand.there.target,
        ]  # fmt: skip

    def whole(self) -> None:
        """Connection and memory are as they must be, wherever it runs."""
        seen = self.client.look(check=True)
        assert seen.wrong_pages == 0
        assert seen.outstanding < 50

    def close(self) -> None:
        """Hang up."""
        if self.client is not None:
            self.client.__exit__()


def agents(host: Host) -> list[int]:
    """The sessions of the host's sshd, which carry what comes to it."""
    assert host.daemon is not None
    found = subprocess.run(
        ["pgrep", "-P", str(host.daemon.pid)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]
