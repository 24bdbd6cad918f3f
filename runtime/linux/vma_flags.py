"""The mappings of a process with the kernel's flags word, by a BPF iterator. Never walks page tables.

/proc/PID/smaps tells the flags too, but visits every page for it: 13 ms a GiB. /proc/PID/maps is
quick and has no flags. A program of type iter/task_vma (Linux 5.12) is called by the kernel for each
mapping and writes what it wants to know; that it is asked about one process only needs Linux 6.1.
It needs CAP_BPF and CAP_PERFMON in the first user namespace, and the kernel's BTF in /sys.
"""

import errno
import os
import struct
import sys
from functools import cache

from ocimig.runtime.linux import bpf, btf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    Mapping = tuple[int, int, int]  # start, end (exclusive), vm_flags

_HOOK = "bpf_iter_task_vma"

_RECORD = struct.Struct("=QQQ")
# The program ends its answer with so many bytes. End of file would not do: with the filter by thread
# (seen on Linux 6.18), reading behind the last mapping begins the last buffer again, for ever, when
# there was more than one. They always fit behind whole records: a power of two leaves 8 bytes or
# more, of which the kernel fills all but one.
_END = 4
_BUFFER = os.sysconf("SC_PAGE_SIZE") << 3  # what the kernel gathers for one read(2)

_INSTRUCTION = struct.Struct("=BBhi")  # struct bpf_insn, little-endian: dst in the lower half byte
# Operation codes of <linux/bpf.h> and <linux/bpf_common.h>, put together.
_ADD_K = 0x07  # BPF_ALU64 | BPF_ADD | BPF_K: dst += imm
_CALL = 0x85  # BPF_JMP | BPF_CALL
_EXIT = 0x95  # BPF_JMP | BPF_EXIT
_JEQ_K = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_LDX_DW = 0x79  # BPF_LDX | BPF_MEM | BPF_DW: dst = *(u64 *)(src + off)
_MOV_K = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K: dst = imm
_MOV_X = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X: dst = src
_STX_DW = 0x7B  # BPF_STX | BPF_MEM | BPF_DW: *(u64 *)(dst + off) = src
_ST_DW = 0x7A  # BPF_ST | BPF_MEM | BPF_DW: *(u64 *)(dst + off) = imm
_FRAME = 10
_SEQ_WRITE = 127  # bpf_seq_write(seq, data, len)


class Unavailable(Exception):
    """This kernel, or what we may do here, does not allow it; the words say why. Use smaps."""


class Layout:
    """What the program must know of this kernel: the id of the hook and offsets in bytes."""

    __slots__ = ("hook", "members", "meta", "seq", "vma")

    def __init__(
        self, hook: int, meta: int, vma: int, seq: int, members: "tuple[int, int, int]"
    ) -> None:
        self.hook = hook
        self.meta, self.vma = meta, vma  # in the context
        self.seq = seq  # in struct bpf_iter_meta
        self.members = members  # vm_start, vm_end, vm_flags in struct vm_area_struct


def layout(data: bytes) -> Layout:
    """The layout as a kernel's BTF tells it. Raises Unavailable, whatever the bytes are."""
    try:
        types = btf.Btf(data)
        hook = types.find(btf.BTF_KIND_FUNC, _HOOK)
        if not hook:
            raise Unavailable(f"no {_HOOK} in this kernel: Linux 5.12")
        # an older kernel takes the filter for something else and would walk every process
        link = types.find(btf.BTF_KIND_UNION, "bpf_iter_link_info")
        if not link or types.member(link, "task") is None:
            raise Unavailable("no iterator of one process in this kernel: Linux 6.1")
        places = {}
        for number, (name, type) in enumerate(types.parameters(types.target(hook))):
            places[name] = (8 * number, types.target(type) if _is_pointer(types, type) else 0)
        meta, meta_type = places.get("meta", (0, 0))
        vma, vma_type = places.get("vma", (0, 0))
        if not meta_type or not vma_type:
            raise Unavailable(f"unknown parameters of {_HOOK}")
        seq = _offset(types, meta_type, "seq")
        start, end, flags = (
            _offset(types, vma_type, name) for name in ("vm_start", "vm_end", "vm_flags")
        )
    except btf.Malformed as error:
        raise Unavailable(f"the kernel's BTF: {error}") from error
    return Layout(hook, meta, vma, seq, (start, end, flags))


def _is_pointer(types: btf.Btf, id: int) -> bool:
    return types.kind(id) == btf.BTF_KIND_PTR


