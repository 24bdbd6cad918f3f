"""How long a client waits while its server moves: the longest gap between two replies, and where it went.

    contrib/bench/migrate.py --resident 1024 --dirty 1000 --runs 5 [--transport openssh]
        [--files 10000x100000] [--peer runc,podman] [--back-and-forth N] [--check] [--json FILE] [--options "…"]
    contrib/bench/migrate.py --all

Two hosts on this machine (network, mounts, cgroups and state of their own, an sshd in each), a server
with that much memory that writes that many pages a second, and a client with one connection that sends
each millisecond. Every reply is checked; a lost or repeated byte ends the benchmark with 1. Needs root.
It is never a gate.
"""

import argparse
import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import leaks  # noqa: E402 - found through the line above
import peers  # noqa: E402
from stand import (  # noqa: E402
    Client,
    Failed,
    HostPair,
    Load,
    Move,
    Mover,
    Stand,
    compile_workload,
)

ALL = (
    "--resident 64 --peer runc,podman",
    "--resident 1024 --peer runc,podman --throughput 1",
    "--resident 1024 --transport openssh --throughput 1",
    "--resident 4096 --peer runc",
    "--resident 1024 --files 10000x100000",
    "--resident 64 --back-and-forth 100 --check",
)


def runs(
    movers: list[Mover],
    program: Path,
    count: int,
    *,
    check: bool,
    before: Callable[[], None] = lambda: None,
) -> dict[str, list[Move]]:
    """As many moves with each mover in turn, each of a container that was never moved before.

    `before` is called ahead of each of the first mover's, with the container serving its client.
    """
    moves: dict[str, list[Move]] = {mover.name: [] for mover in movers}
    for number in range(count):
        for mover in list(movers):
            try:
                mover.start()
                with Client(mover.pair, program) as client:
                    if mover is movers[0]:
                        before()
                    move = mover.move(client, check=check)
            except Failed as failure:
                if mover is movers[0]:
                    raise
                print(f"{mover.name} is left out from here on: {failure}", flush=True)
                movers.remove(mover)
                continue
            finally:
                mover.stop()
            moves[mover.name].append(move)
            _say(f"{mover.name} {number + 1}", move)
    return {name: made for name, made in moves.items() if made}


