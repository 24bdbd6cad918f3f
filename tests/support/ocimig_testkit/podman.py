"""A podman of the test's own, in its own storage."""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path

from ocimig_testkit.probes import criu, find
from ocimig_testkit.runner import program


class Podman:
    """One that has its storage in the test's own directory, with runc below it."""

    def __init__(self, place: Path, runtime: str) -> None:
        self.name = f"ocimig-test-{os.getpid()}"
        self._place = place
        self._runtime = runtime
        (place / "containers.conf").write_text(
            f"[engine]\n[engine.runtimes]\nocimig = [{json.dumps(program()[0])}]\n"
            f"runc = [{json.dumps(find('runc'))}]\n"
        )
        self._path = f"{os.environ['PATH']}:{os.path.dirname(criu())}:/usr/sbin"

    def __call__(self, *argv: str | Path, check: bool = True) -> str:
        """Run it; what it printed."""
        command = [
            "podman", "--root", self._place / "storage", "--runroot", self._place / "run",
            "--tmpdir", self._place / "tmp", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
            "--runtime", self._runtime, *argv,
        ]  # fmt: skip
        ended = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "PATH": self._path,
                 "CONTAINERS_CONF": str(self._place / "containers.conf")},
        )  # fmt: skip
        assert not check or ended.returncode == 0, ended.stderr
        return ended.stdout

    def close(self) -> None:
        """Remove its container and what it leaves in the cgroup hierarchies."""
        self("rm", "-f", "-t", "0", self.name, check=False)
        for top in Path("/sys/fs/cgroup").glob("*/libpod_parent"):
            for group in sorted((top, *top.rglob("*/")), reverse=True):
                with suppress(OSError):  # it is another podman's as well
                    group.rmdir()
