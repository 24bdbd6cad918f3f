"""A seccomp program, and the instructions before it that answer ENOSYS to calls the profile never heard of.

A profile lists the calls that existed when it was written. A C library that tries a newer one first
expects ENOSYS and falls back; the EPERM of the default action makes it give up. runc therefore answers
ENOSYS to every number above the highest one that the profile names, and callers rely on it.

    ld  [arch]
    jeq ARCH_1 -> section 1 … jeq ARCH_n -> section n
    ja  filter
    section: ld [nr]; x86-64 only: split off x32 by bit 30; jgt HIGHEST -> enosys; ja filter
    enosys:  ret ERRNO(ENOSYS)
    filter:  what libseccomp made
"""

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    # code, jump when true ("enosys" and "filter" are places), jump when false, value
    Row = tuple[int, int | str, int, int]

BPF_LD_W_ABS = 0x20
BPF_JMP_JA = 0x05
BPF_JMP_JEQ_K = 0x15
BPF_JMP_JGT_K = 0x25
BPF_JMP_JSET_K = 0x45
BPF_RET_K = 0x06

OFFSET_NR, OFFSET_ARCH = 0, 4  # struct seccomp_data
X32_BIT = 0x40000000
RET_ENOSYS = 0x00050000 | 38
AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_S390 = 0x16
AUDIT_ARCH_S390X = 0x80000016

INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


class Filter:
    """A program for seccomp(2), the flags to set it with, and the calls this libseccomp does not know."""

    __slots__ = ("bpf", "flags", "notify", "unknown")

    def __init__(self, bpf: bytes, flags: int, *, notify: bool, unknown: "list[str]") -> None:
        self.bpf = bpf
        self.flags = flags
        self.notify = notify
        self.unknown = unknown

    def describe(self) -> str:
        """One line for --explain."""
        return f"seccomp filter of {len(self.bpf) // INSTRUCTION.size} instructions, flags {self.flags:#x}"


def prelude(highest: "dict[int, dict[bool, int]]") -> bytes:
    """The instructions for `highest`: audit architecture -> {is it x32: highest known number}."""
    sections = [(arch, _section(arch, modes)) for arch, modes in sorted(highest.items()) if modes]
    if not sections:
        return b""
    total = sum(len(rows) for _, rows in sections)
    program: list[Row] = [(BPF_LD_W_ABS, 0, 0, OFFSET_ARCH)]
    for number, (arch, _) in enumerate(sections):
        # over the jumps that are left, the `ja filter`, and the sections before this one
        skip = len(sections) - number + sum(len(rows) for _, rows in sections[:number])
        program.append((BPF_JMP_JEQ_K, skip, 0, arch))
    program.append((BPF_JMP_JA, 0, 0, total + 1))
    for _, rows in sections:
        program += rows
    program.append((BPF_RET_K, 0, 0, RET_ENOSYS))
    enosys = len(program) - 1
    return b"".join(_encode(row, at, enosys) for at, row in enumerate(program))


def _section(arch: int, modes: "dict[bool, int]") -> "list[Row]":
    load: Row = (BPF_LD_W_ABS, 0, 0, OFFSET_NR)
    leave: Row = (BPF_JMP_JA, "filter", 0, 0)
    if arch != AUDIT_ARCH_X86_64:
        rows: list[Row] = [load, (BPF_JMP_JGT_K, "enosys", 0, modes[False]), leave]
        if arch in (AUDIT_ARCH_S390, AUDIT_ARCH_S390X):
            # call 0 carries the numbers above 255 there, and stays 0 when the kernel has none such
            rows.insert(1, (BPF_JMP_JEQ_K, "enosys", 0, 0))
        return rows
    # a mode the profile does not name goes to the filter, which refuses it as a bad architecture
    new: list[Row] = [(BPF_JMP_JGT_K, "enosys", 0, modes[False])] if False in modes else []
    x32: list[Row] = [(BPF_JMP_JGT_K, "enosys", 0, modes[True])] if True in modes else []
    return [load, (BPF_JMP_JSET_K, len(new) + 1, 0, X32_BIT), *new, leave, *x32, leave]


def _encode(row: "Row", at: int, enosys: int) -> bytes:
    code, true, false, value = row
    if code == BPF_JMP_JA:
        return INSTRUCTION.pack(code, 0, 0, value if true == 0 else enosys - at)
    # 255 instructions are far: all the architectures that libseccomp knows make fewer than 120
    jump = enosys - at - 1 if isinstance(true, str) else true
    return INSTRUCTION.pack(code, jump, false, value)