def _offset(types: btf.Btf, id: int, name: str) -> int:
    found = types.member(id, name)
    if found is None:
        raise Unavailable(f"no member {name} in the kernel's BTF")
    offset, type = found
    plain = types.plain(type)
    word = types.kind(plain) == btf.BTF_KIND_INT and types.size(plain) == 8
    # an instruction has 16 bits for the offset, with a sign
    if offset >= 1 << 15 or not (word or _is_pointer(types, plain)):
        raise Unavailable(f"member {name} has an unknown form")
    return offset


def program(known: Layout) -> bytes:
    """The instructions: a record for each mapping, `_END` bytes when there are no more."""
    code = [
        _instruction(_LDX_DW, 7, 1, known.vma),
        _instruction(_LDX_DW, 1, 1, known.meta),
        _instruction(_LDX_DW, 1, 1, known.seq),  # r1: the struct seq_file
        _instruction(_MOV_X, 2, _FRAME),
        _instruction(_ADD_K, 2, imm=-_RECORD.size),
    ]
    record = []
    for number, offset in enumerate(known.members):
        place = 8 * number - _RECORD.size
        record += [_instruction(_LDX_DW, 0, 7, offset), _instruction(_STX_DW, _FRAME, 0, place)]
    record += _write(_RECORD.size)
    # the kernel calls once more without a mapping when it has shown the last one, or there was none
    code += [_instruction(_JEQ_K, 7, off=len(record)), *record]
    code += [_instruction(_ST_DW, _FRAME, off=-_RECORD.size), *_write(_END)]
    return b"".join(code)


def _write(length: int) -> "list[bytes]":
    # When the buffer is full, the kernel takes the record back and calls again for the next read(2).
    # The answer 0 is "done"; 1 would be "again".
    return [
        _instruction(_MOV_K, 3, imm=length),
        _instruction(_CALL, imm=_SEQ_WRITE),
        _instruction(_MOV_K, 0),
        _instruction(_EXIT),
    ]


def _instruction(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, src << 4 | dst, off, imm)


@cache
def _ours() -> Layout:
    """The layout of the running kernel: it does not change while we run."""
    if sys.byteorder != "little" or struct.calcsize("P") != 8:
        raise Unavailable("only for 64-bit little-endian machines")
    try:
        with open(btf.VMLINUX, "rb") as file:
            data = file.read()
    except OSError as error:
        raise Unavailable(f"{btf.VMLINUX}: {error.strerror}") from error
    return layout(data)


class VmaFlags:
    """The loaded program. Making it costs 0.1 s the first time: do that before the freeze."""

    __slots__ = ("_program",)

    def __init__(self) -> None:
        """Load the program and try it on ourselves. Raises Unavailable."""
        self._program = -1
        known = _ours()
        try:
            self._program = bpf.prog_load(
                program(known),
                b"GPL",
                type=bpf.BPF_PROG_TYPE_TRACING,
                expected_attach_type=bpf.BPF_TRACE_ITER,
                attach_btf_id=known.hook,
            )
            found = self.read(os.getpid())
        except OSError as error:
            self.close()
            raise Unavailable(f"bpf(2): {error.strerror}") from error
        ends = [0, *(end for _, end, _ in found)]
        if not found or any(row[0] < end for row, end in zip(found, ends, strict=False)):
            self.close()
            raise Unavailable("the iterator did not tell our own mappings")

    def read(self, pid: int) -> "list[Mapping]":
        """Start, end and vm_flags of each mapping, by address; [] without memory or when it is gone.

        `pid` is that of a thread group's leader, in our own pid namespace: the kernel looks it up in
        that of the caller of BPF_ITER_CREATE, whichever /proc is mounted. Other threads are not
        visited, so each mapping comes once; when the leader has ended and they go on, it has no
        memory, as in /proc/PID/maps. The gate area [vsyscall] is no mapping of the process and not
        told. What a process changes while it is read may be missing or told twice, as in
        /proc/PID/maps; of a frozen one the answer is exact.

        Raises OSError: EMFILE, ENOMEM and the like.
        """
        if pid <= 0:
            return []  # 0 would be no filter at all
        data = bytearray()
        link = bpf.link_create_iter(self._program, tid=pid)
        try:
            fd = bpf.iter_create(link)
        finally:
            os.close(link)  # the iterator has the program and the number itself
        try:
            came = b""
            while len(data) % _RECORD.size != _END:
                last, came = came, os.read(fd, _BUFFER)
                if not came or came == last:  # what `_END` is there to prevent: never for ever
                    raise OSError(errno.EIO, "the iterator did not say where it ends")
                data += came
        finally:
            os.close(fd)
        del data[-_END:]
        return list(_RECORD.iter_unpack(data))

    def close(self) -> None:
        """Give the program up. Can be called twice."""
        fd, self._program = self._program, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> "VmaFlags":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        self.close()
