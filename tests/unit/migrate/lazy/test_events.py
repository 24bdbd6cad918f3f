"""The record of events survives whoever reads them."""

import os
import struct

from ocimig.migrate.lazy import events
from ocimig.migrate.lazy.events import Record


def _said(kind: int, *words: int) -> int:
    """A descriptor that says one event, as a userfaultfd does."""
    reader, writer = os.pipe()
    os.write(writer, struct.pack("=B7xQQQ", kind, *words))
    os.close(writer)
    return reader


def _read(record: Record, kind: int, *words: int, serial: int = 1) -> events.Event | None:
    fd = _said(kind, *words)
    try:
        return record.read(fd, serial)
    finally:
        os.close(fd)


def test_what_changed_the_memory_is_replayed_in_order_and_faults_are_not() -> None:
    """A fault that was not answered is asked for again by the kernel."""
    record = Record()
    _read(record, events.REMAP, 1, 2, 3)
    _read(record, events.PAGEFAULT, 0, 4096, 0)
    _read(record, events.REMOVE, 4, 5, 0, serial=2)
    _read(record, events.PAGEFAULT, 0, 8192, 0)
    assert [(event.serial, event.kind, event.first) for event in record.replay()] == [
        (1, events.REMAP, 1),
        (2, events.REMOVE, 4),
    ]


def test_an_event_is_on_record_before_its_reader_has_seen_it() -> None:
    """A reader that is killed right after its read has lost nothing: another counts on from there."""
    record = Record()
    pid = os.fork()
    if not pid:
        _read(record, events.UNMAP, 7, 8, 0)
        os._exit(0)
    os.waitpid(pid, 0)
    assert [event.first for event in record.replay()] == [7]
    after = _read(record, events.REMOVE, 9, 10, 0)
    assert after is not None
    assert after.slot == 1


def test_a_userfaultfd_that_says_nothing_leaves_no_trace() -> None:
    """It is read without waiting."""
    record = Record()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    assert record.read(reader, 1) is None
    os.close(reader)
    os.close(writer)
    assert list(record.replay()) == []


def test_a_record_that_is_full_says_so() -> None:
    """Then nobody can take over."""
    record = Record(64 + 40 * 2)
    for number in range(2):
        _read(record, events.REMOVE, number, number, 0)
    assert record.whole
    _read(record, events.REMOVE, 9, 9, 0)
    assert not record.whole
