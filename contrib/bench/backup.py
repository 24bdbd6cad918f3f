"""Snapshots of a running container beside borg and restic on CRIU's images of the same moments.

A container keeps a part of its memory changing; a client in its network asks it something each
millisecond, and the longest it waited is what the snapshot cost its users. The peers get what they
would get today: a directory with a full checkpoint by CRIU.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from stand import PORT, Load, compile_workload, listens, make_bundle  # noqa: E402

from ocimig_testkit.waiting import until  # noqa: E402

PAGE = 4096
OCIMIG = [str(Path(sys.executable).with_name("ocimig"))]


@dataclass(slots=True)
class Figures:
    """What one way of backing up cost, the first time and the second."""

    name: str
    seconds: list[float] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)  # bytes that the repository grew by
    pause: list[float] = field(default_factory=list)  # ms that the client waited longest


class Container:
    """The workload, run by ocimig, with a client in its network."""

    def __init__(self, place: Path, load: Load) -> None:
        self.place = place
        self.root = place / "state"
        self.id = f"bench{os.getpid()}"
        program = compile_workload(place)
        bundle = place / "bundle"
        bundle.mkdir()
        document = json.loads(_spec(place))
        make_bundle(bundle, program, load, document)
        # its output is the container's for life: never a pipe of ours
        command = [*OCIMIG, "--root", str(self.root), "run", "-d", "-b", str(bundle), self.id]
        null = subprocess.DEVNULL
        subprocess.run(command, stdin=null, stdout=null, stderr=null, check=True)
        self.pid = int(json.loads(self("state", self.id))["pid"])
        subprocess.run(
            ["nsenter", "-t", str(self.pid), "-n", "ip", "link", "set", "lo", "up"], check=True
        )
        until(lambda: listens(self.pid), "the workload to listen", 120)
        self.client = subprocess.Popen(
            ["nsenter", "-t", str(self.pid), "-n", str(program), "ask", "127.0.0.1", str(PORT)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(0.5)
        self.waited()

    def __call__(self, *words: str) -> str:
        """`ocimig` with its state here; what it printed."""
        done = subprocess.run(
            [*OCIMIG, "--root", str(self.root), *words], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"ocimig {' '.join(words)}: {done.returncode}\n{done.stderr}")
        return done.stdout

    def waited(self) -> float:
        """The client's longest wait since the last question, in ms. Ends the run where a byte was wrong."""
        assert self.client.stdin is not None
        assert self.client.stdout is not None
        self.client.stdin.write("\n")
        self.client.stdin.flush()
        seen = json.loads(self.client.stdout.readline())
        if seen.get("error"):
            raise SystemExit(f"the client: {seen}")
        return float(seen["gap_ms"])

    def close(self) -> None:
        """End both."""
        assert self.client.stdin is not None
        self.client.stdin.close()
        self.client.wait(10)
        self("delete", "--force", self.id)


def _spec(place: Path) -> str:
    directory = place / "spec"
    directory.mkdir()
    subprocess.run([*OCIMIG, "spec", "-b", str(directory)], check=True, stdin=subprocess.DEVNULL)
    return (directory / "config.json").read_text()


