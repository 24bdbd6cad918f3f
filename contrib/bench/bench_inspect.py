"""What a look at a checkpoint costs: medians of whole commands, beside crit (CRIU's own reader of images).

    contrib/bench/bench_inspect.py DIR [ROUNDS]

DIR is a checkpoint. crit is that of the CRIU in use; its words for everything are `x DIR ps`, `fds` and `mems`, and
`show` for every image. A command of crit's that fails (it does on dead processes) is said and not counted. It
is never a gate.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ocimig.criu_images import binary

# Set by some environments; without compiled modules everything measured would be the compiler.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
OURS = str(Path(sys.executable).with_name("ocimig"))


def main() -> int:
    """Print the table."""
    if len(sys.argv) < 2:
        print("name a checkpoint: contrib/bench/bench_inspect.py DIR [ROUNDS]", file=sys.stderr)
        return 2
    directory = Path(sys.argv[1]).resolve()
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    commands = _commands(directory)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):  # one more, to warm the caches
        for name, parts in commands.items():  # one of each a round: a busy moment hits all alike
            took = sum(_once(argv, times, name) for argv in parts)
            if number and name in times:
                times[name].append(took)
    print(f"{'command':<44} {'commands':>8} {'median ms':>10} {'best ms':>8}")
    for name, found in times.items():
        median, best = statistics.median(found) * 1e3, min(found) * 1e3
        print(f"{name:<44} {len(commands[name]):>8} {median:>10.1f} {best:>8.1f}")
    return 0


def _commands(directory: Path) -> dict[str, list[list[str]]]:
    path = str(directory)
    crit = [sys.executable, "-m", "crit"]
    images = sorted(
        str(each) for each in directory.glob("*.img") if not each.name.startswith("pages-")
    )
    words = [[*crit, "x", path, what] for what in ("ps", "fds", "mems")]
    return {
        "ocimig inspect": [[OURS, "inspect", path]],
        "ocimig inspect --all --format json": [
            [OURS, "inspect", path, "--all", "--format", "json"]
        ],
        **{f"crit x DIR {argv[-1]}": [argv] for argv in words},
        "crit x DIR ps, fds, mems": words,
        "crit show, every image": [[*crit, "show", image] for image in images],
    }


def _once(argv: list[str], times: dict[str, list[float]], name: str) -> float:
    environment = dict(ENVIRONMENT)
    if "crit" in argv:
        environment["PYTHONPATH"] = str(binary.packages(binary.find()))
    began = time.perf_counter()
    done = subprocess.run(
        argv, env=environment, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    took = time.perf_counter() - began
    if done.returncode and times.pop(name, None) is not None:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["?"])[-1]
        print(f"{name}: failed, left out: {last[:150]}")
    return took


if __name__ == "__main__":
    sys.exit(main())
