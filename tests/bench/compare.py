"""ocimig beside runc and crun on this machine: milliseconds of each verb, and memory of a created container.

    compare.py [-n 20] [--only run,state] [--runtimes ocimig,runc,crun] [--ocimig PROGRAM]

The runtimes take turns, in another order each round, so that a slow second of the machine hits all
of them. What is timed is fork, execve and wait of the whole command. Prints a markdown table; the
ratio is ocimig's median by the other's: below 1 ocimig is faster.

crun takes no hybrid cgroups: where /sys/fs/cgroup is not v2 it runs in a mount namespace that has v2
there, so it writes to one hierarchy where the others write to all.
"""

import argparse
import compileall
import contextlib
import ctypes
import importlib.util
import json
import os
import random
import resource
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
VERBS = ("run", "create", "state", "start", "exec", "delete")
CLONE_NEWNS = 0x20000
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
WAITING = ["/bin/busybox", "sleep", "1000"]
LAUNCHER = """#!/usr/bin/python3 -IS
import sys
sys.path.insert(0, {library!r})
sys.path.append({site!r})
from ocimig.cli.main import main
main()
"""
_libc = ctypes.CDLL(None, use_errno=True)


class Runtime:
    """One program, with a state directory of its own, in the mount namespace it needs."""

    def __init__(
        self, name: str, program: str, state: Path, namespace: int, bundles: dict[str, str]
    ) -> None:
        self.bundles = bundles
        self.name = name
        self.program = program
        self.root = str(state / f"{name}-state")
        self.namespace = namespace
        self.counter = 0
        os.mkdir(self.root, 0o700)

    def argv(self, *words: str) -> list[str]:
        """The whole command."""
        return [self.program, "--root", self.root, *words]

    def time(self, *words: str, output: int = -1) -> tuple[float, float]:
        """Milliseconds of one command by the clock and of processors. Fails loudly when it fails."""
        argv = self.argv(*words)
        before = time.perf_counter()
        pid = os.fork()
        if not pid:
            _become(argv, self.namespace, output)
        _, status, used = os.wait4(pid, 0)
        spent = (time.perf_counter() - before) * 1000
        if status:
            code = os.waitstatus_to_exitcode(status)
            raise SystemExit(f"{' '.join(argv)}: exit {code}")
        return spent, (used.ru_utime + used.ru_stime) * 1000

    def state(self, id: str) -> dict[str, object]:
        """The state document."""
        read, write = os.pipe()
        self.time("state", id, output=write)
        os.close(write)
        with os.fdopen(read) as text:
            document: dict[str, object] = json.load(text)
        return document

    def version(self) -> str:
        """The first line of --version."""
        return subprocess.run(
            [self.program, "--version"], capture_output=True, text=True, check=True
        ).stdout.splitlines()[0]


def _become(argv: list[str], namespace: int, output: int) -> None:
    """In the child: the namespace, the descriptors, the program."""
    try:
        if namespace >= 0 and _libc.setns(namespace, CLONE_NEWNS):
            os._exit(126)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(output if output >= 0 else null, 1)
        os.closerange(3, 64)
        os.chdir("/")
        os.execve(argv[0], argv, ENVIRONMENT)
    finally:
        os._exit(127)


Spent = dict[str, tuple[float, ...]]  # by the clock and of processors; one number for memory


def one_round(runtime: Runtime, wanted: set[str]) -> Spent:
    """Every verb once, on a container of its own."""
    runtime.counter += 1
    id = f"ocimig-test-bench-{runtime.name}-{os.getpid()}-{runtime.counter}"
    spent: Spent = {}
    if "run" in wanted:
        spent["run"] = runtime.time("run", "--bundle", runtime.bundles["true"], id)
    if wanted == {"run"}:
        return spent
    spent["create"] = runtime.time("create", "--bundle", runtime.bundles["sleep"], id)
    try:
        pid = int(str(runtime.state(id)["pid"]))
        spent.update(memory(pid))
        spent["state"] = runtime.time("state", id)
        spent["start"] = runtime.time("start", id)
        spent["exec"] = runtime.time("exec", id, "/bin/busybox", "true")
        descriptor = os.pidfd_open(pid)
        runtime.time("kill", id, "KILL")
        _wait_end(descriptor)
    except BaseException:
        runtime.time("delete", "--force", id)
        raise
    spent["delete"] = runtime.time("delete", id)
    return spent


