"""What a hot verb costs: medians of whole commands, beside the floor of the interpreter and beside runc.

    contrib/bench/startup.py [ROUNDS]

The container is only a state directory, so this needs no privileges. It is never a gate: the house test
checks the set of modules instead.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store

SOURCE = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "src"
)
LAUNCHER = """#!{python} -IS
import sys
sys.path.insert(0, {source!r})
from ocimig.cli.main import main
main()
"""
# Set by some environments; without compiled modules everything measured would be the compiler.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}


def main() -> int:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    with tempfile.TemporaryDirectory() as directory:
        commands = _commands(directory)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(rounds + 2):  # two more, to warm the caches
            for name, argv in commands.items():  # one of each a round: a busy moment hits all alike
                took = _once(argv)
                if number >= 2:
                    times[name].append(took)
        floor = statistics.median(times["python -IS, nothing"])
        print(f"{'command':<28} {'median ms':>10} {'best ms':>8} {'over floor':>11} {'modules':>8}")
        for name, found in times.items():
            median = statistics.median(found) * 1e3
            over = median - floor * 1e3
            count = _modules(commands[name])
            print(f"{name:<28} {median:10.1f} {min(found) * 1e3:8.1f} {over:+11.1f} {count:>8}")
    return 0


def _commands(directory: str) -> dict[str, list[str]]:
    store = Store(os.path.join(directory, "root"))
    store.claim("c1")
    state = ContainerState("c1", bundle="/b", rootfs="/b/rootfs", oci_version="1.2.0")
    state.adopt(os.getpid())
    store.save(state)
    launcher = os.path.join(directory, "ocimig")
    with open(launcher, "w", encoding="utf-8") as file:
        file.write(LAUNCHER.format(python=sys.executable, source=SOURCE))
    os.chmod(launcher, 0o755)
    ours = [launcher, "--root", store.root]
    found = {
        "/bin/true": ["/bin/true"],
        "python -IS, nothing": [sys.executable, "-IS", "-c", "pass"],
        "ocimig state": [*ours, "state", "c1"],
        "ocimig list": [*ours, "list"],
        "ocimig kill (none there)": [*ours, "kill", "c2"],
        "ocimig --version (click)": [*ours, "--version"],
    }
    for other in ("runc", "crun"):
        if path := shutil.which(other):
            found[f"{other} list"] = [path, "--root", os.path.join(directory, other), "list"]
    return found


def _once(argv: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(
        argv, env=ENVIRONMENT, check=False, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - began


def _modules(argv: list[str]) -> str:
    """How many modules the command has loaded when it ends; nothing for what is no Python of ours."""
    if not argv[0].endswith("/ocimig"):
        return ""
    probe = (
        "import sys, os\n"
        f"sys.path.insert(0, {SOURCE!r}); sys.argv = {argv!r}\n"
        "leave = os._exit\n"
        "def tell(code):\n"
        "    os.write(2, b'\\n%d' % len(sys.modules)); leave(0)\n"
        "os._exit = tell\n"
        "from ocimig.cli.main import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", probe], env=ENVIRONMENT, check=False, capture_output=True
    )
    return done.stderr.decode().splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main())
