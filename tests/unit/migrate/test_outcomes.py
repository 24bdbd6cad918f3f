"""How a drain ended: its table, its exit code."""

import pytest

from ocimig.migrate.outcomes import SEVERITY, Outcome, table, word, worst


@pytest.mark.parametrize(
    ("codes", "code"),
    [((), 0), ((0, 0), 0), ((0, 22), 22), ((22, 14, 0), 14), ((14, 20), 20), ((20, 21, 0), 21),
     ((3, 0), 3), ((0, 77), 20)],
)  # fmt: skip
def test_the_worst_decides(codes: tuple[int, ...], code: int) -> None:
    """A container in doubt before one that stayed, one that stayed before leftovers; 0 only for all."""
    assert (
        worst([Outcome(str(number), "h2", "x", each) for number, each in enumerate(codes)]) == code
    )


def test_a_row_says_where_and_why() -> None:
    """Columns line up; what is not known is a dash."""
    rows = table(
        [
            Outcome("web", "host2", "moved", seconds=1.26, blackout=0.0634),
            Outcome("db", "", "refused", 14, "it has an io_uring", "turn it off"),
        ]
    )
    assert rows[1].split() == ["web", "host2", "moved", "1.3", "63", "ms"]
    assert rows[2].endswith("it has an io_uring; turn it off")
    assert rows[0].index("WHY") == rows[2].index("it has")


def test_json_has_what_the_table_has() -> None:
    """In seconds, whole."""
    found = Outcome("web", "host2", "moved", seconds=1.26, blackout=0.0634, bytes=7).to_dict()
    assert found["blackout_seconds"] == 0.0634
    assert (found["id"], found["host"], found["code"], found["bytes"]) == ("web", "host2", 0, 7)
    assert "host_failed" not in found


def test_every_code_of_a_migration_has_a_place() -> None:
    """And the words of those that are no plain failure."""
    assert len(set(SEVERITY)) == len(SEVERITY)
    assert [word(code) for code in (21, 22, 130, 20)] == [
        "in doubt",
        "leftovers",
        "interrupted",
        "failed",
    ]
