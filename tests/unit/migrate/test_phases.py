"""The phase table, the records of the journals and what two last records mean."""

import itertools
from pathlib import Path

import pytest

from ocimig.migrate import phases

DOCUMENT = Path(__file__).parents[3] / "docs/migration.md"


def test_the_document_shows_the_table() -> None:
    """docs/migration.md has the phase table of the program, to the letter."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert phases.table() in text


def test_every_source_record_has_a_phase() -> None:
    """A person is told the phase of any record that is no end."""
    assert set(phases.SOURCE) - {"ABORTED"} == set(phases.PHASE_OF)


@pytest.mark.parametrize("side", ["source", "destination", "group"])
def test_every_record_can_be_reached_and_left(side: str) -> None:
    """From nothing to an end, without a dead end in between."""
    table = phases.TABLES[side]
    reached, todo = set(), [""]
    while todo:
        record = todo.pop()
        if record not in reached:
            reached.add(record)
            todo += table[record]
    assert reached == set(table)
    ends = {record for record in table if phases.ended(side, record)}
    assert (
        ends
        == {
            "source": {"DONE", "ABORTED"},
            "destination": {"RUNNING", "ABORTED", "FAILED", "LOST"},
            "group": {"GO", "ABORTED"},
        }[side]
    )


def test_the_owner_changes_once() -> None:
    """Here until the commit, there from it on."""
    owners = [row.owner for row in phases.PHASES]
    assert [owner for owner, _ in itertools.groupby(owners)] == [phases.HERE, phases.THERE]


def test_no_pair_of_records_gives_both_sides_the_container() -> None:
    """Ours never while the destination runs it, theirs never unless it does or did."""
    theirs = [record for record in phases.DESTINATION if record] + [None, phases.UNKNOWN]
    for here in phases.SOURCE:
        if here == "ABORTED":
            continue
        for there in theirs:
            verdict = phases.settle(here, there).verdict
            if there == "RUNNING" and phases.committed(here):
                assert verdict == phases.THEIRS, (here, there)
            if there == "GO" and here == "COMMIT-INTENT":
                assert verdict == phases.WAIT
            if verdict == phases.OURS and phases.committed(here):
                assert there in ("ABORTED", "FAILED"), (here, there)


@pytest.mark.parametrize("there", [None, phases.UNKNOWN, phases.LOST])
def test_silence_is_no_answer(there: str | None) -> None:
    """After the commit neither silence, a lost journal nor lost memory gives the container back."""
    found = phases.settle("COMMIT-INTENT", there)
    assert found.verdict == phases.HELD
    assert found.reason
