"""The kernel's own type information (BTF): ids of functions, offsets of members. Never reads memory.

The layout is that of <linux/btf.h> in the byte order of this machine: a header, the types one behind
the other (numbered from 1 by their place), the strings. What is not as it should be is `Malformed`.
"""

import struct
from bisect import bisect_left

VMLINUX = "/sys/kernel/btf/vmlinux"

BTF_KIND_INT = 1
BTF_KIND_PTR = 2
BTF_KIND_STRUCT = 4
BTF_KIND_UNION = 5
BTF_KIND_TYPEDEF = 8
BTF_KIND_VOLATILE = 9
BTF_KIND_CONST = 10
BTF_KIND_RESTRICT = 11
BTF_KIND_FUNC = 12
BTF_KIND_FUNC_PROTO = 13
BTF_KIND_TYPE_TAG = 18

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_COMMON = 3  # words of struct btf_type: name_off, info, size or type

# words behind struct btf_type for each kind, from 1 (INT) to 19 (ENUM64): always, and for each of vlen
_FIXED = (0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0)
_EACH = (0, 0, 0, 0, 3, 3, 2, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 3)

_KIND_FLAG = 1 << 31  # of a struct: its offsets carry the sizes of bit fields
_UNUSED = 0x60FF0000  # bits of `info` without a meaning; a later format may give them one

_MODIFIERS = {
    BTF_KIND_TYPEDEF,
    BTF_KIND_VOLATILE,
    BTF_KIND_CONST,
    BTF_KIND_RESTRICT,
    BTF_KIND_TYPE_TAG,
}
_CHAIN = 64  # modifiers one behind the other; a circle has no end


class Malformed(ValueError):
    """This is no BTF, or not of the form known here; the words say where."""


class Btf:
    """The types of one BTF blob. Making it costs one pass over all of them: 0.1 s for a kernel."""

    __slots__ = ("_starts", "_strings", "_types", "_words")

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise Malformed(f"{len(data)} bytes are no header")
        magic, version, _, header, *sections = _HEADER.unpack_from(data)
        if (magic, version) != (_MAGIC, 1) or header < _HEADER.size:
            raise Malformed(f"header: magic {magic:#x}, version {version}, length {header}")
        types, types_length, strings, strings_length = sections
        if types % 4 or types_length % 4:
            raise Malformed("header: types are not aligned")
        if header + max(types + types_length, strings + strings_length) > len(data):
            raise Malformed("header: sections lie beyond the end")
        at = header + types
        self._types = data[at : at + types_length]
        self._words = memoryview(self._types).cast("I")
        self._strings = data[header + strings : header + strings + strings_length]
        self._starts = _starts(self._words)

    def find(self, kind: int, name: str) -> int:
        """The id of the first type of this kind and name; 0 without one."""
        # each name is there once; bytes.find() is quicker than a loop over all types, and also
        # finds numbers that are no name
        offset = self._strings.find(b"\0%s\0" % name.encode()) + 1
        wanted = struct.pack("=I", offset)
        at = self._types.find(wanted) if offset else -1
        while at >= 0:
            id = bisect_left(self._starts, at // 4, 1)
            begins = id < len(self._starts) and self._starts[id] * 4 == at
            if begins and self.kind(id) == kind:
                return id
            at = self._types.find(wanted, at + 1)
        return 0

    def kind(self, id: int) -> int:
        """BTF_KIND_… of a type; 0 is void."""
        return self._words[self._start(id) + 1] >> 24 & 0x1F if id else 0

    def target(self, id: int) -> int:
        """The id of the type that a pointer, a modifier or a function is made of."""
        return self._words[self._start(id) + 2]

    def size(self, id: int) -> int:
        """sizeof an integer, struct or union."""
        return self._words[self._start(id) + 2]

    def plain(self, id: int) -> int:
        """The type without typedef, const and the like."""
        for _ in range(_CHAIN):
            if self.kind(id) not in _MODIFIERS:
                return id
            id = self.target(id)
        raise Malformed(f"type {id}: modifiers without end")

    def parameters(self, prototype: int) -> "list[tuple[str, int]]":
        """Name and type of each parameter of a BTF_KIND_FUNC_PROTO."""
        if self.kind(prototype) != BTF_KIND_FUNC_PROTO:
            raise Malformed(f"type {prototype} is no prototype")
        start = self._start(prototype)
        first = start + _COMMON
        end = first + 2 * (self._words[start + 1] & 0xFFFF)
        return [(self._name(self._words[at]), self._words[at + 1]) for at in range(first, end, 2)]

    def member(self, id: int, name: str) -> "tuple[int, int] | None":
        """Byte offset and type of a member, also of one in structs and unions without a name."""
        # each anonymous type is looked at once: what is nested in itself or twice costs nothing more
        seen = set()
        left = [(self.plain(id), 0)]
        while left:
            id, base = left.pop()
            if id in seen or self.kind(id) not in {BTF_KIND_STRUCT, BTF_KIND_UNION}:
                continue
            seen.add(id)
            for found, type, bits in self._members(id):
                if found == name:
                    if (base + bits) % 8:
                        raise Malformed(f"{name} is a bit field")
                    return (base + bits) // 8, type
                if not found:
                    left.append((self.plain(type), base + bits))
        return None

    def _members(self, id: int) -> "list[tuple[str, int, int]]":
        # name, type, offset in bits; bit fields are left out
        start = self._start(id)
        info = self._words[start + 1]
        first = start + _COMMON
        found = []
        for at in range(first, first + 3 * (info & 0xFFFF), 3):
            name, type, offset = self._words[at : at + 3]
            if info & _KIND_FLAG:
                if offset >> 24:
                    continue
                offset &= 0xFFFFFF
            found.append((self._name(name), type, offset))
        return found

    def _start(self, id: int) -> int:
        if not 0 < id < len(self._starts):
            raise Malformed(f"there is no type {id}")
        return self._starts[id]

    def _name(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        if end < 0:
            raise Malformed(f"there is no string {offset}")
        return self._strings[offset:end].decode("ascii", "replace")


def _starts(words: memoryview) -> "list[int]":
    """Where each type begins, by its id; 0 is void and begins nowhere."""
    starts = [0]
    add = starts.append
    steps: dict[int, int] = {}  # a kernel has 100,000 types and a few hundred different `info`
    at, end = 0, len(words)
    while at + _COMMON <= end:
        info = words[at + 1]
        add(at)
        at += steps.get(info) or steps.setdefault(info, _step(info))
    if at != end:
        raise Malformed(f"type {len(starts) - 1} is cut short")
    return starts


def _step(info: int) -> int:
    """The words of a type, by its `info`."""
    kind = info >> 24 & 0x1F
    if info & _UNUSED or not 0 < kind < len(_FIXED):
        raise Malformed(f"unknown kind of type, info {info:#x}")
    return _COMMON + _FIXED[kind] + _EACH[kind] * (info & 0xFFFF)
