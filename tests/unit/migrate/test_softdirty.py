"""Where soft-dirty bits do not tell of every write, the memory itself is read."""

import os
from contextlib import nullcontext

import pytest

from ocimig.migrate.trackers import maps, softdirty
from ocimig_testkit.areas import Area, noise

ME = os.getpid()


def test_a_process_whose_devices_write_is_followed_by_its_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """io_submit(2): the data comes after the bit was cleared, and pausing the process stops no device."""
    area = Area(4)
    area.fill(noise)
    mapped = maps.Maps([area.run], [area.run], aio=True)
    monkeypatch.setattr(maps, "read", lambda _: mapped)
    monkeypatch.setattr(softdirty, "_clear", lambda _: pytest.fail("the bits tell nothing"))
    monkeypatch.setattr(softdirty, "_written", lambda *_: [])
    tracker = softdirty.SoftDirty(nullcontext)
    [first] = tracker.look({ME: 1})
    assert (first.fresh, first.runs) == (True, [area.run])
    tracker.sent("p1", first.runs, memoryview(area.map))
    area.map[0] ^= 1
    for final in (False, True):
        [later] = tracker.look({ME: 1}, final=final)
        assert (later.fresh, later.runs) == (False, [area.page(0)])
    assert [maps.AIO_WRITES in note for note in tracker.notes] == [True]
    tracker.close()
