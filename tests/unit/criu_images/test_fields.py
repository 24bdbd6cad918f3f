"""Messages read by hand: right by CRIU's own word, and never beyond bounds."""

from typing import Any

import pytest

from ocimig.criu_images import binary, fields, tables
from ocimig.criu_images.errors import CriuMissing
from ocimig.criu_images.fields import Table
from ocimig_testkit import images

MESSAGES = {
    "INVENTORY": "inventory_pb2.inventory_entry", "PSTREE": "pstree_pb2.pstree_entry",
    "CORE": "core_pb2.core_entry", "MM": "mm_pb2.mm_entry", "VMA": "vma_pb2.vma_entry",
    "FDINFO": "fdinfo_pb2.fdinfo_entry", "FS": "fs_pb2.fs_entry", "FILE": "fdinfo_pb2.file_entry",
    "TTY_INFO": "tty_pb2.tty_info_entry", "MEMFD": "memfd_pb2.memfd_inode_entry",
    "MOUNT": "mnt_pb2.mnt_entry", "CGROUP": "cgroup_pb2.cgroup_entry",
    "UTSNS": "utsns_pb2.utsns_entry", "USERNS": "userns_pb2.userns_entry",
    "TIMENS": "timens_pb2.timens_entry", "SECCOMP": "seccomp_pb2.seccomp_entry",
    "STATS": "stats_pb2.stats_entry", "IDS": "core_pb2.task_kobj_ids_entry",
}  # fmt: skip
# FieldDescriptor.TYPE_*
_SIGNED, _ZIGZAG, _TEXT, _BYTES, _MESSAGE = {3, 5}, {17, 18}, 9, 12, 11


@pytest.mark.parametrize("name", MESSAGES)
def test_a_table_is_what_criu_says(name: str) -> None:
    """A wrong number or kind would be read as something else, without an error."""
    module, _, message = MESSAGES[name].partition(".")
    try:
        found = binary.image_messages(binary.find(), module)
    except CriuMissing as error:
        pytest.skip(str(error))
    _compare(getattr(tables, name), getattr(found, message).DESCRIPTOR, set())


def _compare(table: Table, descriptor: Any, seen: set[int]) -> None:
    if id(table) in seen:
        return
    seen.add(id(table))
    for number, (name, kind, many, inner) in table.fields.items():
        field = descriptor.fields_by_number[number]
        assert field.name == name
        repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == 3
        assert repeated == many, name
        assert (field.type == _MESSAGE) == (inner is not None), name
        if inner is not None:
            _compare(inner, field.message_type, seen)
        else:
            kinds = {_TEXT: "t", _BYTES: "b"} | dict.fromkeys(_SIGNED, "i")
            kinds |= dict.fromkeys(_ZIGZAG, "s")
            assert kinds.get(field.type, "u") == kind, name


def test_what_is_written_is_read() -> None:
    """Every kind of field, the largest and the smallest values, and defaults for what is absent."""
    table = Table("a=1 b=2:i c=3:s d=4:t e=5:b f=6* g=7:inner h=8", inner=Table("x=1"))
    values = {"a": (1 << 64) - 1, "b": -1, "c": -3, "d": "ü", "e": b"\xff", "f": [0, 300]}
    values["g"] = {"x": 5}
    assert fields.parse(images.message(values, table), table) == {**values, "h": 0}
    assert fields.parse(b"", table)["g"] is None


def test_packed_numbers_and_unknown_fields() -> None:
    """Another writer may pack what repeats, and a newer CRIU knows more."""
    table = Table("f=6*")
    packed = images.encode(6, "b", b"\x01\xac\x02") + images.encode(90, "t", "new")
    assert fields.parse(packed, table) == {"f": [1, 300]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x08", "middle of a number"),
        (b"\x08" + b"\xff" * 11, "ten bytes"),
        (b"\x12\x05ab", "behind its message"),
        (b"\x0b", "wire type"),
        (b"\x00\x00", "field number 0"),
        (b"\x0a\x01a", "no number"),
        (b"\x18\x01", "is a number"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, words: str) -> None:
    """With words, and never with another exception."""
    with pytest.raises(ValueError, match=words):
        fields.parse(data, Table("a=1 d=3:t"))


def test_messages_inside_messages_have_an_end() -> None:
    """A table that contains itself is no way to exhaust the stack."""
    data = b""
    for _ in range(500):
        data = images.encode(2, "b", data)
    with pytest.raises(ValueError, match="too deeply"):
        fields.parse(images.encode(2, "b", images.encode(2, "b", data)), tables.CGROUP)


def test_a_message_has_at_most_so_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes could otherwise become a dict of hundreds."""
    monkeypatch.setattr(fields, "VALUES", 1000)
    data = b"\x0a\x00" * 1001
    with pytest.raises(ValueError, match="more than"):
        fields.parse(data, tables.CGROUP)


def test_fields_that_nobody_wants_cost_nothing() -> None:
    """A process may have more mappings than a message may have values."""
    data = images.encode(14, "b", b"") * (fields.VALUES + 1) + images.encode(12, "u", 5)
    assert fields.parse(data, tables.MM)["exe_file_id"] == 5
