"""Work in a process of its own, that may stay after it said how it went."""

import os
import signal
import time
from pathlib import Path

import pytest

from ocimig.migrate.clone import keeper
from ocimig.migrate.clone.errors import NotCloned
from ocimig.migrate.lazy import hurry, mark
from ocimig.runtime.errors import ContainerExists


def test_it_stays_after_it_said_how_it_went(tmp_path: Path) -> None:
    """Who waits for the answer does not wait for the end."""
    reader, writer = os.pipe()

    def work(say: keeper.Said) -> None:
        os.close(writer)
        say({"pid": os.getpid()})
        os.read(reader, 1)
        (tmp_path / "after").touch()

    said = keeper.apart(work)
    os.close(writer)  # now it goes on
    os.close(reader)
    os.waitpid(said["pid"], 0)
    assert (tmp_path / "after").exists()


def test_what_it_raises_is_raised_here() -> None:
    """In the same words, with the same code."""

    def work(_: keeper.Said) -> None:
        raise ContainerExists(id="web-1")

    with pytest.raises(NotCloned) as caught:
        keeper.apart(work)
    assert str(caught.value) == str(ContainerExists(id="web-1"))
    assert caught.value.code == ContainerExists.code


def test_that_it_was_killed_is_said() -> None:
    """Then there is no answer, and nobody waits for one."""

    def work(_: keeper.Said) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(NotCloned, match="its process ended"):
        keeper.apart(work)


def test_who_is_interrupted_interrupts_it(tmp_path: Path) -> None:
    """What it had begun is undone before the interruption goes on."""

    def work(_: keeper.Said) -> None:
        def stop(*_: object) -> None:
            raise SystemExit

        signal.signal(signal.SIGTERM, stop)
        try:
            os.kill(os.getppid(), signal.SIGINT)
            while True:  # one long sleep could begin right after the signal, and not hear of it
                time.sleep(0.01)
        finally:
            (tmp_path / "undone").touch()

    with pytest.raises(KeyboardInterrupt):
        keeper.apart(work)
    assert (tmp_path / "undone").exists()


def test_who_waits_for_memory_asks_for_it(tmp_path: Path) -> None:
    """It would never come by itself."""
    held = mark.take(str(tmp_path))
    with hurry.listen(str(tmp_path)) as listener:
        listener.settimeout(1)
        assert not mark.wait(str(tmp_path), 0.01)
        listener.accept()[0].close()
        os.close(held)
        assert mark.wait(str(tmp_path), 1)


def test_who_only_looks_asks_for_nothing(tmp_path: Path) -> None:
    """A copy is not to load all of its memory because somebody was curious."""
    held = mark.take(str(tmp_path))
    with hurry.listen(str(tmp_path)) as listener:
        listener.setblocking(False)
        assert not mark.wait(str(tmp_path))
        with pytest.raises(BlockingIOError):
            listener.accept()
    os.close(held)


def test_nobody_has_to_be_asked_where_nobody_listens(tmp_path: Path) -> None:
    """Neither one that has ended nor one that never was."""
    hurry.ask(str(tmp_path))
    hurry.listen(str(tmp_path)).close()
    hurry.ask(str(tmp_path))


def test_an_interruption_that_is_ignored_interrupts_nothing() -> None:
    """As in a script that was put into the background."""

    def work(say: keeper.Said) -> None:
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(0.2)  # several looks at what waits
        say({"pid": os.getpid()})

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        os.waitpid(keeper.apart(work)["pid"], 0)
    finally:
        signal.signal(signal.SIGINT, before)
