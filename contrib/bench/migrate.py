"""How long a client waits while its server moves: the longest gap between two replies, and where it went.

    contrib/bench/migrate.py --resident 1024 --dirty 1000 --runs 5 [--transport openssh]
        [--files 10000x100000] [--peer runc,podman] [--back-and-forth N] [--check] [--json FILE] [--options "…"]

Two hosts on this machine (network, mounts, cgroups and state of their own, an sshd in each), a server
with that much memory that writes that many pages a second, and a client with one connection that sends
each millisecond. Every reply is checked; a lost or repeated byte ends the benchmark with 1. Needs root.
It is never a gate.
"""

import argparse
import json
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import peers
from stand import Client, Failed, HostPair, Load, Move, Mover, Stand, compile_workload


def runs(movers: list[Mover], program: Path, count: int, *, check: bool) -> dict[str, list[Move]]:
    """As many moves with each mover in turn, each of a container that was never moved before."""
    moves: dict[str, list[Move]] = {mover.name: [] for mover in movers}
    for number in range(count):
        for mover in movers:
            try:
                mover.start()
                with Client(mover.pair, program) as client:
                    move = mover.move(client, check=check)
            finally:
                mover.stop()
            moves[mover.name].append(move)
            _say(f"{mover.name} {number + 1}", move)
    return moves


def back_and_forth(stand: Stand, program: Path, count: int, *, check: bool) -> list[Move]:
    """As many moves of one container, on one connection."""
    moves = []
    stand.start()
    with Client(stand.pair, program) as client:
        for number in range(count):
            moves.append(stand.move(client, check=check))
            _say(f"move {number + 1}", moves[-1])
    stand.stop()
    return moves


def _say(what: str, move: Move) -> None:
    phases = ", ".join(
        f"{phase['name']} {phase['seconds'] * 1000:.0f}" for phase in move.report["phases"]
    )
    checked = "" if move.wrong_pages < 0 else f", {move.wrong_pages} wrong pages"
    print(
        f"{what}: the client waited {move.gap_ms:.1f} ms; "
        f"blackout {move.blackout_ms:.1f} ms{checked}"
        + (f"; phases (ms): {phases}" if phases else ""),
        flush=True,
    )


def table(moves: list[Move]) -> str:
    """Medians: what the client saw, what ocimig says, and its steps."""
    gaps = [move.gap_ms for move in moves]
    lines = [
        f"{'median of ' + str(len(moves)):<40}{'ms':>10}",
        f"{'the longest the client waited':<40}{statistics.median(gaps):>10.1f}"
        f"   ({min(gaps):.1f} to {max(gaps):.1f})",
        f"{'blackout as the mover says':<40}{statistics.median(move.blackout_ms for move in moves):>10.1f}",
        f"{'whole migration':<40}{statistics.median(move.report['seconds'] * 1000 for move in moves):>10.1f}",
    ]
    steps: dict[tuple[str, str], list[float]] = {}
    begins: dict[tuple[str, str], float] = {}
    for move in moves:
        for step in move.report["steps"]:
            key = (step["side"], step["name"])
            steps.setdefault(key, []).append(step["seconds"] * 1000)
            begins.setdefault(key, step["begin"])
    for side in ("here", "there"):
        keys = sorted((key for key in steps if key[0] == side), key=lambda key: begins[key])
        lines += [f"  {side:<6}{key[1]:<32}{statistics.median(steps[key]):>10.1f}" for key in keys]
    names = dict.fromkeys(name for move in moves for name in move.report["bytes"])
    for name in names:
        counts = [move.report["bytes"].get(name, 0) for move in moves]
        lines.append(f"  {name:<38}{statistics.median(counts) / 1048576:>10.2f} MiB")
    return "\n".join(lines)


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--resident", type=int, default=1024, help="MiB of memory")
    parser.add_argument("--dirty", type=int, default=1000, help="pages written a second")
    parser.add_argument("--hot", type=int, default=0, help="MiB that are written to (all)")
    parser.add_argument("--compressible", action="store_true")
    parser.add_argument("--files", default="", help="COUNTxBYTES in the root file system")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--back-and-forth", type=int, default=0, metavar="N", help="N moves of one")
    parser.add_argument(
        "--peer", default="", help="movers beside ocimig, in the same run: runc, podman"
    )
    parser.add_argument("--check", action="store_true", help="read all its memory after each move")
    parser.add_argument("--transport", choices=("paramiko", "openssh"), default="paramiko")
    parser.add_argument("--options", default="", help="more options for `ocimig migrate`")
    parser.add_argument("--directory", help="where the files of both hosts lie (a temporary place)")
    parser.add_argument("--json", metavar="FILE", help="write every run's figures and report")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Set up, measure, take down, print."""
    options = parse(argv)
    files, _, size = options.files.partition("x")
    load = Load(
        options.resident, options.dirty, options.hot, options.compressible,
        int(files or 0), int(size or 0),
    )  # fmt: skip
    more = ["--transport", options.transport, *shlex.split(options.options)]
    print(f"{load.describe()}; {' '.join(more)}", flush=True)
    prefix = {"prefix": "ocimig-bench-", "dir": options.directory}
    with tempfile.TemporaryDirectory(**prefix) as directory:
        try:
            with HostPair(Path(directory)) as pair:
                program = compile_workload(Path(directory))
                stand = Stand(pair, program, load, more)
                if options.back_and_forth:
                    count = options.back_and_forth
                    moves = {"ocimig": back_and_forth(stand, program, count, check=options.check)}
                else:
                    movers = [stand, *chosen(options.peer, pair, program, load)]
                    moves = runs(movers, program, options.runs, check=options.check)
        except Failed as failure:
            print(f"migrate.py: {failure}", file=sys.stderr)
            return 1
    for name, made in moves.items():
        print(f"\n{name}\n{table(made)}")
    if options.json:
        document = {"load": load.describe(), "options": more, "runs": {
            name: [{"gap_ms": move.gap_ms, "report": move.report} for move in made]
            for name, made in moves.items()
        }}  # fmt: skip
        Path(options.json).write_text(json.dumps(document, indent=2))
    return 0


def chosen(names: str, pair: HostPair, program: Path, load: Load) -> list[Mover]:
    """The peers that can do it on this machine; why one cannot is said."""
    found: list[Mover] = []
    for name in filter(None, names.split(",")):
        try:
            found.append(peers.KINDS[name](pair, program, load))
        except (KeyError, Failed) as error:
            print(f"{name} is left out: {error}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