def grown(directory: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def ocimig(container: Container, place: Path, wait: float) -> tuple[Figures, list[dict[str, Any]]]:
    """Two snapshots, `wait` seconds apart."""
    store = place / "store"
    options = ["--cache", str(place / "cache")]
    container("backup", "init", str(store), *options)
    found, taken = Figures("ocimig backup"), []
    before, ended = grown(store), 0.0
    for _ in range(2):
        if taken:
            time.sleep(max(0.0, wait - (time.monotonic() - ended)))
        container.waited()
        began = time.monotonic()
        said = container("backup", "create", str(store), container.id, *options, "-f", "json")
        found.seconds.append(time.monotonic() - began)
        ended = time.monotonic()
        time.sleep(0.2)
        found.pause.append(container.waited())
        after = grown(store)
        found.stored.append(after - before)
        before = after
        taken += json.loads(said)
    diff = json.loads(container("backup", "diff", str(store), taken[0]["id"], taken[1]["id"],
                                *options, "-f", "json"))  # fmt: skip
    changed = sum(each["changed"] + each["added"] for each in diff["memory"])
    taken.append({"changed_bytes": changed * PAGE})
    return found, taken


def checkpoints(container: Container, place: Path, wait: float) -> tuple[list[Path], Figures]:
    """Two full checkpoints by CRIU, as far apart: what the peers are given."""
    found, directories = Figures("criu, full"), []
    ended = 0.0
    for number in range(2):
        if number:
            time.sleep(max(0.0, wait - (time.monotonic() - ended)))
        container.waited()
        directory = place / f"images{number}"
        began = time.monotonic()
        container("checkpoint", "--leave-running", "--tcp-established", "--image-path",
                  str(directory), container.id)  # fmt: skip
        found.seconds.append(time.monotonic() - began)
        ended = time.monotonic()
        time.sleep(0.2)
        found.pause.append(container.waited())
        found.stored.append(grown(directory))
        directories.append(directory)
    return directories, found


def borg(place: Path, directories: list[Path]) -> Figures:
    """`borg create` of both, with zstandard as ocimig has it, unsealed as ocimig's store here."""
    repository = place / "borg"
    environment = {**os.environ, "BORG_BASE_DIR": str(place / "borg-home"),
                   "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}  # fmt: skip
    _run(["borg", "init", "-e", "none", str(repository)], environment, place)
    return _peer("borg create", repository, directories, place, environment,
                 lambda number: ["borg", "create", "-C", "zstd,1", f"{repository}::{number}", "."])  # fmt: skip


def restic(place: Path, directories: list[Path]) -> Figures:
    """`restic backup` of both."""
    repository = place / "restic"
    environment = {**os.environ, "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(place / "rc")}
    _run(["restic", "init", "--repository-version", "2", "-r", str(repository)], environment, place)
    return _peer("restic backup", repository, directories, place, environment,
                 lambda _: ["restic", "-q", "-r", str(repository), "backup", "."])  # fmt: skip


def _peer(
    name: str, repository: Path, directories: list[Path], place: Path, environment: dict[str, str],
    argv: Any,
) -> Figures:  # fmt: skip
    found = Figures(name)
    before = grown(repository)
    same = place / "same"  # one path for both, so that the second finds the first
    for number, directory in enumerate(directories):
        directory.rename(same)
        began = time.monotonic()
        _run(argv(number), environment, same)
        found.seconds.append(time.monotonic() - began)
        after = grown(repository)
        found.stored.append(after - before)
        before = after
        same.rename(directory)
    return found


def _run(argv: list[str], environment: dict[str, str], where: Path) -> None:
    done = subprocess.run(argv, env=environment, cwd=where, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False, timeout=900)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}: {done.stderr}")


def table(all_: list[list[Figures]]) -> str:
    """Medians over the runs."""
    lines = [
        f"{'':16} {'first s':>9} {'MiB':>9} {'pause ms':>9} {'second s':>9} {'MiB':>9} {'pause ms':>9}"
    ]
    for column in zip(*all_, strict=True):
        cells = []
        for number in range(2):
            cells.append(f"{statistics.median(each.seconds[number] for each in column):9.2f}")
            stored = statistics.median(each.stored[number] for each in column)
            cells.append(f"{stored / 2**20:9.1f}")
            pauses = [each.pause[number] for each in column if each.pause]
            cells.append(f"{statistics.median(pauses):9.0f}" if pauses else f"{'-':>9}")
        lines.append(f"{column[0].name:16} {' '.join(cells)}")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--resident", type=int, default=1024, help="MiB of memory")
    parser.add_argument("--dirty", type=int, default=262, help="pages written a second")
    parser.add_argument("--changed", type=float, default=0.01, help="part that changes in between")
    parser.add_argument("--compressible", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    load = Load(options.resident, options.dirty, text=options.compressible)
    wait = options.resident * 256 * options.changed / options.dirty
    print(f"{load.describe()}; {wait:.1f} s between the two")
    runs = []
    for _ in range(options.runs):
        place = Path(tempfile.mkdtemp(prefix="ocimig-bench-"))
        try:
            runs.append(_once(place, load, wait))
        finally:
            shutil.rmtree(place, ignore_errors=True)
    print(table(runs))
    return 0


def _once(place: Path, load: Load, wait: float) -> list[Figures]:
    container = Container(place, load)
    try:
        ours, taken = ocimig(container, place, wait)
        changed = taken[2]["changed_bytes"]
        print(
            f"frozen {[round(each['frozen_seconds'] * 1e3) for each in taken[:2]]} ms, "
            f"{changed / 2**20:.1f} MiB changed, stored {taken[1]['stored_bytes'] / changed:.2f} of that",
            flush=True,
        )
        directories, plain = checkpoints(container, place, wait)
    finally:
        container.close()
    peers = [
        work(place, directories)
        for name, work in (("borg", borg), ("restic", restic))
        if shutil.which(name)
    ]
    return [ours, plain, *peers]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
