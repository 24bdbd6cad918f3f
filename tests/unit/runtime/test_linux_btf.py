"""The reader of BTF, on blobs made here: offsets through nameless structs, and nothing but Malformed."""

import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ocimig.runtime.linux import btf, vma_flags

WORD, POINTER = 1, 2  # types of every blob here: an integer of 8 bytes, a pointer to it


class Blob:
    """BTF in the making: each `add` gives the id of the type."""

    def __init__(self) -> None:
        self.types = b""
        self.strings = b"\0"
        self.count = 0
        assert self.add(btf.BTF_KIND_INT, "long", 8, [64]) == WORD
        assert self.add(btf.BTF_KIND_PTR, "", WORD) == POINTER

    def name(self, text: str) -> int:
        """The offset of a string; "" is 0."""
        found = self.strings.find(b"\0%s\0" % text.encode()) + 1 if text else 0
        if text and not found:
            found = len(self.strings)
            self.strings += text.encode() + b"\0"
        return found

    def add(self, kind: int, name: str, size: int, more: "list[int]" = [], vlen: int = 0) -> int:  # noqa: B006
        """One type."""
        words = [self.name(name), kind << 24 | vlen, size, *more]
        self.types += struct.pack(f"={len(words)}I", *(word & 0xFFFFFFFF for word in words))
        self.count += 1
        return self.count

    def record(
        self, name: str, *members: tuple[str, int, int], kind: int = btf.BTF_KIND_STRUCT
    ) -> int:
        """A struct or union: name, type and offset in bits of each member."""
        more = [word for text, type, bits in members for word in (self.name(text), type, bits)]
        return self.add(kind, name, 64, more, len(members))

    def bytes(self) -> bytes:
        """The blob."""
        header = struct.pack("=HBBI", 0xEB9F, 1, 0, 24)
        lengths = (0, len(self.types), len(self.types), len(self.strings))
        return header + struct.pack("=4I", *lengths) + self.types + self.strings


def kernel(*, flags: str = "vm_flags", link: str = "task", depth: int = 2) -> Blob:
    """What a kernel tells of the iterator, with vm_start and vm_flags in nameless places."""
    blob = Blob()
    inner = blob.record("", ("vm_start", WORD, 0), ("vm_end", WORD, 64))
    for _ in range(depth):
        inner = blob.record("", ("", inner, 0), ("vm_freeptr", WORD, 0), kind=btf.BTF_KIND_UNION)
    number = blob.add(btf.BTF_KIND_TYPEDEF, "vm_flags_t", WORD)
    constant = blob.add(btf.BTF_KIND_CONST, "", number)
    union = blob.record("", (flags, constant, 0), ("__vm_flags", number, 0), kind=5)
    area = blob.record("vm_area_struct", ("", inner, 0), ("vm_mm", POINTER, 128), ("", union, 256))
    meta = blob.record("bpf_iter_meta", ("seq", POINTER, 0), ("session_id", WORD, 64))
    task = blob.record("task_struct", ("pid", WORD, 0))
    more = []
    for name, id in (("meta", meta), ("task", task), ("vma", area)):
        more += [blob.name(name), blob.add(btf.BTF_KIND_PTR, "", id)]
    prototype = blob.add(btf.BTF_KIND_FUNC_PROTO, "", WORD, more, 3)
    blob.record("bpf_iter_task_vma", ("other", WORD, 0))  # of that name too, but no function
    blob.add(btf.BTF_KIND_FUNC, "bpf_iter_task_vma", prototype)
    blob.record("bpf_iter_link_info", (link, WORD, 0), kind=btf.BTF_KIND_UNION)
    return blob


def test_offsets_are_found_in_nameless_structs_and_unions() -> None:
    """As deep as they lie."""
    for depth in (0, 1, 30):
        blob = kernel(depth=depth)
        known = vma_flags.layout(blob.bytes())
        assert known.members == (0, 8, 32)
        assert (known.meta, known.vma, known.seq) == (0, 16, 0)
        types = btf.Btf(blob.bytes())
        assert types.find(btf.BTF_KIND_FUNC, "bpf_iter_task_vma") == known.hook == blob.count - 1


def test_what_is_not_there_is_not_found() -> None:
    """No type 0 by accident."""
    types = btf.Btf(kernel().bytes())
    assert types.find(btf.BTF_KIND_STRUCT, "nothing") == 0
    assert types.find(btf.BTF_KIND_FUNC, "vm_area_struct") == 0
    assert types.member(types.find(btf.BTF_KIND_STRUCT, "vm_area_struct"), "nothing") is None


def test_a_kernel_without_what_is_needed_is_told() -> None:
    """In words, and the filter by process is asked for before it is used."""
    with pytest.raises(vma_flags.Unavailable, match="no member vm_flags"):
        vma_flags.layout(kernel(flags="flags").bytes())
    with pytest.raises(vma_flags.Unavailable, match="6.1"):
        vma_flags.layout(kernel(link="map").bytes())
    with pytest.raises(vma_flags.Unavailable, match="5.12"):
        vma_flags.layout(Blob().bytes())


def test_circles_end() -> None:
    """A typedef of itself, a struct in itself."""
    blob = Blob()
    circle = blob.add(btf.BTF_KIND_TYPEDEF, "t", 3)
    nested = blob.record("", ("", 4, 0), ("", 4, 8))
    types = btf.Btf(blob.bytes())
    with pytest.raises(btf.Malformed, match="without end"):
        types.plain(circle)
    assert types.member(nested, "x") is None


def test_bit_fields_are_no_members() -> None:
    """Their offset is none in bytes."""
    blob = Blob()
    id = blob.record("s", ("bits", WORD, 3 << 24 | 8), ("whole", WORD, 64), kind=128 | 4)
    types = btf.Btf(blob.bytes())
    assert types.kind(id) == btf.BTF_KIND_STRUCT
    assert types.member(id, "bits") is None
    assert types.member(id, "whole") == (8, WORD)


def test_every_beginning_of_a_blob_is_malformed_or_complete() -> None:
    """Cut anywhere, with the header as it was."""
    data = kernel().bytes()
    for length in range(len(data)):
        with pytest.raises(btf.Malformed):
            btf.Btf(data[:length])


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=400))
@example(b"")
def test_any_bytes_are_unavailable(data: bytes) -> None:
    """Alone, and behind a good header."""
    with pytest.raises(vma_flags.Unavailable):
        vma_flags.layout(data)
    usable = len(data) // 4 * 4
    header = struct.pack("=HBBI4I", 0xEB9F, 1, 0, 24, 0, usable, 0, len(data))
    with pytest.raises(vma_flags.Unavailable):
        vma_flags.layout(header + data)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_kernel_is_read_or_unavailable(damage: list[tuple[int, int]]) -> None:
    """Some bytes of a good one changed: another layout or Unavailable, nothing else."""
    data = bytearray(kernel().bytes())
    for at, value in damage:
        data[at % len(data)] = value
    try:
        known = vma_flags.layout(bytes(data))
    except vma_flags.Unavailable:
        return
    assert len(vma_flags.program(known)) % 8 == 0
