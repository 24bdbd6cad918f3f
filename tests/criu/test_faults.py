"""The phase table holds under every failure: a sample of the fault matrix, and that nothing is missing in it.

`make faults` runs all of it (contrib/faults.py).
"""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate import phases
from ocimig_testkit.faults import KILL, LINK, STOP, VICTIMS, Case, Places
from ocimig_testkit.source import ROOT


def _program() -> Any:
    """contrib/faults.py, which is no package."""
    spec = importlib.util.spec_from_file_location("faults", ROOT / "contrib/faults.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults"] = module
    spec.loader.exec_module(module)
    return module


program = _program()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Any]:
    """Two hosts with a container that a client watches."""
    made = program.World(tmp_path)
    yield made
    made.close()


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.netns
@pytest.mark.ssh
@pytest.mark.nft
@pytest.mark.slow
def test_whatever_fails_one_copy_runs_or_one_command_settles_it(world: Any, tmp_path: Path) -> None:
    """A migration is walked through all its places; then something happens at each record of both
    journals, another from one to the next: who is hit, and whether it is killed, stopped or cut off."""
    places = program.matrix(world.open())
    assert program.incomplete(places) == []
    living = {victim for victims in places.living.values() for victim in victims}
    assert living == set(VICTIMS)
    # What died with its port in the bridge reset the connection, every other time; what died when its network
    # was open had acknowledged what nobody saw.
    known = [
        Case("destination:GO/attached", "agent", KILL),
        Case("destination:GO/unlocked", "criu there", KILL),
    ]
    cases = [*places.sample(), *known]
    assert set(known) <= set(places.cases())
    outcomes = program.run(world, cases, tmp_path / "results")
    problems = [f"{each.case}: {each.problem}" for each in outcomes if each.problem]
    assert not problems, "\n".join(problems)
    assert sum(bool(each.ended) for each in outcomes) > len(cases) / 2


def test_the_matrix_is_every_place_times_who_lives_there() -> None:
    """Two ways to hurt each process, two to hurt the link, at each place."""
    places = Places({"source:PRECOPY:after": ["source", "agent"], "source:/facts:sent": ["source"]})
    cases = places.cases()
    assert len(cases) == 2 * 3 + 2 * 2
    assert {case.action for case in cases if case.victim != LINK} == {KILL, STOP}


def test_a_record_that_a_migration_does_not_come_by_is_missed() -> None:
    """The tables of the phases say which lines both journals get: they are not counted, but asked for."""
    wanted = {
        f"{side}:{record}:{moment}": ["source"]
        for side in ("source", "destination")
        for record in program.way(phases.TABLES[side])
        for moment in ("before", "after")
    }
    assert {"source:DONE:after", "destination:RUNNING:after"} <= set(wanted)
    assert program.incomplete(Places(wanted)) == []
    missing = {place: victims for place, victims in wanted.items() if place != "source:ACKED:after"}
    assert program.incomplete(Places(missing)) == ["source:ACKED:after"]


def test_a_case_that_went_wrong_is_counted_and_named() -> None:
    """The last word of the matrix: how many, of what kind, what became of them."""
    row = {"place": "source:GO:after", "victim": "agent", "action": "kill", "problem": ""}
    rows: list[dict[str, Any]] = [
        {**row, "ended": "moved"}, {**row, "ended": ""}, {**row, "ended": "", "problem": "two\nmore"},
    ]  # fmt: skip
    said = program.summary(json.loads(json.dumps(rows)))
    assert said.startswith("2 cases, 1 of them wrong\n")
    assert said.endswith("WRONG source:GO:after, agent: kill: two")
