"""Every process of a migration killed, stopped or cut off at every place that it comes by.

A place is one of failpoints.py: a line of a journal, a frame. `Faults.census` walks one migration from
place to place and writes down who lives at each: that is the matrix, nobody lists it. `Faults.run` tries
one case of it on a container that a client watches, has it settled and looks at both hosts.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocimig_testkit.fault_view import (
    Seen,
    Watch,
    allowance,
    descendants,
    leftovers,
    look,
    open_ends,
    portrait,
    signal_all,
)
from ocimig_testkit.hosts import Host, HostPair
from ocimig_testkit.waiting import until

PATIENCE = "30%"  # of the time that both sides else wait for each other
STOPPED = 8.0  # seconds that a process stands still: longer than the others wait for a word
GONE = 60.0  # seconds after which nobody waits for anything any more: a silent link, then one that may come again
BLINK = 1.0  # seconds that a link is away when it comes back
KILL, STOP, CUT, BLINKS = "kill", "stop", "cut", "blink"
LINK = "link"
VICTIMS = ("source", "agent", "criu here", "criu there", "ssh", "sshd", "handler")


class Wrong(AssertionError):
    """A case that did not end as it must."""


@dataclass(frozen=True, slots=True)
class Case:
    """What happens to whom, and where."""

    place: str
    victim: str
    action: str

    def __str__(self) -> str:
        return f"{self.place}, {self.victim}: {self.action}"


@dataclass(slots=True)
class Outcome:
    """How a case ended."""

    case: Case
    ended: str = ""  # "" where it was no case
    why_not: str = ""  # the place, or the victim, was not there this time
    problem: str = ""
    seconds: float = 0.0
    gap_ms: float = 0.0


@dataclass(slots=True)
class Places:
    """One migration from place to place: who lived at each."""

    living: dict[str, list[str]] = field(default_factory=dict)

    def cases(self) -> list[Case]:
        """Every place × who lives there × what may happen to them, and the link between them."""
        found = []
        for place, victims in self.living.items():
            found += [Case(place, victim, act) for victim in victims for act in (KILL, STOP)]
            found += [Case(place, LINK, CUT), Case(place, LINK, BLINKS)]
        return found

    def sample(self) -> list[Case]:
        """Each record of both journals once, before and after it by turns, and of what may happen there
        another from one to the next."""
        found = []
        records = dict.fromkeys(
            place.rpartition(":")[0] for place in self.living if _is_record(place)
        )
        for turn, record in enumerate(records):
            place = f"{record}:{('before', 'after')[turn % 2]}"
            mine = [case for case in self.cases() if case.place == place]
            found.append(mine[turn * 5 % len(mine)])
        return found


def _is_record(place: str) -> bool:
    return place.endswith((":before", ":after"))


class Faults:
    """Two hosts, a container under load with its client (contrib/bench/stand.py), and one case at a time."""

    def __init__(self, pair: HostPair, stand: Any, client: Any) -> None:
        self.pair = pair
        self.stand = stand
        self.client = client
        self.path = {side: pair.directory / f"at-{side}" for side in ("source", "destination")}
        self.wanted = pair.directory / "failpoint"
        self.command = pair.directory / "agent"
        self.command.write_text(
            f'#!/bin/sh\nOCIMIG_PATIENCE={PATIENCE} OCIMIG_FAILPOINT="$(cat {self.wanted})" '
            'exec ocimig "$@"\n'
        )
        self.command.chmod(0o755)
        self._arm("")
        self.baseline = allowance(stand)

    # -- the migration

    def _arm(self, where: str) -> str:
        """What the agent is to do; the variable's value for the source."""
        side, _, _ = where.partition(":")
        places = {each: f"{where}={path}" for each, path in self.path.items()}
        there = places["destination"] if side in ("destination", "every") else ""
        self.wanted.write_text(there)
        return places["source"] if side in ("source", "every") else ""

    @contextlib.contextmanager
    def _migrating(self, where: str, transport: str) -> Iterator["subprocess.Popen[bytes]"]:
        for path in self.path.values():
            path.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "OCIMIG_FAILPOINT": self._arm(where),
            "OCIMIG_PATIENCE": PATIENCE,
        }
        said = self.pair.directory / "said"
        with said.open("wb") as output:
            process = self.stand.here.ocimig.popen(
                "--debug", "migrate", "--json", "--progress", "none", "--transport", transport,
                "--remote-command", shlex.quote(str(self.command)), *self.stand.options,
                "--identity", str(self.pair.identity),
                "--known-hosts", str(self.pair.known_hosts),
                self.stand.id, self.stand.there.target,
                stdout=output, stderr=output, env=environment,
            )  # fmt: skip
        try:
            yield process
        finally:
            self._arm("")
            for path in self.path.values():
                path.unlink(missing_ok=True)
            if process.poll() is None:
                process.kill()
            process.wait()

    def _said(self) -> str:
        """The end of what the last migration said."""
        text = (self.pair.directory / "said").read_text(errors="replace")
        return text[-3000:]

    def census(self, transport: str) -> Places:
        """Walk one migration through all places. It must end well."""
        found = Places()
        with self._migrating("every", transport) as process:
            while process.poll() is None:
                for path in self.path.values():
                    with contextlib.suppress(FileNotFoundError):
                        _, _, place = path.read_text().partition(" ")
                        found.living[place] = list(self._victims(process.pid))
                        path.unlink()
                time.sleep(0.002)
        if process.returncode:
            raise Wrong(f"the census ended with {process.returncode}: {self._said()}")
        self.stand.here = self.stand.there
        return found

    def _victims(self, source: int) -> dict[str, int]:
        """Who lives now, by pid."""
        here, there = look(self.stand.here), look(self.stand.there)
        found: dict[str, int] = {}
        if source in here:
            found["source"] = source
        for pid in sorted(descendants(here, source)):
            if here[pid].name.startswith("criu") and not here[here[pid].parent].name.startswith(
                "criu"
            ):
                found["criu here"] = pid
            elif here[pid].name == "ssh":
                found.setdefault(
                    "ssh", pid
                )  # the first: the connection's own, which all else is on
        agents = [
            pid
            for pid, each in there.items()
            if each.name == "ocimig" and "agent" in each.argv and "--attach" not in each.argv
        ]
        for pid in agents:
            parent = there[pid].parent
            if parent in agents:
                found["handler"] = pid
                continue
            found["agent"] = pid
            while parent in there and not there[parent].name.startswith("sshd"):
                parent = there[parent].parent
            if parent in there:
                found["sshd"] = parent
            for below in descendants(there, pid):
                if there[below].name.startswith("criu") and there[below].parent == pid:
                    found["criu there"] = below
        return found

    # -- one case

    def run(self, case: Case) -> Outcome:
        """Do it, have it settled, look at everything. What is wrong is in `problem`."""
        began = time.monotonic()
        outcome = Outcome(case)
        transport = "openssh" if case.victim == "ssh" else "paramiko"
        watch = Watch([self.pair.a, self.pair.b])
        self.client.look()
        try:
            with watch, self._migrating(case.place, transport) as process:
                outcome.why_not = self._act(case, process)
                process.wait(90)
            self._settle(process.returncode, outcome, watch)
        except (AssertionError, subprocess.SubprocessError, OSError) as error:
            outcome.problem = f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001  what the client or the program said: it is reported
            outcome.problem = f"{type(error).__name__}: {error}"
        finally:
            self._heal()
        if outcome.problem:
            hosts = (self.pair.a, self.pair.b)
            outcome.problem += "\n" + "\n".join([*map(portrait, hosts), self._said()])
        outcome.seconds = time.monotonic() - began
        return outcome

    def _act(self, case: Case, process: "subprocess.Popen[bytes]") -> str:
        """Wait for the place, act, let everybody go on. Why it could not, or ""."""
        path = self.path[case.place.split(":")[0]]
        while not path.exists():
            if process.poll() is not None:
                return "it did not come by the place: " + self._said()[-300:]
            time.sleep(0.002)
        self.wanted.write_text("")
        pid = self._victims(process.pid).get(case.victim, 0)
        if case.victim == LINK:
            self._cut()
            path.unlink()
            end = time.monotonic() + (BLINK if case.action == BLINKS else 60.0)
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            self._heal()
            return ""
        if not pid:
            path.unlink()
            return f"there is no {case.victim}"
        if case.action == KILL:
            os.kill(pid, signal.SIGKILL)
            path.unlink()
            return ""
        os.kill(pid, signal.SIGSTOP)
        path.unlink()
        end = time.monotonic() + STOPPED
        while time.monotonic() < end and (case.victim == "source" or process.poll() is None):
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        return ""

    def _cut(self) -> None:
        """Nothing of ssh passes the switch any more; the client's connection does."""
        drop = "tcp dport 22 drop; tcp sport 22 drop;"
        chain = f"chain pass {{ type filter hook forward priority 0; {drop} }};"
        rules = f"table bridge cut; delete table bridge cut; table bridge cut {{ {chain} }}"
        self._nft(rules)

    def _heal(self) -> None:
        self._nft("table bridge cut; delete table bridge cut")

    def _nft(self, rules: str) -> None:
        subprocess.run([*self.pair.enter, "nft", rules], check=True, capture_output=True)

    # -- afterwards

    def _settle(self, code: int, outcome: Outcome, watch: Watch) -> None:
        """One copy runs, or none and one command settles it; then everything is as it must be."""
        here, there = self.stand.here, self.stand.there
        self.client_died()
        first = self._runs()
        words = {0: "moved", 20: "rolled back", 21: "in doubt", 22: "left over", -9: "killed"}
        how = words.get(code, f"exit {code}")
        if code:
            how += self._resume(here)
        place = until(self._runs_alone, f"one copy to run, {how}, first {first}", 15, 0.05)
        self.stand.here = here if place == here.name else there
        if watch.two:
            raise Wrong(f"two copies ran at once: {watch.two}")
        idle = self.stand.there
        self._tidy(idle, how, lambda: leftovers(idle, self.stand.id))
        self._tidy(self.stand.here, how, lambda: open_ends(self.stand.here))
        self._whole(outcome)
        if not outcome.why_not:
            outcome.ended = f"{how}, it runs {'here' if place == here.name else 'there'}"

    def client_died(self) -> None:
        """Raise what the client has to say, if it ended."""
        if self.client.process.poll() is not None:
            self.client.look()

    def _resume(self, here: Host) -> str:
        """`migrate --resume` on the source, again while the far side has not made up its mind."""
        end = time.monotonic() + GONE
        while True:
            answer = here.ocimig("migrate", "--resume", self.stand.id, code=None, timeout=60)
            if answer.code in (0, 10):
                return "; --resume" if answer.code == 0 else ""
            if time.monotonic() > end:
                raise Wrong(f"--resume does not settle it: {answer}")
            time.sleep(0.2)

    def _runs(self) -> list[str]:
        """The hosts on which a copy runs, by what the kernel says."""
        found = []
        for host in (self.pair.a, self.pair.b):
            before = Seen.of(host)
            if not before:
                continue
            time.sleep(0.03)
            after = Seen.of(host)
            found += [host.name for pid in before if after.get(pid, 0) - before[pid] > 3]
        return found

    def _runs_alone(self) -> str:
        found = self._runs()
        return found[0] if len(found) == 1 else ""

    def _tidy(self, host: Host, how: str, left: Callable[[], list[str]]) -> None:
        """Nothing is left on a host; where an agent was killed, `recover` there sees to that."""
        end = time.monotonic() + GONE
        said = ""
        found = left()
        while found and time.monotonic() < end:
            if not any(line.startswith("process") for line in found):
                said = str(host.ocimig("recover", code=None))
            time.sleep(0.1)
            found = left()
        if found:
            raise Wrong(f"{how}; left on host {host.name}: {'; '.join(found)}; {said}")

    def _whole(self, outcome: Outcome) -> None:
        """Connection, memory, state, and nothing that slows it down or holds its packets back."""
        seen = self.client.look()
        outcome.gap_ms = seen.gap_ms
        self.client.look(check=True)
        here = self.stand.here
        state = here.ocimig.state(self.stand.id)
        if state["status"] != "running":
            raise Wrong(f"it is {state['status']} on host {here.name}")
        held = allowance(self.stand)
        if held != self.baseline:
            raise Wrong(f"it is not as it was: {json.dumps(held)}, not {json.dumps(self.baseline)}")

    def close(self) -> None:
        """End what a case that failed left running."""
        self._heal()
        for host in (self.pair.a, self.pair.b):
            signal_all([pid for pid in look(host) if pid not in _own(host)], signal.SIGCONT)


def _own(host: Host) -> set[int]:
    return {each.pid for each in (host.holder, host.daemon) if each is not None}


def remember(path: Path, outcome: Outcome) -> None:
    """One line of JSON more."""
    case = outcome.case
    row = {"place": case.place, "victim": case.victim, "action": case.action,
           "ended": outcome.ended, "problem": outcome.problem, "why_not": outcome.why_not,
           "seconds": round(outcome.seconds, 2), "gap_ms": outcome.gap_ms}  # fmt: skip
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
