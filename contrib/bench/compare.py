"""ocimig beside runc and crun, one after the other in the same run: times of whole commands, and memory.

    contrib/bench/compare.py [ROUNDS] [--json]

Every round runs the whole life of a container with each runtime in turn, so that a slow moment of the
machine meets all of them. Shown are medians; the ratio is the median of the ratios within a round.
Needs root. It is never a gate.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))

from ocimig_testkit import TOKEN, Bundle, make_bundle  # noqa: E402 - found by the line above
from ocimig_testkit.leaks import sweep  # noqa: E402
from ocimig_testkit.probes import find  # noqa: E402

LAUNCHER = """#!{python} -IS
import sys
sys.path.insert(0, {source!r})
from ocimig.cli.main import main
main()
"""
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
# Without compiled modules everything measured would be the compiler.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
VERBS = ("run", "create", "start", "state", "exec", "kill", "delete")


class Runtime:
    """One of the runtimes, with a state root of its own."""

    def __init__(self, name: str, program: str, work: Path) -> None:
        self.name = name
        self.argv = [program, "--root", str(work / f"{name}-state")]
        self.times: dict[str, list[float]] = {verb: [] for verb in VERBS}
        self.memory: list[int] = []

    def timed(self, verb: str, *rest: str) -> None:
        """Run one command and keep how long it took."""
        began = time.perf_counter()
        subprocess.run(
            [*self.argv, verb, *rest],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=ENVIRONMENT,
            check=True,
        )
        self.times[verb].append((time.perf_counter() - began) * 1000)

    def life(self, waits: Bundle, ends: Bundle, id: str) -> None:
        """One container through all its verbs, and one that only runs and ends."""
        self.timed("run", "--bundle", str(ends.path), f"{id}r")
        pid_file = waits.path / "pid"
        self.timed("create", "--bundle", str(waits.path), "--pid-file", str(pid_file), id)
        self.memory.append(_proportional(int(pid_file.read_text())))
        self.timed("start", id)
        self.timed("state", id)
        self.timed("exec", id, "/bin/true")
        self.timed("kill", id, "KILL")
        time.sleep(0.05)  # both need the process to be gone before delete without --force
        self.timed("delete", "--force", id)


def _proportional(pid: int) -> int:
    """The memory in KiB that the created process adds to the machine (Pss)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def measure(rounds: int) -> list[Runtime]:
    """All runtimes that are installed, `rounds` times each after one that does not count."""
    with tempfile.TemporaryDirectory(prefix="ocimig-bench-") as directory:
        work = Path(directory)
        launcher = work / "ocimig"
        launcher.write_text(LAUNCHER.format(python=PYTHON, source=str(ROOT / "src")))
        launcher.chmod(0o755)
        runtimes = [Runtime("ocimig", str(launcher), work)]
        runtimes += [Runtime(name, find(name), work) for name in ("runc", "crun") if find(name)]
        waits = make_bundle(work / "waits")
        ends = make_bundle(work / "ends", "/bin/true")
        try:
            runtimes = [runtime for runtime in runtimes if _lives(runtime, waits, ends)]
            for number in range(rounds):
                for runtime in runtimes:
                    runtime.life(waits, ends, f"{TOKEN}-{runtime.name}{number}")
        finally:
            for left in sweep(work):
                print(f"left behind: {left}", file=sys.stderr)
    return runtimes


def _lives(runtime: Runtime, waits: Bundle, ends: Bundle) -> bool:
    """One life that does not count; a rival that cannot run here is left out (crun 1.8: hybrid cgroups)."""
    try:
        runtime.life(waits, ends, f"{TOKEN}-{runtime.name}")
    except subprocess.CalledProcessError as error:
        if runtime.name == "ocimig":
            raise
        print(f"{runtime.name} is left out: {error}", file=sys.stderr)
        return False
    runtime.times = {verb: [] for verb in VERBS}
    runtime.memory = []
    return True


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


def table(runtimes: list[Runtime]) -> str:
    """For people: milliseconds, and ocimig's share of each rival's time."""
    ours, rivals = runtimes[0], runtimes[1:]
    head = "".join(f"{runtime.name:>10}" for runtime in runtimes)
    head += "".join(f"{'/ ' + rival.name:>10}" for rival in rivals)
    lines = [f"{'median ms':<12}{head}"]
    for verb in VERBS:
        line = f"{verb:<12}"
        line += "".join(f"{statistics.median(runtime.times[verb]):10.1f}" for runtime in runtimes)
        line += "".join(f"{_ratio(ours.times[verb], rival.times[verb]):10.2f}" for rival in rivals)
        lines.append(line)
    line = f"{'created KiB':<12}"
    line += "".join(f"{statistics.median(runtime.memory):10.0f}" for runtime in runtimes)
    shares = [
        statistics.median(ours.memory) / (statistics.median(rival.memory) or 1) for rival in rivals
    ]
    lines.append(line + "".join(f"{share:10.3f}" for share in shares))
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Measure and print."""
    rounds = next((int(word) for word in argv if word.isdigit()), 20)
    if os.geteuid() != 0:
        print("compare.py: containers with all their parts need root", file=sys.stderr)
        return 1
    runtimes = measure(rounds)
    if "--json" in argv:
        print(json.dumps({r.name: {"ms": r.times, "created_kib": r.memory} for r in runtimes}))
    else:
        print(table(runtimes))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
