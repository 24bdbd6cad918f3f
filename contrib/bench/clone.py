"""Copies of a warm Python service beside as many cold starts: time to the first answer, and memory.

The service imports what services import and builds a table before it listens. Cold, `ocimig run` starts it so
many times; warm, it was checkpointed once after its first answer, and `ocimig clone` makes the copies. Both ways
the clock runs from the command (all commands, one after the other) to the answer of the last of them. Memory is
what the containers' processes add to the machine (Pss), and for copies the processes that stand by them too.
"""

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests/support"))

from ocimig.runtime.linux import namespaces, proc  # noqa: E402
from ocimig_testkit.bundles import default_config  # noqa: E402 - found through the line above
from ocimig_testkit.leaks import sweep  # noqa: E402
from ocimig_testkit.session import TOKEN  # noqa: E402

OCIMIG = str(Path(sys.executable).with_name("ocimig"))
PYTHON = "/usr/bin/python3"
PORT = 7000
ENTRIES = 2600  # of the table, in a MiB
SERVICE = """
import socket, sys
import argparse, asyncio, concurrent.futures, csv, ctypes, decimal, email.message, hashlib, html.parser
import http.client, http.server, json, logging.config, multiprocessing, sqlite3, ssl, tarfile, unittest.mock
import urllib.request, uuid, xml.dom.minidom, xml.etree.ElementTree, zipfile
table = {f"{number:08}": f"{number * number:0200}" for number in range(int(sys.argv[2]))}
with socket.create_server(("0.0.0.0", int(sys.argv[1])), backlog=64) as listener:
    while True:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(table[peer.recv(8).decode()].encode())
"""


@dataclass(slots=True)
class Figures:
    """Of one way to have so many: seconds to the last first answer, and bytes of memory then; by run."""

    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)


class Stand:
    """A network namespace with a bridge, which ends with this process, and the service's bundle."""

    def __init__(self, place: Path, resident: int) -> None:
        self.place = place
        self.last = resident * ENTRIES - 1
        namespaces.unshare(namespaces.CLONE_NEWNET)
        for words in (
            "link set lo up", "link add name br0 type bridge",
            "address add 10.0.0.1/16 dev br0", "link set br0 up",
        ):  # fmt: skip
            subprocess.run(["ip", *words.split()], check=True)
        self.bundle = place / "bundle"
        self._make_bundle()
        self.image = place / "image"

    def _make_bundle(self) -> None:
        """Nothing in it but the service; /usr is the host's, which is only read."""
        rootfs = self.bundle / "rootfs"
        for name in ("usr", "dev", "proc", "sys", "tmp", "etc"):
            (rootfs / name).mkdir(parents=True)
        for name in ("bin", "lib", "lib64", "sbin"):
            if Path("/", name).exists():
                (rootfs / name).symlink_to(f"usr/{name}")
        (rootfs / "service.py").write_text(SERVICE)
        document = default_config()
        bound = {
            "destination": "/usr",
            "type": "bind",
            "source": "/usr",
            "options": ["rbind", "ro"],
        }
        document["mounts"].append(bound)
        document["process"] |= {
            "args": [PYTHON, "/service.py", str(PORT), str(self.last + 1)], "terminal": False,
        }  # fmt: skip
        document["root"] = {"path": "rootfs", "readonly": False}
        (self.bundle / "config.json").write_text(json.dumps(document))

    def __call__(self, *words: str) -> None:
        """`ocimig` with its state here. A container keeps its streams: none of them is a pipe of ours."""
        with (self.place / "said").open("wb") as said:
            done = subprocess.run(
                [OCIMIG, "--root", str(self.place / "state"), *words],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False, timeout=600,
            )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"ocimig {' '.join(words)}: {(self.place / 'said').read_text()}")

    def pid(self, name: str) -> int:
        """A container's first process."""
        return int(json.loads((self.place / "state" / name / "state.json").read_text())["pid"])

    def answers(self, address: str) -> None:
        """Wait for the right answer."""
        deadline = time.monotonic() + 300
        while True:
            try:
                with socket.create_connection((address, PORT), timeout=300) as peer:
                    peer.sendall(f"{self.last:08}".encode())
                    if peer.recv(1000) != f"{self.last**2:0200}".encode():
                        raise SystemExit(f"{address} gave a wrong answer")
                    return
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)


