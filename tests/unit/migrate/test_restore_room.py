"""Limits with room for CRIU, and what takes the room back."""

from typing import Any

import pytest

from ocimig.migrate import restore_room

MIB = 1 << 20


@pytest.mark.parametrize(
    ("resources", "wide", "exact"),
    [
        ({}, {}, {}),
        ({"memory": {"limit": -1}}, {"memory": {"limit": -1}}, {}),
        ({"memory": {"swappiness": 3}}, {"memory": {"swappiness": 3}}, {}),
        (
            {"memory": {"limit": MIB, "swap": 2 * MIB, "reservation": 5}},
            {"memory": {"limit": 129 * MIB, "swap": 130 * MIB, "reservation": 5}},
            {"memory": {"limit": MIB, "swap": 2 * MIB, "reservation": 5}},
        ),
        ({"pids": {"limit": 3}}, {"pids": {"limit": 67}}, {"pids": {"limit": 3}}),
        ({"pids": {"limit": -1}}, {"pids": {"limit": -1}}, {}),
        (
            {"cpu": {"quota": 10, "period": 100, "shares": 7}},
            {"cpu": {"period": 100, "shares": 7}},
            {"cpu": {"quota": 10, "period": 100}},
        ),
        (
            {"unified": {"memory.max": "9", "io.weight": "3"}},
            {"unified": {"io.weight": "3"}},
            {"unified": {"memory.max": "9"}},
        ),
    ],
)
def test_there_is_room_and_it_is_taken_back(
    resources: dict[str, Any], wide: dict[str, Any], exact: dict[str, Any]
) -> None:
    """Only what was widened is written again."""
    assert restore_room.wide(resources) == wide
    assert restore_room.exact(resources) == exact


def test_the_share_of_the_processor_is_taken_back_first() -> None:
    """As soon as it runs; the rest when CRIU has left."""
    resources = {"cpu": {"quota": 10}, "memory": {"limit": MIB}}
    assert restore_room.processor(resources) == {"cpu": {"quota": 10}}
    assert restore_room.processor({"cpu": {"shares": 3}}) == {}
