"""How long the two sides of a migration wait for a word before anything is reserved."""

import time
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate import agent, engine, journal
from ocimig.migrate.wire import Wire
from ocimig_testkit.migration import OPTIONS, TARGET, FakeSource, Link, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two hosts; the container runs on the near one."""
    return World(tmp_path)


def test_an_agent_without_a_word_does_not_wait_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that went silent before anything was reserved tells nobody that it is gone."""
    monkeypatch.setattr(agent, "QUIET", 0.3)
    link = Link(world, monkeypatch)
    connection = link()
    wire = Wire(connection.open(["ocimig", "agent"]))
    wire.greet()
    link.settle()
    wire.close()
    connection.close()
    assert not journal.every(world.far)


def test_looking_at_itself_may_take_the_source_longer_than_that(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It beats meanwhile: a container of a million files is no reason to hang up."""
    monkeypatch.setattr(agent, "QUIET", 0.5)
    monkeypatch.setattr(Wire, "beating", partialmethod(Wire.beating, 0.1))
    look = FakeSource.container

    def slowly(hands: FakeSource, *arguments: Any) -> dict[str, Any]:
        time.sleep(1.5)
        return look(hands, *arguments)

    monkeypatch.setattr(FakeSource, "container", slowly)
    link = Link(world, monkeypatch)
    engine.migrate(world.near, "c1", TARGET, OPTIONS, hands=FakeSource(world), connecting=link)
    link.settle()
    assert world.running() == ["there"]
