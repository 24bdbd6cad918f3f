"""A container that runs the worker (tests/criu/worker.c) with its output in a plain file of the host."""

import os
import subprocess
from pathlib import Path
from typing import Any

from ocimig_testkit.bundles import Bundle
from ocimig_testkit.runner import Ocimig
from ocimig_testkit.waiting import until


class Box:
    """One container; what it counted can be asked for while it runs and after."""

    def __init__(self, ocimig: Ocimig, bundle: Bundle, output: Path) -> None:
        self.ocimig = ocimig
        self.bundle = bundle
        self.output = output
        self.image = output.parent / "image"
        self.id = ocimig.new_id()

    def map_users(self) -> None:
        """Its root is user 100000 of the host; before it runs."""
        self.bundle.linux["namespaces"] += [{"type": "user"}]
        for kind in ("uidMappings", "gidMappings"):
            self.bundle.linux[kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        for directory, names, others in os.walk(self.bundle.rootfs):
            for name in [*names, *others, "."]:
                os.chown(Path(directory, name), 100000, 100000, follow_symlinks=False)
        for above in [self.bundle.path, *self.bundle.path.parents]:
            if above != Path("/tmp"):
                above.chmod(above.stat().st_mode | 0o111)

    def run(self, *argv: str) -> "Box":
        """Start it, and wait until it said something."""
        self.bundle.argv("/bin/worker", *argv)
        with self.output.open("ab") as output:
            command = self.ocimig.command("run", "-d", "-b", self.bundle.path, self.id)
            subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=True
            )
        until(self.output.read_text, "output of the worker")
        return self

    def checkpoint(self, *options: str, code: int | None = 0, **call: Any) -> str:
        """What it said on standard error."""
        return self.ocimig(
            "checkpoint", "--image-path", self.image, *options, self.id, code=code, **call
        ).err

    def restore(self, *options: str, code: int | None = 0, **call: Any) -> str:
        """What it said on standard error."""
        return self.ocimig(
            "restore", "-d", "-b", self.bundle.path, "--image-path", self.image, *options, self.id,
            code=code, **call,
        ).err  # fmt: skip

    def lines(self) -> list[tuple[int, str]]:
        """The numbers it counted and the checksums beside them."""
        found = []
        for line in self.output.read_text().splitlines():
            number, _, rest = line.partition(" ")
            if number.isdigit():
                found.append((int(number), rest))
        return found

    def goes_on(self) -> None:
        """It counts on: two more numbers come."""
        last = self.lines()[-1][0]
        until(lambda: self.lines()[-1][0] > last + 1, f"{self.id} to count beyond {last}")

    def unbroken(self) -> None:
        """No number is missing or repeated, and every checksum is the same."""
        lines = self.lines()
        numbers = [number for number, _ in lines]
        assert numbers == list(range(len(numbers)))
        assert len({checksum for _, checksum in lines}) == 1

    def locked(self) -> bool:
        """Whether our table is in its network namespace."""
        inside = ["nsenter", "-t", str(self.ocimig.pid(self.id)), "-n", "nft", "list", "tables"]
        return "ocimig" in subprocess.run(inside, capture_output=True, text=True, check=True).stdout