def limited() -> bool:
    """Whether crun cannot raise RLIMIT_MEMLOCK, for want of CAP_SYS_RESOURCE."""
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    except (ValueError, OSError):
        return hard != resource.RLIM_INFINITY
    return False


def _wait_end(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll(10_000)
    os.close(descriptor)
    # we are its reaper: the container's process is a child of ours once its runtime has ended
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def memory(pid: int) -> Spent:
    """KiB of a created container's process."""
    found: Spent = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in {"Rss", "Pss"}:
            found[name] = (float(rest.split()[0]),)
    return found


def make_bundles(directory: Path, *, all_devices: bool = False) -> dict[str, str]:
    """The same bundle for all: runc's own example config with busybox, no terminal.

    `all_devices`: for crun where it may not raise RLIMIT_MEMLOCK, without which it loads no filter.
    """
    bundles = {}
    for name, argv in (("true", ["/bin/busybox", "true"]), ("sleep", WAITING)):
        bundle = directory / name
        (bundle / "rootfs/bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", bundle / "rootfs/bin/busybox")
        subprocess.run(["runc", "spec"], cwd=bundle, check=True)
        path = bundle / "config.json"
        spec = json.loads(path.read_text())
        spec["process"].update(terminal=False, args=argv)
        # Debian's runc writes ambient capabilities that cannot be raised; every runtime says so each time
        spec["process"]["capabilities"].pop("ambient", None)
        if all_devices:
            spec["linux"]["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
        path.write_text(json.dumps(spec))
        bundles[name] = str(bundle)
    return bundles


def install(directory: Path) -> str:
    """The program as `make install` lays it out, so that no editing of the tree disturbs the numbers."""
    directory.mkdir()
    library = directory / "lib"
    shutil.copytree(
        PROJECT / "src/ocimig", library / "ocimig", ignore=shutil.ignore_patterns("__pycache__")
    )
    compileall.compile_dir(str(library), quiet=2, workers=1)
    click = importlib.util.find_spec("click")
    site = str(Path(click.origin).parents[1]) if click and click.origin else str(library)
    launcher = directory / "ocimig"
    launcher.write_text(LAUNCHER.format(library=str(library), site=site))
    launcher.chmod(0o755)
    return str(launcher)


@contextlib.contextmanager
def v2_namespace() -> Iterator[int]:
    """A mount namespace with cgroup v2 at /sys/fs/cgroup; -1 where it is there already."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        yield -1
        return
    script = "mount -t cgroup2 cgroup2 /sys/fs/cgroup && echo ready && exec sleep 100000"
    holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    control = Path(f"/proc/{holder.pid}/root/sys/fs/cgroup/cgroup.subtree_control")
    before = set(control.read_text().split())
    descriptor = os.open(f"/proc/{holder.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        # crun switches controllers on for the root's children: the machine gets back what it had
        for name in set(control.read_text().split()) - before:
            with contextlib.suppress(OSError):
                control.write_text(f"-{name}")
        os.close(descriptor)
        holder.send_signal(signal.SIGKILL)
        holder.wait()


def table(results: "Results", kind: int) -> list[str]:
    """The markdown: by the clock (0) or of processors (1)."""
    names = list(results)
    others = [name for name in names if name != "ocimig"] if "ocimig" in names else []
    what = ("by the clock", "of processors")[kind]
    heads = [what, *(f"{name} median (least)" for name in names)]
    heads += [f"ocimig / {name}" for name in others]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for row in (*VERBS, "Rss", "Pss"):
        columns = {
            name: [each[kind] for each in results[name].get(row, ()) if kind < len(each)]
            for name in names
        }
        if not all(columns.values()):
            continue
        middle = {name: statistics.median(values) for name, values in columns.items()}
        label = f"{row}, ms" if row in VERBS else f"{row} of a created container's process, KiB"
        cells = [label, *(f"{middle[name]:.1f} ({min(columns[name]):.1f})" for name in names)]
        cells += [f"{middle['ocimig'] / middle[name]:.2f}" for name in others]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def conditions(runtimes: list[Runtime], rounds: int, load: str) -> list[str]:
    """What a reader must know to compare these numbers with others."""
    v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    system = os.uname()
    lines = [
        f"Linux {system.release} {system.machine}, {os.cpu_count()} processors, "
        f"cgroup {'v2' if v2 else 'v1 or hybrid'}, Python {sys.version.split()[0]} ran this, "
        f"load {load} before and {os.getloadavg()[0]:.2f} after; {rounds} rounds, interleaved.",
        "",
    ]
    lines += [f"- {runtime.name}: {runtime.version()} ({runtime.program})" for runtime in runtimes]
    if not v2 and any(runtime.name == "crun" for runtime in runtimes):
        lines.append("- crun ran with cgroup v2 over /sys/fs/cgroup: one hierarchy, not all of v1")
    if limited():
        lines.append("- crun may not raise RLIMIT_MEMLOCK here: its config allows all devices")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="ocimig beside runc and crun")
    parser.add_argument("-n", "--rounds", type=int, default=20)
    parser.add_argument("--only", default=",".join(VERBS), help="only these verbs are shown")
    parser.add_argument("--runtimes", default="ocimig,runc,crun")
    parser.add_argument(
        "--ocimig", default="", help="the program (default: this tree, as installed)"
    )
    options = parser.parse_args()
    if os.geteuid():
        raise SystemExit("run it as root")
    load = f"{os.getloadavg()[0]:.2f}"
    _libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: created containers end up with us
    with (
        tempfile.TemporaryDirectory(prefix="ocimig-bench-", dir="/run") as name,
        v2_namespace() as v2,
    ):
        directory = Path(name)
        bundles = make_bundles(directory / "bundles")
        if limited():
            crun_bundles = make_bundles(directory / "crun-bundles", all_devices=True)
        else:
            crun_bundles = bundles
        runtimes = []
        for each in options.runtimes.split(","):
            program = (
                shutil.which(each)
                if each != "ocimig"
                else options.ocimig or install(directory / "installed")
            )
            if not program:
                print(f"{each} is not installed: left out", file=sys.stderr)
                continue
            namespace = v2 if each == "crun" else -1
            chosen = crun_bundles if each == "crun" else bundles
            runtimes.append(Runtime(each, program, directory, namespace, chosen))
        wanted = set(options.only.split(","))
        results = measure(runtimes, wanted, options.rounds)
        for rows in results.values():
            for verb in set(VERBS) - wanted:
                rows.pop(verb, None)
        lines = [*table(results, 0), "", *table(results, 1), ""]
        print("\n".join(lines + conditions(runtimes, options.rounds, load)))


Results = dict[str, dict[str, list[tuple[float, ...]]]]


def measure(runtimes: list[Runtime], wanted: set[str], rounds: int) -> Results:
    """All rounds. The first one, which warms caches, is not counted."""
    results: Results = {runtime.name: {} for runtime in runtimes}
    for number in range(rounds + 1):
        for runtime in random.sample(runtimes, len(runtimes)):
            for row, spent in one_round(runtime, wanted).items():
                if number:
                    results[runtime.name].setdefault(row, []).append(spent)
    return results


if __name__ == "__main__":
    main()
