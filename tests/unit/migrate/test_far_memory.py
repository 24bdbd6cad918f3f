"""What the destination tells the page handler of memory that it holds, and of memory that is to come."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate import far_memory
from ocimig.migrate.far_memory import FarMemory
from ocimig.migrate.lazy import images, push
from ocimig.migrate.lazy.handler import Source
from ocimig.migrate.lazy.images import Lazy
from ocimig.migrate.memory import frames
from ocimig.migrate.memory.runs import PAGE, Run
from ocimig.migrate.transport.memory import pair
from ocimig.migrate.wire import Frame, Wire
from ocimig_testkit import until

START = 0x5000_0000_0000
FIRST, SECOND = (START, START + PAGE), (START + PAGE, START + 2 * PAGE)
REST = (START + 2 * PAGE, START + 4 * PAGE)
WHOLE = (START, START + 4 * PAGE)


class Handler:
    """Notes what it is to serve."""

    def __init__(self, *_: object, **__: object) -> None:
        self.spaces: Mapping[int, Sequence[Source]] = {}
        self.later: Mapping[int, Sequence[Run]] = {}

    def serve(
        self,
        spaces: Mapping[int, Sequence[Source]],
        hot: object,
        later: Mapping[int, Sequence[Run]],
    ) -> None:
        """As PageHandler."""
        self.spaces, self.later = spaces, later

    def arrived(self, pid: int, runs: object) -> None:
        """Nobody waits."""

    def close(self) -> None:
        """Nothing to close."""


def pages(runs: list[Run], kind: int, data: bytes = b"") -> tuple[str, dict[str, Any], bytes]:
    """A frame of pages of process 7, as Wire.send takes it."""
    table = frames.table([(start, end, kind) for start, end in runs])
    header = frames.header("p7", len(runs), len(data), compressed=False)
    return frames.PAGES, header, table + data


def test_zeros_that_were_written_since_do_not_become_zeros_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Sent as zeros in a round, left for later, and one is there before the handler hears of it: it would
    fill in what it was told, and so would one that takes over from a dead one."""
    monkeypatch.setattr(far_memory, "PageHandler", Handler)
    monkeypatch.setattr(images, "read_shared", lambda _: [])
    far = FarMemory(str(tmp_path), lambda _: None)
    here, there = (Wire(channel) for channel in pair())
    far.held.take(Frame(*pages([WHOLE], frames.ZERO)))

    def read(_: str) -> Iterator[tuple[int, Lazy]]:
        here.send(*pages([FIRST], frames.PRESENT, os.urandom(PAGE)))
        assert until(lambda: far.pull.pages == 1, "it came")
        yield 7, Lazy([WHOLE], [], "")

    monkeypatch.setattr(images, "read", read)
    thread = threading.Thread(target=lambda: far.follow(there, there.receive()))
    thread.start()
    here.send(push.LEFT, {"space": "p7"}, frames.pack_runs([(FIRST[0], SECOND[1])]))
    here.send(push.FOLLOW)
    far.serve("images", {}, follows=True)
    here.send(*pages([SECOND], frames.PRESENT, os.urandom(PAGE)))
    here.send(push.END)
    thread.join(10)
    (source,) = far.handler.spaces[7]  # type: ignore[attr-defined]
    assert source.holes == [REST]
    assert far.handler.later == {7: [SECOND]}  # type: ignore[attr-defined]
    for each in (far, here, there):
        each.close()
