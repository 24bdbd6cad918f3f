"""kcmp(2): whether two processes share something. Changes nothing."""

import os

from ocimig.runtime.linux import syscalls

KCMP_VM = 1
_NR = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "ppc64le": 354, "s390x": 343}


def same_memory(one: int, other: int) -> bool:
    """Whether both run in one address space; False where the kernel cannot tell."""
    number = _NR.get(os.uname().machine)
    if number is None:
        return False
    try:
        return syscalls.call(number, one, other, KCMP_VM, 0, 0) == 0
    except OSError:  # no CONFIG_KCMP, or one of them ended
        return False
