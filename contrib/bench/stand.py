"""What the migration benchmark stands on: two hosts, a container with a known load, a client that watches.

The container runs `workload serve`, the client `workload ask` (workload.c) in its own place on the
network. Both check every byte of both directions and, when asked, every page.
"""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests/support"))

from ocimig_testkit.hosts import Host, HostPair  # noqa: E402 - found through the line above
from ocimig_testkit.waiting import until  # noqa: E402

ADDRESS = "10.77.0.50"
PORT = 7000
BUNDLE = "bench"  # the bundle's place below /srv, the same on both hosts


class Failed(Exception):
    """A run that did not go as it must: a byte, a page or the connection was lost."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the container is: MiB of memory, pages written a second, within which MiB, its files."""

    resident: int = 1024
    dirty: int = 1000
    hot: int = 0  # MiB that are written to; 0: all
    text: bool = False  # whether its pages compress
    files: int = 0
    file_size: int = 100_000

    def describe(self) -> str:
        """One line for the table's head."""
        kind = "compressible" if self.text else "incompressible"
        files = f", {self.files} files of {self.file_size} bytes" if self.files else ""
        where = f" in {self.hot} MiB" if self.hot else ""
        return f"{self.resident} MiB {kind}, {self.dirty} pages written a second{where}{files}"

    def argv(self) -> list[str]:
        """The container's process."""
        hot = self.hot or self.resident
        numbers = [PORT, self.resident, self.dirty, hot]
        return ["/workload", "serve", *map(str, numbers), "text" if self.text else "random"]


def compile_workload(directory: Path) -> Path:
    """The static program; raises CalledProcessError where there is no compiler."""
    program = directory / "workload"
    argv = ["gcc", "-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-o", program]
    subprocess.run([*argv, HERE / "workload.c"], check=True)
    return program


