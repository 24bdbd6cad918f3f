"""A cgroup v2 device filter: allowed devices → an eBPF program (pure), and its place in a cgroup.

The kernel calls the program with struct bpf_cgroup_dev_ctx { u32 access_type, major, minor } in r1
(access in the upper 16 bits of access_type, device type in the lower ones) and denies what returns 0.
"""

import os
import struct

from ocimig.runtime.cgroups.devices import ANY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocimig.runtime.cgroups.devices import Allowed

BPF_DEVCG_ACC_MKNOD = 1
BPF_DEVCG_ACC_READ = 2
BPF_DEVCG_ACC_WRITE = 4
BPF_DEVCG_DEV_BLOCK = 1
BPF_DEVCG_DEV_CHAR = 2

_ACCESS = {"m": BPF_DEVCG_ACC_MKNOD, "r": BPF_DEVCG_ACC_READ, "w": BPF_DEVCG_ACC_WRITE}
_TYPES = {"b": BPF_DEVCG_DEV_BLOCK, "c": BPF_DEVCG_DEV_CHAR}
_ALL = BPF_DEVCG_ACC_MKNOD | BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE

# Operation codes of <linux/bpf.h> and <linux/bpf_common.h>, put together.
_AND_K = 0x54  # BPF_ALU | BPF_AND | BPF_K: w_dst &= imm
_EXIT = 0x95  # BPF_JMP | BPF_EXIT
_JEQ_K = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JNE_K = 0x55  # BPF_JMP | BPF_JNE | BPF_K
_JNE_X = 0x5D  # BPF_JMP | BPF_JNE | BPF_X
_LDX_W = 0x61  # BPF_LDX | BPF_MEM | BPF_W: dst = *(u32 *)(src + off)
_MOV_K = 0xB4  # BPF_ALU | BPF_MOV | BPF_K: w_dst = imm
_MOV_X = 0xBC  # BPF_ALU | BPF_MOV | BPF_X: w_dst = w_src
_RSH_K = 0x74  # BPF_ALU | BPF_RSH | BPF_K


def instruction(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """struct bpf_insn in the byte order of this machine."""
    return struct.pack("=BBhi", code, src << 4 | dst, off, imm)


def program(allowed: "Allowed") -> bytes:
    """The instructions that allow what `allowed` does."""
    code = [
        instruction(_LDX_W, 2, 1, 0),  # r2: device type
        instruction(_AND_K, 2, imm=0xFFFF),
        instruction(_LDX_W, 3, 1, 0),  # r3: access asked for
        instruction(_RSH_K, 3, imm=16),
        instruction(_LDX_W, 4, 1, 4),  # r4: major
        instruction(_LDX_W, 5, 1, 8),  # r5: minor
    ]
    for (kind, major, minor), access in allowed.exceptions.items():
        code += _exception(kind, major, minor, access, allow=not allowed.everything)
    code += _answer(allowed.everything)
    return b"".join(code)


def _exception(kind: str, major: int, minor: int, access: str, *, allow: bool) -> "list[bytes]":
    """One block: every test that fails jumps behind it, otherwise it answers."""
    bits = 0
    for letter in access:
        bits |= _ACCESS[letter]
    # (code, dst, src, imm); the offsets of the jumps are known once all are there
    body = [(_JNE_K, 2, 0, _TYPES[kind])]
    if bits != _ALL:
        body += [(_MOV_X, 1, 3, 0), (_AND_K, 1, 0, bits)]
        # An exception that allows must cover all that is asked for; one that denies, any of it.
        body.append((_JNE_X, 1, 3, 0) if allow else (_JEQ_K, 1, 0, 0))
    if major != ANY:
        body.append((_JNE_K, 4, 0, _signed(major)))
    if minor != ANY:
        body.append((_JNE_K, 5, 0, _signed(minor)))
    answer = _answer(allow)
    block = []
    for index, (code, dst, src, imm) in enumerate(body):
        jumps = code in {_JNE_K, _JNE_X, _JEQ_K}
        behind = len(body) + len(answer) - index - 1 if jumps else 0
        block.append(instruction(code, dst, src, behind, imm))
    return block + answer


def _answer(allow: bool) -> "list[bytes]":
    return [instruction(_MOV_K, 0, imm=int(allow)), instruction(_EXIT)]


def _signed(number: int) -> int:
    # device numbers have 12 and 20 bits: what has more matches no device, and must not match another
    return number if number < 1 << 31 else -1


def install(path: str, allowed: "Allowed") -> None:
    """Attach the program to a cgroup, in the place of those that were attached there before."""
    from ocimig.runtime.linux import bpf

    cgroup = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    old: list[int] = []
    new = -1
    try:
        new = bpf.prog_load(program(allowed))
        old = [bpf.prog_get_fd_by_id(number) for number in bpf.prog_query(cgroup)]
        if len(old) == 1 and _replaced(cgroup, new, old[0]):
            return
        # All programs must allow: the new one joins before the old ones leave, so nothing is open meanwhile.
        bpf.prog_attach(cgroup, new, bpf.BPF_F_ALLOW_MULTI)
        for fd in old:
            bpf.prog_detach(cgroup, fd)
    finally:
        for fd in (*old, new, cgroup):
            if fd >= 0:
                os.close(fd)


def _replaced(cgroup: int, new: int, old: int) -> bool:
    from ocimig.runtime.linux import bpf

    try:
        bpf.prog_attach(cgroup, new, bpf.BPF_F_ALLOW_MULTI | bpf.BPF_F_REPLACE, old)
    except OSError:  # before Linux 5.6
        return False
    return True
