"""The fault matrix: each process of a migration killed, stopped or cut off at each place that it comes by.

    contrib/faults.py [--jobs N] [--only TEXT] [--sample] [--list] [--seconds S]
        [--results FILE]

The places and who lives at each are found by walking one migration through all of them, held against
the tables of migrate/phases.py. Every case ends with one running copy whose memory and connection are
whole, or with both held and one command that settles it, and nothing left on the other host; otherwise
it is printed, and the exit code is 1. Needs root. `make faults`.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import astuple
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "bench"), str(HERE.parent / "tests/support")]

from stand import Client, HostPair, Load, Stand, compile_workload  # noqa: E402 - found through the above

from ocimig.migrate import phases  # noqa: E402
from ocimig_testkit.faults import BLINKS, STOP, Case, Faults, Outcome, Places, remember  # noqa: E402

LOAD = Load(resident=8, dirty=200)
SESSION = "OCIMIG_TEST_SESSION"  # the mark of what the kit makes: each process has its own


class World:
    """Two hosts and what runs on them; built anew after a case that went wrong."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.program = compile_workload(directory)
        self.number = 0
        self.faults: Faults | None = None
        self.pair: Any = None

    def open(self) -> Faults:
        """The one that stands, or a new one."""
        if self.faults is None:
            self.number += 1
            self.pair = HostPair(self.directory / f"hosts{self.number}")
            self.pair.__enter__()
            stand = Stand(self.pair, self.program, LOAD)
            stand.start()
            for host in (self.pair.a, self.pair.b):
                host.ocimig.ids.append(stand.id)
            self.faults = Faults(self.pair, stand, Client(self.pair, self.program))
        return self.faults

    def close(self) -> None:
        """Take it down."""
        if self.faults is not None:
            self.faults.close()
            self.faults.client.__exit__()
            self.pair.close()
            self.faults = None


def way(table: dict[str, tuple[str, ...]]) -> list[str]:
    """The records of a journal when nothing fails: of those that may follow, the first."""
    found, record = [], ""
    while table[record]:
        record = table[record][0]
        found.append(record)
    return found


def incomplete(places: Places) -> list[str]:
    """Records of the phase table that a migration that goes well must come by, and did not."""
    tables = {"source": phases.SOURCE, "destination": phases.DESTINATION}
    wanted = {
        f"{side}:{record}:{moment}"
        for side, table in tables.items()
        for record in way(table)
        for moment in ("before", "after")
    }
    return sorted(wanted - set(places.living))


def matrix(faults: Faults) -> Places:
    """Both ways to connect: the program ssh lives with one of them only."""
    places = faults.census("paramiko")
    for place, victims in faults.census("openssh").living.items():
        if "ssh" in victims and place in places.living:
            places.living[place].append("ssh")
    return places


def run(world: World, cases: list[Case], results: Path, seconds: float = 1e9) -> list[Outcome]:
    """One after the other; none begins after so many seconds."""
    outcomes = []
    end = time.monotonic() + seconds
    for number, case in enumerate(cases, 1):
        if time.monotonic() > end:
            break
        faults = world.open()
        outcome = faults.run(case)
        if outcome.problem:
            world.close()
        remember(results, outcome)
        outcomes.append(outcome)
        how = "WRONG " + outcome.problem.splitlines()[0] if outcome.problem else outcome.ended
        print(
            f"{number}/{len(cases)} {case}: {how or 'no case'} ({outcome.seconds:.1f} s)",
            flush=True,
        )
    return outcomes


def rows_of(results: Path | None) -> list[dict[str, Any]]:
    """What ran already."""
    if results is None or not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


def summary(rows: list[dict[str, Any]]) -> str:
    """How many cases, of what kind, and how they ended."""
    cases = [row for row in rows if row["ended"] or row["problem"]]
    wrong = [row for row in cases if row["problem"]]
    lines = [f"{len(cases)} cases, {len(wrong)} of them wrong"]
    kinds = Counter(f"{row['victim']}, {row['action']}" for row in cases)
    lines += [f"  {count:5}  {kind}" for kind, count in sorted(kinds.items())]
    ends = Counter(row["ended"] for row in cases if not row["problem"])
    lines += ["how they ended"] + [f"  {count:5}  {end}" for end, count in ends.most_common()]
    for row in wrong:
        first = row["problem"].splitlines()[0]
        lines.append(f"WRONG {row['place']}, {row['victim']}: {row['action']}: {first}")
    return "\n".join(lines)


def several(wanted: argparse.Namespace, cases: list[Case], work: Path, results: Path) -> None:
    """The same cases in so many processes, each with hosts of its own."""
    running = []
    for number in range(wanted.jobs):
        plan = work / f"plan{number}"
        plan.write_text(json.dumps([astuple(case) for case in cases[number :: wanted.jobs]]))
        environment = {name: word for name, word in os.environ.items() if name != SESSION}
        argv = [sys.executable, __file__, "--plan", plan, "--results", results]
        argv += ["--seconds", str(wanted.seconds)]
        running.append(subprocess.Popen(argv, env=environment))
    try:
        for each in running:
            each.wait()
    finally:
        for each in running:
            each.terminate()
            each.wait()


def plan(world: World, wanted: argparse.Namespace) -> list[Case]:
    """The cases to run, in an order in which those that ran say something of those that did not yet."""
    if wanted.plan is not None:
        return [Case(*row) for row in json.loads(wanted.plan.read_text())]
    places = matrix(world.open())
    if missing := incomplete(places):
        raise SystemExit(f"never come by: {', '.join(missing)}")
    cases = places.sample() if wanted.sample else places.cases()
    done = {(row["place"], row["victim"], row["action"]) for row in rows_of(wanted.results)}
    cases = [case for case in cases if wanted.only in str(case) and astuple(case) not in done]
    random.Random(1).shuffle(cases)
    when = {place: number for number, place in enumerate(places.living)}
    early = when["source:FREEZE:before"]  # until then it just goes on here: the last to be run
    cases.sort(key=lambda case: (when[case.place] < early, case.action in (STOP, BLINKS)))
    return cases


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="so many pairs of hosts at once")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--sample", action="store_true", help="what the tests run")
    parser.add_argument("--list", action="store_true", help="name the cases, run none")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no case after so many")
    parser.add_argument(
        "--results",
        type=Path,
        default=None,
        help="a line of JSON for each case; what is in it is not run again",
    )
    parser.add_argument("--plan", type=Path, default=None, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the hosts are taken down before
    with tempfile.TemporaryDirectory(prefix="faults") as work:
        results = wanted.results or Path(work) / "results"
        world = World(Path(work))
        try:
            cases = plan(world, wanted)
            if wanted.list:
                print("\n".join(sorted(map(str, cases))))
                return 0
            if wanted.jobs > 1:
                world.close()
                several(wanted, cases, Path(work), results)
            else:
                run(world, cases, results, wanted.seconds)
        finally:
            world.close()
        if wanted.plan is not None:
            return 0
        rows = rows_of(results)
    print(summary(rows))
    return 1 if not rows or any(row["problem"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