def make_bundle(place: Path, program: Path, load: Load, document: dict[str, Any]) -> None:
    """An OCI bundle of the workload and its files; `document` is a config.json to start from."""
    rootfs = place / "rootfs"
    for name in ("dev", "etc", "proc", "sys", "tmp", "data"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy2(program, rootfs / "workload")
    for number in range(load.files):
        directory = rootfs / "data" / f"{number // 100:03}"
        directory.mkdir(exist_ok=True)
        (directory / f"{number % 100:02}").write_bytes(os.urandom(load.file_size))
    document["process"] |= {"args": load.argv(), "cwd": "/data", "terminal": False}
    document["root"] = {"path": "rootfs", "readonly": False}
    (place / "config.json").write_text(json.dumps(document, indent=2))


def listens(pid: int) -> bool:
    """Whether the server answers in the network of that process: it does once its memory is full."""
    return f":{PORT:04X} 00000000:0000 0A" in Path(f"/proc/{pid}/net/tcp").read_text()


@dataclass(slots=True)
class Seen:
    """What the client saw since it was last asked."""

    gap_ms: float
    replies: int
    outstanding: int
    wrong_pages: int  # -1: not checked
    error: str


class Client:
    """One connection for its whole life, a request each millisecond."""

    def __init__(self, pair: HostPair, program: Path) -> None:
        self.process = subprocess.Popen(
            pair.client(str(program), "ask", ADDRESS, str(PORT)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def look(self, *, check: bool = False, seconds: float = 120.0) -> Seen:
        """What it saw since the last look; with `check`, after the server read all its memory."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write("check\n" if check else "look\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended: its last report says why
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise Failed(f"the client says nothing for {seconds:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"the client ended with {self.process.wait()}")
        found = json.loads(line)
        seen = Seen(**{name: found[name] for name in Seen.__slots__})
        if seen.error:
            raise Failed(f"the client: {seen.error}")
        if check and seen.wrong_pages < 0:
            raise Failed("the server did not read all its memory within a minute")
        if seen.wrong_pages > 0:
            raise Failed(f"{seen.wrong_pages} pages are not as they must be")
        return seen


@dataclass(slots=True)
class Move:
    """One migration: what the client saw and what ocimig said."""

    gap_ms: float
    report: dict[str, Any]
    wrong_pages: int = -1

    @property
    def blackout_ms(self) -> float:
        """The blackout as ocimig measured it."""
        return float(self.report.get("blackout_seconds", 0.0)) * 1000

    @property
    def predicted_ms(self) -> float:
        """The blackout that was foreseen when it was frozen; 0: none was."""
        return float(self.report.get("predicted_blackout_seconds", 0.0)) * 1000

    @property
    def parts(self) -> dict[str, float]:
        """What the blackout is made of, in ms."""
        found = self.report.get("blackout_parts", {})
        return {name: seconds * 1000 for name, seconds in found.items()}

    @property
    def rate(self) -> float:
        """Bytes a second on the wire in the first round of memory; 0: there was none."""
        rounds = self.report.get("rounds") or []
        return rounds[0]["sent_bytes"] / rounds[0]["seconds"] if rounds else 0.0


class Mover(Protocol):
    """A way to move the container: ocimig's or a peer's."""

    name: str
    pair: HostPair

    def start(self) -> None:
        """Run a new container."""
        ...

    def move(self, client: Client, *, check: bool = False) -> Move:
        """Move it to the other host under the client's eyes."""
        ...

    def stop(self) -> None:
        """Remove the container; its files stay."""
        ...


@dataclass
class Stand:
    """The two hosts with the container of ocimig on one of them."""

    name = "ocimig"

    pair: HostPair
    program: Path
    load: Load
    options: list[str] = field(default_factory=list)  # for `ocimig migrate`
    here: Host = field(init=False)
    number: int = 0

    def __post_init__(self) -> None:
        self.here = self.pair.a
        work = self.pair.directory / "spec"
        work.mkdir()
        subprocess.run([*self.here.ocimig.argv, "spec", "--bundle", work], check=True, timeout=30)
        document = json.loads((work / "config.json").read_text())
        make_bundle(self.here.bundles / BUNDLE, self.program, self.load, document)

    @property
    def there(self) -> Host:
        """The host where it is not."""
        return self.pair.b if self.here is self.pair.a else self.pair.a

    @property
    def id(self) -> str:
        """The container's name, another for each start."""
        return f"bench{self.number}"

    def start(self) -> None:
        """A new container, where the files are."""
        self.number += 1
        net = f"bridge=br0,address={ADDRESS}/24"
        bundle = f"/srv/{BUNDLE}"
        log = self.pair.directory / "container.log"
        with log.open("wb") as output:
            subprocess.run(
                self.here.ocimig.command("run", "--detach", "--net", net, "-b", bundle, self.id),
                check=True, timeout=60, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        pid = self.here.ocimig.pid(self.id)
        until(lambda: listens(pid), f"the server ({log})", 60, 0.05)

    def stop(self) -> None:
        """Remove the container; its files stay where they are."""
        for host in (self.here, self.there):
            host.ocimig("delete", "--force", self.id, code=None)

    def move(self, client: Client, *, check: bool = False, rest: float = 1.0) -> Move:
        """Migrate to the other host under the client's eyes."""
        client.look()
        report = self.migrate()
        self.here = self.there
        time.sleep(rest)
        seen = client.look()
        for _ in range(10):  # a gap that goes on is not over yet
            if seen.outstanding < 50:
                break
            time.sleep(rest)
            later = client.look()
            seen = replace(later, gap_ms=max(seen.gap_ms, later.gap_ms))
        else:
            raise Failed(f"{seen.outstanding} requests are without a reply")
        wrong = client.look(check=True).wrong_pages if check else -1
        return Move(seen.gap_ms, report, wrong)

    def migrate(self) -> dict[str, Any]:
        """`ocimig migrate --json`; its report."""
        argv = self.here.ocimig.command(
            "migrate", "--json", "--progress", "none", *self.options,
            "--identity", str(self.pair.identity), "--known-hosts", str(self.pair.known_hosts),
            self.id, self.there.target,
        )  # fmt: skip
        ended = subprocess.run(
            argv, capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL, check=False
        )
        if ended.returncode:
            raise Failed(
                f"ocimig migrate ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}"
            )
        report: dict[str, Any] = json.loads(ended.stdout)
        return report
