"""The user of exec is read exactly or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocimig.runtime import validate


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("0", (0, None)),
        ("1", (1, None)),
        ("1:2", (1, 2)),
        ("4294967294:0", (4294967294, 0)),
        ("007", (7, None)),
    ],
)
def test_a_user_is_read_exactly(text: str, user: tuple[int, int | None]) -> None:
    """Digits, and digits after one colon."""
    assert validate.parse_user(text) == user


@pytest.mark.parametrize(
    "text",
    ["", ":", "1:", ":1", "+1", "-1", "0x1", "１", "1:２", "1 ", " 1", "1\n", "1:2:3", "root",
     "4294967295", "4294967296", "9" * 5000, "1.0", "1e3", "²", "٣", "1_0", "name with: colon"],
)  # fmt: skip
def test_what_is_not_exactly_a_user_is_refused(text: str) -> None:
    """Never the user 0 by accident (CVE-2026-30892)."""
    with pytest.raises(ValueError, match=r"bad (uid|gid)"):
        validate.parse_user(text)


@given(st.integers(0, 0xFFFFFFFE), st.none() | st.integers(0, 0xFFFFFFFE))
def test_every_user_survives_the_round_trip(uid: int, gid: int | None) -> None:
    """What is written as uid:gid is read back the same."""
    text = str(uid) if gid is None else f"{uid}:{gid}"
    assert validate.parse_user(text) == (uid, gid)