def memory(pids: Sequence[int]) -> int:
    """Bytes that these add to the machine (Pss)."""
    found = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                found += int(line.split()[1]) << 10
    return found


def cold(stand: Stand, names: Sequence[str], addresses: Sequence[str]) -> None:
    """Started from nothing."""
    for name, address in zip(names, addresses, strict=True):
        stand(
            "run", "-d", "--net", f"bridge=br0,address={address}/16", "-b", str(stand.bundle), name
        )


def warm(stand: Stand, names: Sequence[str], addresses: Sequence[str]) -> None:
    """Copies of the checkpoint."""
    prefix = names[0].rpartition("-")[0]
    net = f"bridge=br0,address={addresses[0]}/16"
    stand(
        "clone", "-n", str(len(names)), "--name", prefix, "--net", net, "--merge", "off",
        str(stand.image),
    )  # fmt: skip


def _standing_by(pid: int) -> list[int]:
    """The keeper of a copy and its page handler: its parent, and the parent's other children."""
    stat = proc.stat(pid)
    keeper = stat.ppid if stat is not None else 1
    if keeper == 1 or "ocimig" not in Path(f"/proc/{keeper}/cmdline").read_text():
        return []
    return [keeper, *(each for each in proc.children(keeper) if each != pid)]


def measure(stand: Stand, way: Callable[..., None], count: int, run: int, into: Figures) -> None:
    """One run of one way, undone afterwards."""
    names = [
        f"{TOKEN}-{way.__name__}{run}-{number}" for number in range(1, count + 1)
    ]  # as clone does
    first = (
        10 + 10 * run
    )  # an address is another container's each time: nobody remembers a hardware address
    addresses = [f"10.0.{count}.{first + number}" for number in range(count)]
    if way is warm:
        addresses = [address.replace("10.0.", "10.0.1", 1) for address in addresses]
    began = time.perf_counter()
    way(stand, names, addresses)
    for address in addresses:
        stand.answers(address)
    into.seconds.append(time.perf_counter() - began)
    pids = [stand.pid(name) for name in names]
    beside = [each for pid in pids for each in _standing_by(pid)] if way is warm else []
    into.memory.append(memory([*pids, *beside]))
    for name in names:
        stand("delete", "--force", name)


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--resident", type=int, default=100, help="MiB of the table, about")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(argv)
    if not shutil.which(PYTHON):
        raise SystemExit(f"there is no {PYTHON}")
    found = {(way, count): Figures() for count in options.copies for way in (cold, warm)}
    with tempfile.TemporaryDirectory(prefix="ocimig-bench-", dir="/var/tmp") as directory:
        stand = Stand(Path(directory), options.resident)
        try:
            cold(stand, [f"{TOKEN}-source"], ["10.0.0.2"])
            stand.answers("10.0.0.2")
            stand("checkpoint", "--image-path", str(stand.image), f"{TOKEN}-source")
            stand("delete", "--force", f"{TOKEN}-source")
            for run in range(options.runs):
                for (way, count), figures in found.items():  # in turn: a busy moment hits all alike
                    measure(stand, way, count, run, figures)
        finally:
            for left in sweep(stand.place):
                print(f"left behind: {left}", file=sys.stderr)
    print(f"{'':<8}{'copies':>8}{'ms to the last answer':>34}{'MiB':>10}")
    for (way, count), figures in found.items():
        times = [each * 1e3 for each in figures.seconds]
        shown = f"{statistics.median(times):.0f} ({min(times):.0f} to {max(times):.0f})"
        mebibytes = statistics.median(figures.memory) / (1 << 20)
        print(f"{way.__name__:<8}{count:>8}{shown:>34}{mebibytes:>10.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
