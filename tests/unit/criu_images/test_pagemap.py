"""CRIU's lists of pages, and what was withheld from them."""

import struct
from pathlib import Path

import pytest

from ocimig.criu_images import assemble, binary, entries, pagemap
from ocimig.criu_images.errors import BadImage, CriuMissing
from ocimig.criu_images.pagemap import LAZY, PARENT, PRESENT, Entry, Pagemap
from ocimig.criu_images.withheld import Withheld

_HEAD = struct.pack("<II", 0x54564319, 0x56084025)
_HIGH = 0x7FFFFFFFF000


def _file(directory: Path, found: list[Entry]) -> Path:
    path = directory / "pagemap-7.img"
    pagemap.write(str(path), Pagemap(_HEAD, 1, found))
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Large addresses and counts, and every flag."""
    found = [
        Entry(0x1000, 1, PRESENT),
        Entry(0x10000, 1 << 33, LAZY),
        Entry(_HIGH, 1, PARENT),
    ]
    assert pagemap.read(str(_file(tmp_path, found))) == Pagemap(_HEAD, 1, found)


def test_criu_s_own_messages_read_both_counts(tmp_path: Path) -> None:
    """The count of before 4.2 and the one since; CRIU's generated messages are the judge."""
    try:
        messages = binary.image_messages(binary.find(), "pagemap_pb2")
    except CriuMissing:
        pytest.skip("no criu here")
    path = _file(tmp_path, [Entry(_HIGH, 300, LAZY | PRESENT), Entry(_HIGH << 4, 1, PARENT)])
    _, head, first, second = entries.read(str(path))
    assert messages.pagemap_head.FromString(head).pages_id == 1
    entry = messages.pagemap_entry.FromString(first)
    names = {field.number: field.name for field in entry.DESCRIPTOR.fields}
    assert entry.vaddr == _HIGH
    assert entry.flags == LAZY | PRESENT
    assert getattr(entry, names[2]) == 300
    assert getattr(entry, names.get(5, names[2])) == 300
    assert messages.pagemap_entry.FromString(second).in_parent


@pytest.mark.parametrize(
    "record",
    [b"\x08\x80", b"\x0a\x01a", b"\x08\x01\x10\x01\x20\x04\x28\x01\x30\x05"],
    ids=["torn", "not a number", "a field of a newer criu"],
)
def test_what_cannot_be_kept_is_refused(tmp_path: Path, record: bytes) -> None:
    """Writing it again would lose it."""
    path = tmp_path / "pagemap-7.img"
    entries.write(str(path), _HEAD, [b"\x08\x01", record])
    with pytest.raises(BadImage):
        pagemap.read(str(path))


def test_withheld_pages_become_lazy_in_their_place(tmp_path: Path) -> None:
    """Sorted among those that are there, which are nobody's to serve; the pages file needs no change."""
    path = _file(tmp_path, [Entry(0x3000, 2, PRESENT), Entry(0x9000, 1, PRESENT | LAZY)])
    assert assemble.merge(str(tmp_path), 7, [(0x1000, 0x3000), (0x5000, 0x6000)]) == 3
    assert pagemap.read(str(path)).entries == [
        Entry(0x1000, 2, LAZY),
        Entry(0x3000, 2, PRESENT),
        Entry(0x5000, 1, LAZY),
        Entry(0x9000, 1, PRESENT),
    ]


def test_a_page_that_was_saved_after_all_is_an_error(tmp_path: Path) -> None:
    """One of the two copies would be wrong."""
    _file(tmp_path, [Entry(0x3000, 2, PRESENT)])
    with pytest.raises(BadImage, match="twice"):
        assemble.merge(str(tmp_path), 7, [(0x4000, 0x5000)])


def test_the_log_of_what_was_withheld_is_joined(tmp_path: Path) -> None:
    """CRIU may ask for the same pages twice, and in any order of processes."""
    log = Withheld(str(tmp_path))
    assert log.read() == {}
    records = [(9, 0x3000, 0x4000), (4, 0x1000, 0x2000), (9, 0x1000, 0x3000), (9, 0x2000, 0x3000)]
    (tmp_path / "withheld").write_bytes(b"".join(struct.pack("<3Q", *each) for each in records))
    assert log.read() == {9: [(0x1000, 0x4000)], 4: [(0x1000, 0x2000)]}


def test_a_torn_log_is_refused(tmp_path: Path) -> None:
    """A page that nobody knows of would be a page of zeros."""
    log = Withheld(str(tmp_path))
    (tmp_path / "withheld").write_bytes(b"\0" * 25)
    with pytest.raises(BadImage):
        log.read()


def test_an_old_list_is_gone_before_criu_starts(tmp_path: Path) -> None:
    """It would speak of other processes."""
    (tmp_path / "withhold").write_bytes(b"old")
    log = Withheld(str(tmp_path))
    assert not (tmp_path / "withhold").exists()
    log.write({5: [(0x1000, 0x2000)], 3: [(0x1000, 0x1000)]})
    assert (tmp_path / "withhold").read_bytes() == b"ocimigW1" + struct.pack(
        "<4Q", 1, 5, 0x1000, 0x2000
    )