def back_and_forth(stand: Stand, program: Path, count: int, *, check: bool) -> list[Move]:
    """As many moves of one container, on one connection; what they left behind is said."""
    moves = []
    stand.start()
    before: leaks.Held = {}
    with Client(stand.pair, program) as client:
        for number in range(count):
            moves.append(stand.move(client, check=check))
            _say(f"move {number + 1}", moves[-1])
            if number == 3:  # it was everywhere twice, and is back where it began
                before = leaks.look(stand)
        time.sleep(2)
        after = leaks.look(stand)
    stand.stop()
    left = leaks.compare(before, after)
    print(
        f"\n{len(after)} kinds of things looked at after 4 moves and after {count}: {len(left)} differ"
    )
    print("\n".join(f"  {line}" for line in left) or "  nothing was left behind")
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
    """Medians: what the client saw, what the mover says, its steps, its bytes, its forecast."""
    gaps = [move.gap_ms for move in moves]
    lines = [
        f"{'median of ' + str(len(moves)):<40}{'ms':>10}",
        f"{'the longest the client waited':<40}{median(gaps):>10.1f}   ({min(gaps):.1f} to {max(gaps):.1f})",
        f"{'blackout as the mover says':<40}{median(move.blackout_ms for move in moves):>10.1f}",
        f"{'whole migration':<40}{median(move.report['seconds'] * 1000 for move in moves):>10.1f}",
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
        lines += [f"  {side:<6}{key[1]:<32}{median(steps[key]):>10.1f}" for key in keys]
    for part in dict.fromkeys(part for move in moves for part in move.parts):
        took = median(move.parts.get(part, 0.0) for move in moves)
        lines.append(f"  blackout: {part:<28}{took:>10.1f}")
    for name in dict.fromkeys(name for move in moves for name in move.report["bytes"]):
        size = median(move.report["bytes"].get(name, 0) for move in moves)
        lines.append(f"  {name:<38}{size / 1048576:>10.2f} MiB")
    return "\n".join([*lines, *_forecast(moves), *_notes(moves)])


def _forecast(moves: list[Move]) -> list[str]:
    """How far the predicted blackout was off, and how fast memory went in the first round."""
    lines = []
    pairs = [(move.predicted_ms, move.blackout_ms) for move in moves if move.predicted_ms]
    if pairs:
        off = [abs(predicted - actual) / actual * 100 for predicted, actual in pairs]
        lines.append(
            f"  {'blackout predicted':<38}{median(first for first, _ in pairs):>10.1f}"
            f"   (off by {median(off):.0f} %, at most {max(off):.0f} %)"
        )
    rates = [move.rate for move in moves if move.rate]
    if rates:
        rounds = median(len(move.report["rounds"]) for move in moves)
        lines.append(f"  {'memory, first round':<38}{median(rates) / 1e6:>10.1f} MB/s on the wire")
        lines.append(f"  {'rounds':<38}{rounds:>10.1f}")
    return lines


def _notes(moves: list[Move]) -> list[str]:
    return [
        f"  note: {note}"
        for note in dict.fromkeys(note for move in moves for note in move.report.get("notes", []))
    ]


def throughput(pair: HostPair, transport: str, mib: int, streams: int) -> float:
    """Bytes a second of the same transport from zeros to /dev/null."""
    argv = [
        *pair.a.enter, sys.executable, str(HERE / "raw.py"), transport, pair.b.target,
        str(pair.identity), str(pair.known_hosts), str(max(mib, 256)), str(streams),
    ]  # fmt: skip
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300)
    return float(done.stdout)


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--resident", type=int, default=1024, help="MiB of memory")
    parser.add_argument("--dirty", type=int, default=1000, help="pages written a second")
    parser.add_argument("--hot", type=int, default=0, help="MiB that are written to (all)")
    parser.add_argument("--compressible", action="store_true")
    parser.add_argument("--files", default="", help="COUNTxBYTES in the root file system")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--back-and-forth",
        type=int,
        default=0,
        metavar="N",
        help="N moves of one container: even, at least 6",
    )
    parser.add_argument(
        "--peer", default="", help="movers beside ocimig, in the same run: runc, podman"
    )
    parser.add_argument("--check", action="store_true", help="read all its memory after each move")
    parser.add_argument("--transport", choices=("paramiko", "openssh"), default="paramiko")
    parser.add_argument(
        "--throughput", type=int, default=0, metavar="STREAMS",
        help="compare each first round with what so many streams of the transport carried right before",
    )  # fmt: skip
    parser.add_argument("--options", default="", help="more options for `ocimig migrate`")
    parser.add_argument(
        "--all", action="store_true", help="everything that docs/benchmarks.md shows"
    )
    parser.add_argument("--directory", help="where the files of both hosts lie (a temporary place)")
    parser.add_argument("--json", metavar="FILE", help="write every run's figures and report")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """One measurement, or all of ALL."""
    options = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the hosts are taken down then, too
    if not options.all:
        return measure(options, [])
    summary: list[str] = []
    failed = 0
    for words in ALL:
        each = parse([*words.split(), "--runs", str(options.runs)])
        if options.json:
            each.json = f"{options.json}.{len(summary)}"
        failed += measure(each, summary)
        print(flush=True)
    print("medians of the longest wait, ms\n" + "\n".join(summary))
    return failed


def measure(options: argparse.Namespace, summary: list[str]) -> int:
    """Set up, measure, take down, print; 1 when a promise was not kept."""
    files, _, size = options.files.partition("x")
    load = Load(
        options.resident, options.dirty, options.hot, options.compressible,
        int(files or 0), int(size or 0),
    )  # fmt: skip
    more = ["--transport", options.transport, *shlex.split(options.options)]
    print(f"{load.describe()}; {' '.join(more)}", flush=True)
    prefix = {"prefix": "ocimig-bench-", "dir": options.directory}
    raw: list[float] = []
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

                    def measure_link() -> None:
                        if options.throughput:
                            raw.append(
                                throughput(
                                    pair, options.transport, load.resident, options.throughput
                                )
                            )

                    moves = runs(
                        movers, program, options.runs, check=options.check, before=measure_link
                    )
        except Failed as failure:
            print(f"migrate.py: {failure}", file=sys.stderr)
            summary.append(f"  {load.describe()}: FAILED")
            return 1
    for name, made in moves.items():
        print(f"\n{name}\n{table(made)}")
        gaps = [move.gap_ms for move in made]
        summary.append(
            f"{median(gaps):10.1f}   ({min(gaps):.1f} to {max(gaps):.1f}, {len(gaps)} moves)   "
            f"{name}, {options.transport}: {load.describe()}"
        )
    if raw:
        shares = [move.rate / alone for move, alone in zip(moves["ocimig"], raw, strict=True)]
        print(
            f"\nthe transport alone, in turn with the moves: {median(raw) / 1e6:.1f} MB/s; the first round "
            f"reaches {median(shares):.2f} of it ({min(shares):.2f} to {max(shares):.2f})"
        )
    if options.json:
        document = {"raw_bytes_a_second": raw, "load": load.describe(), "options": more, "runs": {
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
